import asyncio
import re
import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

import service.api.lane as module
import service.server
from service.api import predict
from service.api.lane import Lane
from service.api.predict import Predict
from service.api.protocol import LaneProtocol
from tests import tiny
from tests.conftest import running_app
from tests.service.calls import (
    AUDIO,
    IMAGE,
    assert_predictions,
    assert_still_answers,
    instances,
    pixels,
    png,
    sound,
    wav,
)
from tests.service.fakes import LIMIT_S, gated_app, until
from tests.service.wire import CLOSE, Answer, Wire, pieces, request, settle, wired

pytestmark = pytest.mark.anyio

IMAGES = pixels(2)
BODY = instances(IMAGES)
GOOD = request(BODY)
BAD = request(b'{"instances": 5}')  # which is found out at once, on the event loop
BROKEN = request(b"{")  # and this in a thread
HEALTH = request(method="GET", path="/healthz", kind="", length=None)
ROUTE = "/v1/models/{name}:predict"


@pytest.fixture(params=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """The event loop that serves, and the standard one, which writes and closes at other moments."""
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The way of each request, in the order of their heads: "lane" or "usual"."""
    seen: list[str] = []

    def watched(real: Any, way: str) -> Any:
        def watch(*arguments: Any) -> Any:
            seen.append(way)
            return real(*arguments)

        return watch

    for kind, name, way in (
        (module.LaneCall, "__init__", "lane"),
        (HttpToolsProtocol, "on_headers_complete", "usual"),
    ):
        monkeypatch.setattr(kind, name, watched(getattr(kind, name), way))
    return seen


@pytest.fixture
def protocols(monkeypatch: pytest.MonkeyPatch) -> list[LaneProtocol]:
    """The server's side of each connection, in the order in which they were made."""
    made: list[LaneProtocol] = []

    class WatchedProtocol(LaneProtocol):
        def __init__(self, lane: Lane, **options: Any) -> None:
            super().__init__(lane, **options)
            made.append(self)

    monkeypatch.setattr(service.server, "LaneProtocol", WatchedProtocol)
    return made


@asynccontextmanager
async def connected(repository: Path, **settings: Any) -> AsyncIterator[tuple[httpx.AsyncClient, Wire]]:
    async with running_app(repository, **settings) as client, wired(client) as wire:
        yield client, wire


@asynccontextmanager
async def gated(repository: Path, **settings: Any) -> AsyncIterator[tuple[httpx.AsyncClient, Any, Wire]]:
    async with gated_app(repository, lane=True, **settings) as (client, predictor), wired(client) as wire:
        yield client, predictor, wire


def assert_answers(answer: Answer, images: np.ndarray = IMAGES) -> None:
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == "application/json"
    assert_predictions(answer.json()["predictions"], tiny.image_logits(images))


def assert_refused(answer: Answer, status: int, words: str) -> None:
    assert answer.status == status, answer.body
    content = answer.json()
    assert words in content["detail"]
    assert content["request_id"] == answer.headers["x-request-id"]


def sample(client: Any, name: str, **labels: str) -> float:
    client.app.state.metrics.gather()
    return client.app.state.metrics.registry.get_sample_value(name, labels) or 0


def counted(client: Any, status: int, model: str = "tiny-image", version: str = "1") -> float:
    labels = {"model": model, "version": version, "route": ROUTE, "status": str(status)}
    return sample(client, "octet_requests_total", **labels)


# What goes through the lane, and what does not.


@pytest.mark.parametrize(
    "plain",
    [
        GOOD,
        request(BODY, "accept: */*", "connection: keep-alive", "user-agent: x", "cookie: a=b; c=d"),
        request(BODY, path=IMAGE + "?top_k=2&invert=false"),
        request(BODY, path="/v1/models/tiny-image/versions/1:predict"),
        request(BODY, path="http://octet" + IMAGE),
        request(BODY, kind="Application/JSON ; charset=utf-8"),
        request(BODY, "X-TIMEOUT-MS: 60000", "X-Request-Id: mine"),
        request(IMAGES.tobytes(), "x-tensor-shape: 2,4,4", kind="application/octet-stream"),
        request(BODY, length=f"000{len(BODY)}"),
    ],
)
async def test_plain_calls_go_through_the_lane(repository: Path, ways: list[str], plain: bytes) -> None:
    async with connected(repository) as (_, wire):
        for _ in range(3):
            wire.send(plain)
            assert_answers(await wire.read())
    assert ways == ["lane"] * 3


CHUNKED = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in pieces(BODY, 3, 20)) + b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("unusual", "closes"),
    [
        (request(BODY, CLOSE), True),
        (request(BODY, version="1.0"), True),
        (request(BODY, "expect: 100-continue"), False),
        (request(b"", "transfer-encoding: chunked", length=None) + CHUNKED, False),
        (request(BODY, "x-some: 1", "x-some: 2"), False),
        (request(BODY, "x-timeout-ms: 60000", "x-timeout-ms: 60000"), False),
        (request(BODY, "content-encoding:"), False),
        (request(BODY, path="/v1/models/tiny%2Dimage:predict"), False),
        (request(BODY, path="/v1/models/tiny-image%3Apredict"), False),
    ],
)
async def test_unusual_calls_are_answered_the_usual_way(
    repository: Path, ways: list[str], unusual: bytes, closes: bool
) -> None:
    async with connected(repository) as (_, wire):
        wire.send(unusual)
        answer = await wire.read()
        assert_answers(answer)
        assert (answer.headers.get("connection") == "close") == closes
        if closes:
            assert await wire.rest() == b""
        else:
            wire.send(GOOD)
            assert_answers(await wire.read())
    assert ways == (["usual"] if closes else ["usual", "lane"])


async def test_a_body_that_waits_for_leave_gets_it(repository: Path) -> None:
    head, body = pieces(request(BODY, "expect: 100-continue"), -len(BODY))
    async with connected(repository) as (_, wire):
        await wire.say(head)
        wire.send(body)
        answer = await wire.read()
        assert_answers(answer)
        assert answer.informational == [100]


async def test_a_large_body_goes_the_usual_way_which_slows_its_sender_down(
    repository: Path, ways: list[str]
) -> None:
    largest = 1024 * 1024
    bodies = [BODY[:-1] + b" " * (size - len(BODY)) + b"}" for size in (largest, largest + 1)]
    async with connected(repository) as (_, wire):
        for body in bodies:
            wire.send(request(body))
            assert_answers(await wire.read())
    assert ways == ["lane", "usual"]


async def test_a_limit_below_that_of_the_lane_holds_in_it_too(repository: Path, ways: list[str]) -> None:
    async with connected(repository, max_body_bytes=len(BODY)) as (_client, wire):
        wire.send(GOOD)
        assert_answers(await wire.read())
        wire.send(request(BODY + b" "))
        answer = await wire.read()
        assert_refused(answer, 413, f"larger than the allowed {len(BODY)} bytes")
        assert answer.headers["connection"] == "close"
        assert await wire.rest() == b""
    assert ways == ["lane", "usual"]


@pytest.mark.parametrize(
    ("refused", "status", "words"),
    [
        (request(BODY, path="/v1/models/nothing:predict"), 404, "no model 'nothing'"),
        (request(BODY, path="/v1/models/tiny-image/versions/7:predict"), 404, "no version '7'"),
        (request(BODY, path="/v1/models/tiny-image:classify"), 404, "there is nothing at"),
        (request(BODY, method="PUT"), 405, "PUT is not allowed"),
        (request(BODY, kind="text/plain"), 415, "'text/plain'"),
        (request(BODY, kind=""), 415, "without a content type"),
        (request(BODY, "content-encoding: br"), 415, "'br'"),
        (request(BODY, path=IMAGE + "?top_k=0"), 400, "'top_k'"),
        (request(BODY, path=IMAGE + "?topk=1"), 400, "'topk'"),
        (request(BODY, "x-timeout-ms: 1_0"), 400, "X-Timeout-Ms must be"),
        (request(BODY, "x-timeout-ms: \xb2"), 400, "X-Timeout-Ms must be"),
        (request(bytes(16), "x-tensor-shape: \xb9,4,4", kind="application/octet-stream"), 400, "X-Tensor"),
        (BROKEN, 400, "not valid JSON"),
        (BAD, 400, "must be a list"),
        (request(b""), 400, "not valid JSON"),
        (request(b"I am a text", kind="image/png"), 400, "not a PNG"),
        (request(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", kind="image/png"), 400, "image"),
        (request(b'{"instances": [{"b64": "?"}]}'), 400, "base64"),
    ],
)
async def test_what_is_refused_leaves_the_connection_usable(
    repository: Path, refused: bytes, status: int, words: str
) -> None:
    async with connected(repository) as (_, wire):
        wire.send(refused)
        assert_refused(await wire.read(), status, words)
        wire.send(GOOD, refused, GOOD)
        assert_answers(await wire.read())
        assert_refused(await wire.read(), status, words)
        assert_answers(await wire.read())


@pytest.mark.parametrize(
    "length", ["+5", "1_0", "0x10", "-1", "5,5", "", " ", "\xb2", "1e1", "9" * 30, "5 5"]
)
async def test_a_length_that_is_no_number_is_no_http_and_closes_the_connection(
    repository: Path, length: str
) -> None:
    async with connected(repository) as (client, wire):
        wire.send(request(BODY, f"content-length: {length}", length=None))
        answer = await wire.read()
        assert answer.status == 400
        assert answer.headers["connection"] == "close"
        assert await wire.rest() == b""
        await assert_still_answers(client)


@pytest.mark.parametrize("zeros", [1, 18, 100, 5000])
async def test_a_length_with_any_number_of_zeros_before_it_is_that_length(
    repository: Path, zeros: int
) -> None:
    async with connected(repository) as (_, wire):
        wire.send(request(BODY, length="0" * zeros + str(len(BODY))))
        assert_answers(await wire.read())


@pytest.mark.parametrize(
    "smuggled",
    [
        request(BODY, "transfer-encoding: chunked"),
        request(BODY, "transfer-encoding: chunked", length="5"),
        request(BODY, "Transfer-Encoding : chunked"),
        request(BODY, "transfer-encoding: xchunked", length=None),
        request(BODY, "transfer-encoding: chunked", "transfer-encoding: identity", length=None),
        request(BODY, f"content-length: {len(BODY)}"),
        request(BODY, "content-length: 5"),
        request(BODY, "content-length: 0", length=f"{len(BODY)}"),
        request(BODY, " folded: header"),
        request(BODY, "x-some: a\nx-other: b"),
        request(BODY, "x-some: a\rb"),
        request(BODY, "x-some: a\0b"),
        request(BODY, "x some: a"),
        request(BODY, ": nameless"),
        GOOD.replace(b"\r\n", b"\n"),
        request(BODY, path="/v1/models/tiny-image :predict"),
        request(BODY, version="1.2"),
    ],
)
async def test_what_two_servers_could_read_differently_is_refused_and_the_connection_closed(
    repository: Path, smuggled: bytes
) -> None:
    """Nothing behind it is taken for another request."""
    async with connected(repository) as (client, wire):
        wire.send(smuggled, b"GET /smuggled HTTP/1.1\r\nhost: octet\r\n\r\n")
        answers = await wire.rest()
        assert answers.count(b"HTTP/1.1 ") == 1
        assert answers.startswith(b"HTTP/1.1 400 ")
        assert b"connection: close" in answers
        assert (
            sample(client, "octet_requests_total", model="", version="", route="unmatched", status="404") == 0
        )
        await assert_still_answers(client)


async def test_header_values_beyond_ascii_harm_nothing(repository: Path, ways: list[str]) -> None:
    async with connected(repository) as (_, wire):
        for header in ("x-some: \xe9\xff", "x-request-id: \xe9", "authorization: \x80"):
            wire.send(request(BODY, header))
            answer = await wire.read()
            assert_answers(answer)
            assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])
        for header in ("content-type: application/json; x=\xe9",):
            wire.send(request(BODY, header, kind=""))
            assert_answers(await wire.read())
    assert ways == ["lane"] * 4


# How bytes arrive.


async def test_a_request_may_be_cut_anywhere(repository: Path) -> None:
    whole = request(instances(pixels(1)), "x-request-id: mine", path=IMAGE + "?top_k=2")
    async with connected(repository) as (client, wire):
        for cut in range(1, len(whole)):
            await wire.say(*pieces(whole, cut))
            answer = await wire.read()
            assert_answers(answer, pixels(1))
            assert answer.headers["x-request-id"] == "mine"
        assert counted(client, 200, version="2") == len(whole) - 1


async def test_a_request_may_come_byte_by_byte(repository: Path) -> None:
    whole = request(instances(pixels(1)))
    async with connected(repository) as (_, wire):
        for _ in range(2):
            for byte in whole:
                wire.send(bytes([byte]))
                await settle(2)
            assert_answers(await wire.read(), pixels(1))


async def test_requests_in_one_packet_are_answered_in_their_order(repository: Path, ways: list[str]) -> None:
    images = [pixels(1 + seed % 3, seed) for seed in range(12)]
    async with connected(repository) as (client, wire):
        wire.send(*(request(instances(each), f"x-request-id: {i}") for i, each in enumerate(images)))
        for i, each in enumerate(images):
            answer = await wire.read()
            assert answer.headers["x-request-id"] == str(i)
            assert_answers(answer, each)
        assert counted(client, 200, version="2") == 12
        assert sample(client, "octet_in_flight") == 0
    assert ways == ["lane"] + ["usual"] * 11  # which wait in uvicorn's own queue


@pytest.mark.parametrize("threads", [1, 2])
async def test_both_ways_may_be_mixed_in_one_packet(repository: Path, threads: int) -> None:
    unknown = request(BODY, path="/v1/models/nothing:predict")
    voice = request(wav(sound()), path=AUDIO, kind="audio/wav")
    sent = [GOOD, HEALTH, BROKEN, BAD, BAD, GOOD, unknown, voice, BROKEN]
    async with connected(repository, threads=threads) as (client, wire):
        for order in (sent, sent[::-1], sent[2:] + sent[:2]):
            statuses = {GOOD: 200, HEALTH: 200, BAD: 400, BROKEN: 400, unknown: 404}
            wire.send(*order)
            answers = [await wire.read() for _ in order]
            assert [answer.status for answer in answers] == [statuses.get(each, 200) for each in order]
        assert sample(client, "octet_in_flight") == 0
        wire.send(GOOD)
        assert_answers(await wire.read())


async def test_a_second_request_may_come_while_the_first_waits(repository: Path) -> None:
    other = pixels(3, 3)
    async with gated(repository) as (_, predictor, wire):
        await wire.say(request(BODY, "x-request-id: first"))
        await until(predictor.running.is_set)
        head, body = pieces(request(instances(other), "x-request-id: second"), -20)
        await wire.say(head, body, request(method="GET", path="/v1/models", kind="", length=None))
        predictor.gate.set()
        for images, name in ((IMAGES, "first"), (other, "second")):
            answer = await wire.read()
            assert_answers(answer, images)
            assert answer.headers["x-request-id"] == name
        assert (await wire.read()).json() == {"models": ["tiny-image"]}


async def test_garbage_behind_a_request_closes_the_connection(repository: Path) -> None:
    async with connected(repository) as (client, wire):
        wire.send(GOOD)
        assert_answers(await wire.read())
        wire.send(b"\x16\x03\x01 garbage\r\n\r\n")
        assert (await wire.rest()).startswith(b"HTTP/1.1 400 ")
        await assert_still_answers(client)


async def test_garbage_in_the_packet_of_a_request_closes_the_connection_and_drops_the_work(
    repository: Path,
) -> None:
    async with gated(repository) as (client, predictor, wire):
        wire.send(GOOD, b"\x16\x03\x01 garbage\r\n\r\n")
        assert (await wire.rest()).startswith(b"HTTP/1.1 400 ")
        await until(lambda: counted(client, 499) == 1)
        predictor.gate.set()
        async with wired(client) as other:
            other.send(GOOD)
            assert_answers(await other.read())
        assert sample(client, "octet_in_flight") == 0


# Heads that came before are known by their bytes.


async def test_the_same_head_is_known_and_another_is_not(repository: Path, ways: list[str]) -> None:
    other = pixels(2, 3)
    assert len(instances(other)) != len(BODY)
    async with connected(repository, threads=1) as (client, wire):
        for images in (IMAGES, other, IMAGES, other, IMAGES):
            wire.send(request(instances(images)))
            assert_answers(await wire.read(), images)
        async with wired(client) as second:
            second.send(GOOD)
            assert_answers(await second.read())
            second.send(GOOD.replace(b"1.1", b"1.0", 1))
            answer = await second.read()
            assert_answers(answer)
            assert answer.headers["connection"] == "close"
        wire.send(GOOD.replace(b":predict", b":confidence"))
        assert (await wire.read()).json()["schema"] == "confidence/1"
    assert ways == ["lane"] * 6 + ["usual", "lane"]


async def test_a_known_head_may_come_with_less_or_more_than_its_body(repository: Path) -> None:
    head, body = pieces(GOOD, -len(BODY))
    async with connected(repository, threads=1) as (_, wire):
        for _ in range(2):
            wire.send(GOOD)
            assert_answers(await wire.read())
            await wire.say(head, body)
            assert_answers(await wire.read())
            await wire.say(GOOD[:-1], GOOD[-1:])
            assert_answers(await wire.read())
            wire.send(GOOD, HEALTH, GOOD)
            assert_answers(await wire.read())
            assert (await wire.read()).json() == {"status": "ok"}
            assert_answers(await wire.read())
            await wire.say(GOOD[:-1], GOOD[-1:] + GOOD)
            assert_answers(await wire.read())
            assert_answers(await wire.read())


@pytest.mark.parametrize("start", [b"P", b"PO", b"POST /", b"\r\nP"])
async def test_a_known_request_behind_the_start_of_another_is_none(repository: Path, start: bytes) -> None:
    async with connected(repository) as (client, wire):
        wire.send(GOOD)
        assert_answers(await wire.read())
        await wire.say(start)
        wire.send(GOOD)
        assert (await wire.rest()).startswith(b"HTTP/1.1 400 ")
        assert counted(client, 200, version="2") == 1


async def test_a_body_that_looks_like_a_known_request_stays_a_body(repository: Path) -> None:
    """When it comes in a packet of its own, too."""
    async with connected(repository, threads=1) as (client, wire):
        wire.send(GOOD)
        assert_answers(await wire.read())
        for _ in range(2):
            await wire.say(*pieces(request(GOOD), -len(GOOD)))
            assert_refused(await wire.read(), 400, "not valid JSON")
        chunk = b"%x\r\n%b\r\n" % (len(GOOD), GOOD)
        chunked = request(b"", "transfer-encoding: chunked", length=None)
        await wire.say(chunked, b"%x\r\n" % len(GOOD), GOOD, b"\r\n", chunk, b"0\r\n", b"\r\n")
        assert_refused(await wire.read(), 400, "not valid JSON")
        wire.send(GOOD)
        assert_answers(await wire.read())
        assert counted(client, 200, version="2") == 2


HEAD = pieces(GOOD, -len(BODY))[0]


@pytest.mark.parametrize(
    "head",
    [
        b"\r\n" + HEAD,
        b"\r\n\r\n" + HEAD,
        b"\r\n\r\n\r\n\r\n" + HEAD,
        b"\n\n" + HEAD,
        HEAD[:-2] + b"\n",
        HEAD[:-4] + b"\n\n",
        HEAD[:-4] + b"\n\r\n",
        HEAD[:-4] + b"\r\r\n",
        HEAD[:-4] + b"\r\n \r\n\r\n",
        HEAD.replace(b"\r\n", b"\n", 1),
        HEAD.replace(b"\r\n", b"\r\r\n", 1),
        HEAD.replace(b"POST", b"post"),
    ],
)
async def test_what_follows_an_odd_head_is_read_the_same_way_every_time(
    repository: Path, head: bytes
) -> None:
    """What is remembered is what the parser took for a head, not another part of the bytes."""
    padded = request(method="GET", path="/healthz", kind="", length=None)
    padded = padded[:-2] + b"x-some: " + b"x" * (len(BODY) - len(padded) - 10) + b"\r\n\r\n"
    tricky = BODY[:-3] + b"\r\n\r\n" + BODY[-3:]
    assert len(padded) == len(BODY)
    async with running_app(repository, threads=1) as client:
        for tail in (BODY, tricky, padded):
            seen = set()
            for _ in range(3):
                async with wired(client) as wire:
                    wire.send(head, tail, HEALTH.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
                    answers = await wire.rest()
                seen.add(re.sub(rb"date: [^\r]*|[0-9a-f]{32}", b"", answers))
            assert len(seen) == 1
        for _ in range(2):
            for start in (b"", b"\r\n", b"\r\n\r\n"):
                async with wired(client) as wire:
                    wire.send(start, padded)
                    assert (await wire.read()).json() == {"status": "ok"}


# Time.


@pytest.mark.parametrize(
    ("deadline_ms", "headers"), [(30, ()), (30, ("x-timeout-ms: 60000",)), (10_000, ("x-timeout-ms: 30",))]
)
async def test_an_answer_that_is_late_is_a_504_and_the_connection_stays(
    repository: Path, deadline_ms: int, headers: tuple[str, ...]
) -> None:
    async with gated(repository, deadline_ms=deadline_ms) as (client, predictor, wire):
        wire.send(request(BODY, *headers))
        answer = await wire.read()
        assert_refused(answer, 504, "not ready within 30 ms")
        assert "connection" not in answer.headers
        predictor.gate.set()
        await settle()  # the result of the first comes, and nobody gets it
        other = pixels(3, 3)
        wire.send(request(instances(other)))
        assert_answers(await wire.read(), other)
        assert (counted(client, 504), counted(client, 200)) == (1, 1)
        assert sample(client, "octet_in_flight") == 0


async def test_a_late_answer_among_pipelined_requests_keeps_their_order(repository: Path) -> None:
    async with gated(repository) as (_, predictor, wire):
        wire.send(request(BODY, "x-timeout-ms: 30"), request(BODY, "x-timeout-ms: 40"), HEALTH)
        assert_refused(await wire.read(), 504, "within 30 ms")
        assert_refused(await wire.read(), 504, "within 40 ms")
        assert (await wire.read()).json() == {"status": "ok"}
        predictor.gate.set()


@pytest.mark.parametrize("rest", [len(BODY), 1], ids=["all", "the-last-byte"])
async def test_a_body_that_stalls_is_a_408_and_closes_the_connection(repository: Path, rest: int) -> None:
    head, _ = pieces(request(BODY, "x-request-id: mine"), -rest)
    async with connected(repository, body_timeout_s=0.1) as (client, wire):
        wire.send(head)
        answer = await wire.read()
        assert_refused(answer, 408, "did not arrive within 0.1 s")
        assert answer.headers["x-request-id"] == "mine"
        assert answer.headers["connection"] == "close"
        assert await wire.rest() == b""
        assert counted(client, 408, version="2") == 1
        assert counted(client, 499, version="2") == 0
        await assert_still_answers(client)


async def test_bytes_that_trickle_do_not_extend_the_time_of_a_body(repository: Path) -> None:
    head, body = pieces(GOOD, -len(BODY))
    async with connected(repository, body_timeout_s=0.5) as (_, wire):
        began_s = time.monotonic()
        wire.send(head)
        for byte in body[:10]:
            wire.send(bytes([byte]))
            await asyncio.sleep(0.04)
        assert_refused(await wire.read(), 408, "did not arrive")
        assert time.monotonic() - began_s < 0.85


async def test_the_time_of_a_body_ends_with_it(repository: Path) -> None:
    async with gated(repository, body_timeout_s=0.05) as (_, predictor, wire):
        await wire.say(*pieces(GOOD, -5))
        await asyncio.sleep(0.1)
        predictor.gate.set()
        assert_answers(await wire.read())


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections on which nothing happens are closed after a tenth of a second."""

    class HastyProtocol(LaneProtocol):
        def __init__(self, lane: Lane, **options: Any) -> None:
            super().__init__(lane, **options)
            self.timeout_keep_alive = 0.1  # type: ignore[assignment]

    monkeypatch.setattr(service.server, "LaneProtocol", HastyProtocol)


@pytest.mark.usefixtures("hasty")
async def test_a_connection_is_closed_when_nothing_happens_on_it(repository: Path) -> None:
    async with connected(repository) as (_, wire):
        wire.send(GOOD)
        assert_answers(await wire.read())
        assert await wire.rest() == b""


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("request_", [GOOD, HEALTH], ids=["lane", "usual"])
async def test_a_connection_that_is_used_again_and_again_is_kept_and_then_closed(
    repository: Path, request_: bytes
) -> None:
    async with connected(repository) as (_, wire):
        for _ in range(8):
            wire.send(request_)
            assert (await wire.read()).status == 200
            await asyncio.sleep(0.05)
        began_s = time.monotonic()
        assert await wire.rest() == b""
        assert time.monotonic() - began_s < 0.5


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("first", [BAD, BROKEN, HEALTH], ids=["bad", "broken", "health"])
async def test_a_connection_is_not_closed_while_a_request_is_answered(repository: Path, first: bytes) -> None:
    """Not even where it came in the packet of another one that was answered at once."""
    async with gated(repository) as (_, predictor, wire):
        wire.send(first, GOOD)
        await wire.read()
        await asyncio.sleep(0.3)
        predictor.gate.set()
        assert_answers(await wire.read())


# Callers that go away.


async def test_a_caller_that_goes_while_it_waits_is_counted_and_its_rows_are_not_run(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    neighbour = pixels(3, 3)
    async with gated(repository) as (client, predictor, wire):
        async with wired(client) as first, wired(client) as other:
            first.send(GOOD)
            await until(predictor.running.is_set)
            await wire.say(request(instances(pixels(4, 4)), "x-request-id: gone"))
            await other.say(request(instances(neighbour)))
            wire.close()
            await until(lambda: counted(client, 499) == 1)
            await until(lambda: sample(client, "octet_queue_depth", model="tiny-image", version="1") == 3)
            predictor.gate.set()
            assert_answers(await first.read())
            assert_answers(await other.read(), neighbour)
        assert sample(client, "octet_rows_total", model="tiny-image", version="1") == 5
        assert sample(client, "octet_in_flight") == 0
    assert f"INFO service.access [gone] POST {IMAGE} 499 " in capsys.readouterr().err


@pytest.mark.parametrize("abort", [True, False])
async def test_a_caller_that_goes_while_it_is_served_harms_no_neighbour(
    repository: Path, abort: bool
) -> None:
    async with gated(repository) as (client, predictor, wire):
        await wire.say(GOOD)
        await until(predictor.running.is_set)
        wire.abort() if abort else wire.close()
        await until(lambda: counted(client, 499) == 1)
        async with wired(client) as other:
            await other.say(GOOD)
            predictor.gate.set()
            assert_answers(await other.read())
        assert sample(client, "octet_in_flight") == 0


async def test_a_caller_that_goes_while_it_sends_is_counted(repository: Path) -> None:
    async with connected(repository) as (client, wire):
        await wire.say(*pieces(GOOD[:-3], -20))
        wire.close()
        await until(lambda: counted(client, 499, version="2") == 1)
        assert sample(client, "octet_in_flight") == 0
        await assert_still_answers(client)


async def test_a_caller_that_goes_in_the_middle_of_a_head_is_no_request(repository: Path) -> None:
    async with connected(repository) as (client, wire):
        await wire.say(GOOD[:40])
        wire.close()
        await until(lambda: sample(client, "octet_connections") == 0)
        assert sample(client, "octet_in_flight") == 0
        await assert_still_answers(client)
        assert counted(client, 499, version="2") == 0


async def test_a_caller_that_goes_while_its_image_is_decoded_is_counted(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    read = Predict.read

    def slow(*arguments: Any) -> Any:
        begun.set()
        assert go_on.wait(LIMIT_S)
        return read(*arguments)

    monkeypatch.setattr(Predict, "is_quick", lambda *_: False)
    monkeypatch.setattr(Predict, "read", slow)
    async with connected(repository, threads=1) as (client, wire):
        await wire.say(request(png(IMAGES[0]), kind="image/png"))
        await until(begun.is_set)
        wire.close()
        await until(lambda: counted(client, 499, version="2") == 1)
        go_on.set()
        await assert_still_answers(client)
        assert sample(client, "octet_rows_total", model="tiny-image", version="2") == 2  # of the one above
        assert sample(client, "octet_in_flight") == 0


async def test_a_caller_that_goes_leaves_what_it_pipelined_undone(repository: Path) -> None:
    """It is not read from while its next request waits, so that it has gone shows in its first answer."""
    async with gated(repository) as (client, predictor, wire):
        await wire.say(GOOD * 5)
        await until(predictor.running.is_set)
        wire.abort()
        predictor.gate.set()
        async with wired(client) as other:
            other.send(GOOD)
            assert_answers(await other.read())
        await until(lambda: sample(client, "octet_connections") == 0)
        assert 2 <= counted(client, 200) + counted(client, 499) <= 3
        assert sample(client, "octet_in_flight") == 0


@pytest.mark.parametrize("good", [True, False], ids=["answers", "refusals"])
async def test_a_caller_that_never_reads_is_held_back_and_others_are_served(
    repository: Path, protocols: list[LaneProtocol], good: bool
) -> None:
    """Its answers fill the buffers of the socket; after that none of its requests is read any more."""
    sent = 0
    one = request(instances(pixels(1))) if good else BAD
    async with running_app(repository, threads=1) as client:
        with socket.socket(socket.AF_UNIX) as deaf:
            deaf.setblocking(False)
            deaf.connect(client.path)  # type: ignore[attr-defined]
            before = psutil.Process().memory_info().rss
            stuck = 0
            while stuck < 50 and sent < 200e6:  # until nothing was taken for a while
                try:
                    sent += deaf.send(one * 100)
                    stuck = 0
                except BlockingIOError:
                    stuck += 1
                    await asyncio.sleep(0.005)
            assert sent < 20e6
            assert psutil.Process().memory_info().rss - before < 50e6
            await assert_still_answers(client)
            protocol = protocols[0]
            assert protocol.transport.get_write_buffer_size() > 0
            assert protocol.transport.get_write_buffer_size() < 200_000
            assert protocol.flow.read_paused
        await until(lambda: sample(client, "octet_in_flight") == 0)
        await assert_still_answers(client)


async def test_a_caller_that_reads_late_gets_every_answer(repository: Path) -> None:
    n = 3000
    async with connected(repository, threads=1) as (_, wire):
        transport = wire._reader._transport  # type: ignore[attr-defined]
        transport.pause_reading()
        for i in range(n):
            wire.send(
                request(BODY, f"x-request-id: {i}")
                if i % 3
                else request(b'{"instances": 5}', f"x-request-id: {i}")
            )
        await asyncio.sleep(0.3)
        transport.resume_reading()
        for i in range(n):
            answer = await wire.read()
            assert answer.headers["x-request-id"] == str(i)
            assert answer.status == (200 if i % 3 else 400)


# The end of the server, and its own failures.


async def test_while_draining_answers_close_their_connection_and_none_is_cut(repository: Path) -> None:
    async with gated(repository) as (client, predictor, wire):
        async with wired(client) as sending, wired(client) as idle:
            await wire.say(GOOD)
            await until(predictor.running.is_set)
            await sending.say(GOOD[:-5])
            client.app.state.draining = True  # type: ignore[attr-defined]
            predictor.gate.set()
            sending.send(GOOD[-5:])
            idle.send(GOOD)
            for each in (wire, sending, idle):
                answer = await each.read()
                assert_answers(answer)
                assert answer.headers["connection"] == "close"
                assert await each.rest() == b""
        assert (counted(client, 200), counted(client, 499)) == (3, 0)


async def test_uvicorn_finishes_what_is_in_the_lane_before_it_stops(
    repository: Path, protocols: list[LaneProtocol]
) -> None:
    """It asks the protocol for its cycle, in whose place the call stands."""
    async with connected(repository) as (client, wire):
        await wire.say(GOOD[:-5])
        async with wired(client) as idle:
            idle.send(GOOD)
            assert_answers(await idle.read())
            for protocol in protocols:
                protocol.shutdown()
            assert await idle.rest() == b""
        wire.send(GOOD[-5:])
        answer = await wire.read()
        assert_answers(answer)
        assert answer.headers["connection"] == "close"
        assert await wire.rest() == b""


async def test_a_call_whose_work_is_dropped_at_the_end_of_the_server_closes_its_connection(
    repository: Path,
) -> None:
    async with gated(repository) as (client, predictor, wire):
        await wire.say(GOOD)
        await until(predictor.running.is_set)
        async with wired(client) as waiting:
            await waiting.say(GOOD)
            await client.app.state.registry.get("tiny-image").batcher.stop()  # type: ignore[attr-defined]
            assert await wire.rest() == b""
            assert await waiting.rest() == b""
        await until(lambda: counted(client, 499) == 2)
        predictor.gate.set()


async def test_a_failure_while_an_answer_is_rendered_is_a_500_and_the_connection_stays(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connected(repository) as (client, wire):
        with monkeypatch.context() as patch:
            patch.setattr(predict, "orjson", SimpleNamespace(dumps=fail))
            wire.send(request(BODY, "x-request-id: mine"))
            answer = await wire.read()
        assert_refused(answer, 500, "under request mine")
        wire.send(GOOD)
        assert_answers(await wire.read())
        assert counted(client, 500, version="2") == 1


def fail(*_: Any) -> bytes:
    raise TypeError("cannot be rendered")


async def test_connections_are_counted(repository: Path) -> None:
    async with connected(repository) as (client, wire):
        async with wired(client) as other:
            for each in (wire, other):
                each.send(GOOD)
                assert_answers(await each.read())
            assert sample(client, "octet_connections") == 2
        await until(lambda: sample(client, "octet_connections") == 1)


async def test_many_connections_at_once_each_get_their_own_answers(repository: Path) -> None:
    """On one thread, where quick batches run on the event loop itself."""

    async def call(client: Any, number: int) -> None:
        async with wired(client) as wire:
            for i in range(10):
                images = pixels(1 + (number + i) % 11, number * 10 + i)
                wire.send(request(instances(images)))
                assert_answers(await wire.read(), images)

    async with running_app(repository, threads=1) as client:
        await asyncio.gather(*(call(client, number) for number in range(30)))
        assert counted(client, 200, version="2") == 300
        assert sample(client, "octet_queue_depth", model="tiny-image", version="2") == 0
        assert sample(client, "octet_in_flight") == 0
