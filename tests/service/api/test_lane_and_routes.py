"""Whatever is asked, the lane and the routes give the same answer, count the same and log the same."""

import asyncio
import gzip
import re
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson
import pytest
import uvloop
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from bundle.datatypes import Datatype, array_to_bytes
from service.api.tensors import HEADER_LENGTH
from service.app import create_app
from service.metrics import Metrics
from service.record import Record
from service.registry import load_registry
from service.server import uvicorn_config
from service.settings import Settings
from tests.conftest import serving
from tests.service.calls import b64, instances, pixels, png, sound, wav
from tests.service.wire import Wire, pieces

BODIES = [
    b"",
    b"{",
    b"[]",
    b'{"instances": []}',
    b'{"instances": [1, 2]}',
    b'{"instances": [null, true, "x", {}]}',
    b'{"instances": [{"b64": "?"}]}',
    b'{"instances": [[0.5, -0.25, 1]]}',
    b'{"instances": [[0.5, 1e999]]}',
    b'{"instances": [[[1, 2, 3, 300]]]}',
    b'{"instances": [[{}, {}, {}, {}]]}',
    b"I am a text",
    instances(pixels(1)),
    instances(pixels(9)),
    instances(pixels(31)),
    instances([b64(png(pixels(1)[0])), pixels(1)[0].tolist()]),
    instances([sound(20).tolist(), sound(3).tolist()]),
    instances([b64(wav(sound(9)))]),
    png(pixels(1)[0]),
    png(pixels(1)[0])[:-20],
    wav(sound(30)),
    wav(sound(30))[:-5],
    wav(sound(30), 4000),
    bytes(16),
    bytes(15),
    bytes(range(200)),
    pixels(2).tobytes(),
    bytes(1001),
]
NAMES = ["tiny-image", "tiny-image", "tiny-audio", "nothing", "tiny%2Dimage", "a%0Ab", "", "%C3%A9"]
VERSIONS = [
    "",
    "",
    "",
    "/versions/1",
    "/versions/2",
    "/versions/3",
    "/versions/%31",
    "/versions/",
    "/labels/stable",
]
VERBS = ["predict", "predict", "confidence", "classify", "", "predict/", "predict:predict", "PREDICT"]
PATHS = [
    "http://other/v1/models/tiny-image:predict",
    "https://other:1/v1/models/tiny-image:predict?top_k=1",
    "//other/v1/models/tiny-image:predict",
    "/v1//models/tiny-image:predict",
    "/v1/models/../models/tiny-image:predict",
    "/v1/models/tiny-image:predict#part",
    "/v1/models/tiny-image%3apredict",
    "/v1/models",
    "/v1/models/tiny-image",
    "/healthz",
    "/",
    "*",
    "http://other",
]
PARAMETERS = ["top_k", "top_k", "invert", "invert", "version", "topk", "top%5Fk", "TOP_K", "+top_k", ""]
ARGUMENTS = [
    *("1", "2", "3", "0", "-1", "+2", "%2B2", "1.0", "1.5", "1_0", "01", "", "%31", "%20 2", "1e1"),
    *("9" * 20, "true", "TRUE", "false", "on", "off", "yes", "t", "%EF%BC%91", "\xe9", "null"),
]
KINDS = [
    *("application/json", "application/json", "image/png", "image/jpeg", "audio/wav", "audio/x-wav"),
    *("text/plain", "application/octet-stream", "", "Application/JSON; charset=utf-8", "application/json;"),
    *("application/json, image/png", "json", "image/png\xe9"),
]
NUMBERS = [
    *("60000", " 60000 ", "+60000", "60_000", "0", "-1", "1e5", "", "\xb2", "0060000", "9" * 9, "9" * 10),
    *("1,4,4", "2,4,4", " 1 , 4,4", "1,1001", "4", "0,4,4", "x", "1,4,4,"),
]
IDS = ["mine", "a b", "\xe9", "a" * 128, "a" * 129, ""]
OTHER_HEADERS = [
    *("connection: keep-alive", "connection: close", "Connection: Close", "connection: upgrade"),
    *("content-encoding: gzip", "content-encoding:", "content-encoding: identity", "te: trailers"),
    *("expect: 100-continue", "expect: nothing", "accept: text/html", "accept-encoding: gzip", "cookie: a=b"),
    *("x-some: \xe9\xff", "content-type: image/png", "content-length: 5", "transfer-encoding: chunked"),
    *("host: other", "range: bytes=0-1"),
]


def form(*files: bytes) -> bytes:
    """A form of files, with the boundary x."""
    head = b'--x\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n'
    return b"".join(head + content + b"\r\n" for content in files) + b"--x--\r\n"


# Calls that are answered with 200: model, content type, body. Most requests are one of them with an oddity.
GOOD = [
    ("tiny-image", "application/json", instances(pixels(1))),
    ("tiny-image", "application/json", instances(pixels(9))),
    ("tiny-image", "application/json", instances([b64(png(pixels(1)[0])), pixels(1)[0].tolist()])),
    ("tiny-image", "image/png", png(pixels(1)[0])),
    ("tiny-image", "application/octet-stream", pixels(2).tobytes()),
    ("tiny-audio", "application/json", instances([sound(20).tolist(), sound(3).tolist()])),
    ("tiny-audio", "audio/wav", wav(sound(30))),
    ("tiny-image", "application/json", b'{"signature_name": "raw", ' + instances(pixels(2))[1:]),
    ("tiny-image", "application/json", instances(pixels(2)).replace(b"instances", b"inputs")),
    ("tiny-audio", "application/json", b'{"signature_name": "raw", "inputs": [[0.5, 0.25], [1]]}'),
    ("tiny-image", "multipart/form-data; boundary=x", form(png(pixels(1)[0]), png(pixels(1)[0]))),
]


def v2(name: str, datatype: Datatype, array: np.ndarray, **members: Any) -> tuple[bytes, int | None]:
    """Return a body of the Open Inference Protocol with binary data, and the length of its JSON."""
    content = array_to_bytes(datatype, array)
    item = {"name": name, "datatype": datatype, "shape": array.shape}
    item["parameters"] = {"binary_data_size": len(content)}
    text = orjson.dumps({"inputs": [item], **members})
    return text + content, len(text)


def v2_json(name: str, datatype: Datatype, array: np.ndarray, **members: Any) -> tuple[bytes, int | None]:
    item = {"name": name, "datatype": datatype, "shape": array.shape, "data": array.tolist()}
    return orjson.dumps({"inputs": [item], **members}), None


# Model, body, length of the JSON where bytes are behind it.
ALL_BINARY = {"parameters": {"binary_data_output": True}}
V2_GOOD = [
    ("tiny-image", *v2("pixels", "UINT8", pixels(1), **ALL_BINARY)),
    ("tiny-image", *v2("pixels", "UINT8", pixels(9), **ALL_BINARY, id="mine")),
    ("tiny-image", *v2("pixels", "UINT8", pixels(31), **ALL_BINARY)),
    ("tiny-image", *v2("pixels", "UINT8", pixels(2), outputs=[{"name": "logits"}])),
    ("tiny-image", *v2_json("pixels", "UINT8", pixels(3))),
    ("tiny-image", *v2_json("pixels", "UINT8", pixels(1), outputs=[{"name": "x"}])),
    ("tiny-image", pixels(1).tobytes(), 0),
    ("tiny-audio", *v2("samples", "FP32", sound(30)[None], **ALL_BINARY)),
    ("tiny-audio", *v2_json("samples", "FP32", sound(5)[None] * 2)),
]
V2_HEADERS = [
    *("x-request-id: mine", "x-timeout-ms: 60000", "accept: */*", "content-type: application/json"),
    *("content-type: application/octet-stream", "accept-encoding: gzip", "accept-encoding: deflate"),
    *("content-encoding: gzip", "accept-encoding: gzip, deflate", "content-encoding: chunked"),
]
V2_LENGTHS = ["0", "1", "-1", "x", "", " 5 ", "9999", "9" * 12]
GOOD_QUERIES = ["", "", "", "?top_k=1", "?top_k=2&invert=false", "?invert=off", "?"]
GOOD_HEADERS = [
    *("x-request-id: mine", "x-timeout-ms: 60000", "accept: */*", "connection: keep-alive", "cookie: a=b"),
]
ODDITIES = ["method", "path", "query", "kind", "body", "headers", "framing", "version"]


@st.composite
def odd_paths(draw: st.DrawFn) -> str:
    if draw(st.booleans()):
        return draw(st.sampled_from(PATHS))
    name, version, verb = (draw(st.sampled_from(each)) for each in (NAMES, VERSIONS, VERBS))
    return f"/v1/models/{name}{version}:{verb}"


@st.composite
def odd_queries(draw: st.DrawFn) -> str:
    names = draw(st.lists(st.sampled_from(PARAMETERS), min_size=1, max_size=3))
    parts = [name + draw(st.sampled_from(["", "="])) + draw(st.sampled_from(ARGUMENTS)) for name in names]
    return "?" + draw(st.sampled_from(["&", "&", "&&", ";"])).join(parts)


@st.composite
def odd_headers(draw: st.DrawFn) -> str:
    if draw(st.booleans()):
        return draw(st.sampled_from(OTHER_HEADERS))
    name = draw(st.sampled_from(["x-timeout-ms", "X-Timeout-MS", "x-tensor-shape", "X-Request-Id"]))
    return f"{name}: {draw(st.sampled_from(IDS if name == 'X-Request-Id' else NUMBERS))}"


@dataclass(frozen=True)
class Request:
    """One request: what its head says, its body, and where its bytes are cut."""

    method: str
    target: str
    version: str
    headers: Sequence[str]
    body: bytes
    cuts: Sequence[float]

    def parts(self) -> Sequence[bytes]:
        head = [f"{self.method} {self.target} HTTP/{self.version}", "host: octet", *self.headers, "", ""]
        whole = "\r\n".join(head).encode("latin-1") + self.body
        return pieces(whole, *sorted({int(cut * len(whole)) for cut in self.cuts} - {0}))


@st.composite
def requests(draw: st.DrawFn) -> Request:
    odd = draw(st.sets(st.sampled_from(ODDITIES), max_size=2))
    model, kind, body = draw(st.sampled_from(GOOD))
    path = f"/v1/models/{model}{draw(st.sampled_from(VERSIONS[1:4]))}:{draw(st.sampled_from(VERBS[1:3]))}"
    if "path" in odd:
        path = draw(odd_paths())
    query = draw(odd_queries() if "query" in odd else st.sampled_from(GOOD_QUERIES))
    if "body" in odd:
        body = draw(st.sampled_from(BODIES) | st.binary(max_size=40))
    kinds_of_headers = odd_headers() if "headers" in odd else st.sampled_from(GOOD_HEADERS)
    headers = draw(st.lists(kinds_of_headers, max_size=3, unique=True))
    if kind := draw(st.sampled_from(KINDS)) if "kind" in odd else kind:
        headers.append(f"content-type: {kind}")
    framing = "length"
    if "framing" in odd:
        framing = draw(st.sampled_from(["zeros", "many zeros", "chunked", "none"]))
    if framing == "chunked":
        headers.append("transfer-encoding: chunked")
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
    elif framing == "none":
        body = b""
    else:
        zeros = "0" * {"zeros": 3, "many zeros": 5000}.get(framing, 0)
        headers.append(f"content-length: {zeros}{len(body)}")
    return Request(
        draw(st.sampled_from(["GET", "PUT", "DELETE", "OPTIONS"])) if "method" in odd else "POST",
        path + query,
        "1.0" if "version" in odd else "1.1",
        draw(st.permutations(headers)),
        body,
        draw(st.lists(st.floats(0, 0.999), max_size=3)),
    )


@st.composite
def v2_requests(draw: st.DrawFn) -> Request:
    """A call of the Open Inference Protocol, with its binary extension or without, and maybe an oddity."""
    odd = draw(st.sets(st.sampled_from(["path", "body", "length", "headers"]), max_size=2))
    model, body, header_length = draw(st.sampled_from(V2_GOOD))
    version = draw(st.sampled_from(VERSIONS[1:4]))
    if "path" in odd:
        model, version = draw(st.sampled_from(NAMES)), draw(st.sampled_from(VERSIONS))
    if "body" in odd:
        body = draw(st.sampled_from([body[:-1], body + b"x", b"", b"{", b"[]"]) | st.binary(max_size=40))
    kinds_of_headers = odd_headers() if "headers" in odd else st.sampled_from(V2_HEADERS)
    headers = draw(st.lists(kinds_of_headers, max_size=3, unique=True))
    length = draw(st.sampled_from(V2_LENGTHS)) if "length" in odd else str(header_length or "")
    if length:
        headers.append(f"{HEADER_LENGTH}: {length}")
    if "content-encoding: gzip" in headers and draw(st.booleans()):
        body = gzip.compress(body)
    headers.append(f"content-length: {len(body)}")
    target = f"/v2/models/{model}{version}/infer{draw(st.sampled_from(['', '', '?top_k=0']))}"
    cuts = draw(st.lists(st.floats(0, 0.999), max_size=3))
    return Request("POST", target, "1.1", draw(st.permutations(headers)), body, cuts)


class Recorder:
    """Keeps what would be logged."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, ...]] = []

    def write(self, records: Sequence[Record]) -> None:
        for each in records:
            assert each.seconds >= 0
            identifier = re.sub("[0-9a-f]{32}", "new", each.request_id)
            labels = (each.model, each.version, each.route)
            self.lines.append((identifier, each.method, each.path, str(each.status), *labels))


class Service:
    """A service on a socket, whose answers, counts and log lines are compared."""

    def __init__(self, repository: Path, stack: AsyncExitStack, *, lane: bool) -> None:
        limits: Any = {"max_rows": 30, "max_body_bytes": 1000, "threads": 1}
        chosen = Settings(models=repository, **limits)
        self.metrics = Metrics()
        self._app = create_app(chosen, load_registry(chosen, self.metrics), self.metrics)
        self.log = self._app.state.ledger._log = Recorder()
        self._stack = stack
        self._config = uvicorn_config(self._app)
        if not lane:
            self._config.http = HttpToolsProtocol
        self._path = ""

    async def start(self) -> None:
        self._path = await self._stack.enter_async_context(serving(self._app, self._config))

    async def transcribe(self, asked: Sequence[Request]) -> list[Any]:
        """Send requests one after the other on one connection; return what was answered to each."""
        reader, writer = await asyncio.open_unix_connection(self._path)
        wire = Wire(reader, writer)
        answers: list[Any] = []
        try:
            for each in asked:
                for part in each.parts():
                    if writer.transport.is_closing():  # refused before it was whole
                        break
                    wire.send(part)
                    await asyncio.sleep(0.0005)
                answer = await wire.read()
                answer.headers.pop("date")
                for text in (answer.headers.get("x-request-id", ""),):
                    if re.fullmatch("[0-9a-f]{32}", text):
                        answer.headers["x-request-id"] = "new"
                        answer.body = answer.body.replace(text.encode(), b"new")
                        answer.headers.pop("content-length")
                answer.body, timed = re.subn(rb'"timing_us":\{.*?\}', b'"timing_us":{}', answer.body)
                answer.body = re.sub(rb'"prediction_id":"[\w-]+"', b'"prediction_id":""', answer.body)
                if timed:
                    answer.headers.pop("content-length", None)
                answers.append((answer.status, answer.headers, answer.body, answer.informational))
                if answer.headers.get("connection") == "close":
                    break
            return answers
        except asyncio.IncompleteReadError as closed:
            return [*answers, closed.partial]
        except ConnectionError:
            return [*answers, b""]
        finally:
            writer.transport.abort()

    def counted(self) -> dict[Any, float]:
        """All that is counted, without times and what is of the process."""
        return {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(self.metrics.render().decode())
            for sample in family.samples
            if sample.name.startswith("octet_")
            and not sample.name.endswith(("_seconds_sum", "_seconds_bucket"))
            and sample.name not in ("octet_connections", "octet_in_flight", "octet_calibration_age_seconds")
        }


@pytest.fixture(scope="module")
def both(repository: Path) -> Iterator[SimpleNamespace]:
    """The lane and the routes alone, on one event loop that outlives the examples."""
    loop = uvloop.new_event_loop()
    stack = AsyncExitStack()

    async def start() -> list[Service]:
        services = [Service(repository, stack, lane=lane) for lane in (True, False)]
        for each in services:
            await each.start()
        return services

    services = loop.run_until_complete(start())
    try:
        yield SimpleNamespace(services=services, loop=loop)
    finally:
        loop.run_until_complete(stack.aclose())
        loop.close()


def plain(target: str = "/v1/models/tiny-image:predict", *headers: str, body: bytes = BODIES[12]) -> Request:
    framing = ("content-type: application/json", f"content-length: {len(body)}")
    return Request("POST", target, "1.1", (*headers, *framing), body, ())


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
@given(asked=st.lists(requests() | v2_requests(), min_size=1, max_size=3))
@example([plain(), plain(), plain("/v1/models/tiny-image:confidence?top_k=2")])
@example(
    [plain("/v1/models/tiny-image:predict?top_k=1&top_k=2"), plain("/v1/models/tiny-image:predict?invert")]
)
@example([plain(body=BODIES[14])])
@example([plain("/v1/models/tiny-image:predict", "x-timeout-ms:  60000 ", "x-request-id: mine")] * 2)
def test_the_lane_and_the_routes_cannot_be_told_apart(both: SimpleNamespace, asked: list[Request]) -> None:
    async def compare() -> None:
        lane, routes = both.services
        found, expected = await asyncio.gather(lane.transcribe(asked), routes.transcribe(asked))
        assert found == expected
        for each in (lane, routes):
            async with asyncio.timeout(20):
                while each.metrics.in_flight._value.get() or each.metrics.gather():
                    await asyncio.sleep(0.001)
            each.metrics.gather()
        assert lane.log.lines == routes.log.lines
        assert lane.counted() == routes.counted()

    both.loop.run_until_complete(compare())
