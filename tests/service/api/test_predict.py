import asyncio
import io
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests import tiny
from tests.conftest import running_app
from tests.service.calls import (
    AUDIO,
    IMAGE,
    JSON,
    OCTETS,
    PNG,
    WAV,
    assert_audio_answers,
    assert_image_answers,
    assert_problem,
    assert_still_answers,
    b64,
    instances,
    pixels,
    png,
    sound,
    wav,
)
from tests.service.fakes import gated_app, until
from tests.service.wire import request, wired

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("n", [1, 3, 8, 9, 30])
async def test_json_images_are_answered_in_order_however_many(client: httpx.AsyncClient, n: int) -> None:
    images = pixels(n)
    assert_image_answers(await client.post(IMAGE, content=instances(images), headers=JSON), images)


async def test_images_are_answered_as_they_are_as_b64_and_as_tensors(client: httpx.AsyncClient) -> None:
    images = pixels(3)
    for one in images:
        assert_image_answers(await client.post(IMAGE, content=png(one), headers=PNG), one[None])
    body = instances([b64(png(one)) for one in images])
    assert_image_answers(await client.post(IMAGE, content=body, headers=JSON), images)
    shaped = {**OCTETS, "x-tensor-shape": "3,4,4"}
    for headers in (OCTETS, shaped):
        assert_image_answers(await client.post(IMAGE, content=images.tobytes(), headers=headers), images)


async def test_a_large_body_is_answered_as_a_small_one(client: httpx.AsyncClient) -> None:
    images = pixels(1000)
    body = instances(images)
    assert len(body) > 64 * 1024
    assert_image_answers(await client.post(IMAGE, content=body, headers=JSON), images)


async def test_sounds_are_answered_as_they_are_as_b64_as_numbers_and_as_tensors(
    client: httpx.AsyncClient,
) -> None:
    sounds = [sound(length, length) for length in (10, 800, 33)]
    for one in sounds:
        assert_audio_answers(await client.post(AUDIO, content=wav(one), headers=WAV), [one])
    for body in (
        instances([b64(wav(one)) for one in sounds]),
        instances([one.tolist() for one in sounds]),
    ):
        assert_audio_answers(await client.post(AUDIO, content=body, headers=JSON), sounds)
    equal = [sound(64, seed) for seed in range(3)]
    headers = {**OCTETS, "x-tensor-shape": "3, 64"}
    answer = await client.post(AUDIO, content=np.stack(equal).tobytes(), headers=headers)
    assert_audio_answers(answer, equal)


async def test_without_a_version_the_latest_answers(client: httpx.AsyncClient) -> None:
    for path, version in (("", "2"), ("/versions/1", "1"), ("/versions/2", "2")):
        for verb in ("predict", "confidence"):
            url = f"/v1/models/tiny-image{path}:{verb}"
            content = (await client.post(url, content=png(pixels(1)[0]), headers=PNG)).json()
            assert (content["model"], content["version"]) == ("tiny-image", version)


async def test_top_k_says_how_many_labels_are_listed(client: httpx.AsyncClient) -> None:
    images = pixels(2)
    for top_k, expected in ((1, 1), (2, 2), (3, 3), (100, 3)):
        url = f"{IMAGE}?top_k={top_k}"
        answer = await client.post(url, content=instances(images), headers=JSON)
        assert_image_answers(answer, images)
        assert [len(each["top"]) for each in answer.json()["predictions"]] == [expected] * 2


async def test_invert_swaps_dark_and_light(client: httpx.AsyncClient) -> None:
    image = pixels(1)
    for url, expected in ((f"{IMAGE}?invert=true", 255 - image), (f"{IMAGE}?invert=false", image)):
        assert_image_answers(await client.post(url, content=png(image[0]), headers=PNG), expected)


async def test_confidence_takes_the_same_bodies(client: httpx.AsyncClient) -> None:
    images = pixels(10)
    url = "/v1/models/tiny-image:confidence?top_k=1"
    content = (await client.post(url, content=instances(images), headers=JSON)).json()
    logits = tiny.image_logits(images)
    assert content["schema"] == "confidence/1"
    assert [result["index"] for result in content["results"]] == logits.argmax(axis=1).tolist()
    assert content["calibration"]["status"] == "partial"


async def test_an_uncalibrated_bundle_claims_no_confidence(tmp_path: Path, lane: bool) -> None:
    tiny.make_image_bundle(tmp_path, calibrated=False)
    async with running_app(tmp_path, lane=lane) as client:
        url = "/v1/models/tiny-image:confidence"
        content = (await client.post(url, content=png(pixels(1)[0]), headers=PNG)).json()
    assert content["calibration"]["status"] == "missing"
    assert content["results"][0]["confidence"] is None


async def test_media_types_are_read_without_case_and_parameters(client: httpx.AsyncClient) -> None:
    images = pixels(1)
    headers = {"content-type": "Application/JSON ; charset=utf-8"}
    assert_image_answers(await client.post(IMAGE, content=instances(images), headers=headers), images)


def bmp() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels(1)[0]).save(buffer, "BMP")
    return buffer.getvalue()


GOOD = instances(pixels(1))
GOOD_PNG = png(pixels(1)[0])
LARGE_PNG = png(np.random.default_rng(0).integers(0, 256, (30, 30), dtype=np.uint8))

BAD_TIMES = ("0", "-1", "1.5", "", "x", "9" * 10)

# url, body, headers, words of the detail
BAD_REQUESTS: list[tuple[str, bytes, dict[str, str], str]] = [
    (IMAGE, b'{"instances": [', JSON, "not valid JSON"),
    (IMAGE, b"[" * 5000, JSON, "not valid JSON"),
    (IMAGE, b'{"instances": [[NaN]]}', JSON, "not valid JSON"),
    (IMAGE, b'{"instances": [[1e999]]}', JSON, "not valid JSON"),
    (IMAGE, b'{"instances": [[[true, 1], [2, 3]]]}', JSON, "true or false"),
    (IMAGE, b'{"instances": [[[1, 2], [3]]]}', JSON, "no regular shape"),
    (IMAGE, b'{"instances": []}', JSON, "at least one instance"),
    (IMAGE, b'{"instances": 5}', JSON, "must be a list"),
    (IMAGE, b'{"instances": [1], "more": 1}', JSON, 'no other but "signature_name"'),
    (IMAGE, b'{"instances": [{"b64": "?"}]}', JSON, "base64"),
    (IMAGE, instances(pixels(1).astype(int) + 300), JSON, "0 to 255 are allowed"),
    (IMAGE, instances(pixels(31)), JSON, "31 rows; at most 30"),
    (IMAGE, b"I am a text", PNG, "not a PNG or JPEG"),
    (IMAGE, bmp(), PNG, "not a PNG or JPEG"),
    (IMAGE, b"", PNG, "not a PNG or JPEG"),
    (IMAGE, LARGE_PNG[:-300], PNG, "damaged"),
    (IMAGE, png(np.zeros((50, 50), np.uint8)), PNG, "at most 2000 are allowed"),
    (IMAGE, instances([b64(png(np.zeros((50, 50), np.uint8)))]), JSON, "at most 2000 are allowed"),
    (IMAGE, bytes(15), OCTETS, "no whole number of rows"),
    (IMAGE, bytes(16), {**OCTETS, "x-tensor-shape": "2,4,4"}, "do not fit"),
    (IMAGE, bytes(16), {**OCTETS, "x-tensor-shape": "four"}, "X-Tensor-Shape must be"),
    (IMAGE, bytes(16), {**OCTETS, "x-tensor-shape": ""}, "X-Tensor-Shape must be"),
    (IMAGE + "?top_k=0", GOOD, JSON, "query parameter 'top_k' is wrong"),
    (IMAGE + "?top_k=many", GOOD, JSON, "query parameter 'top_k' is wrong"),
    (IMAGE + "?top_k=1.5", GOOD, JSON, "query parameter 'top_k' is wrong"),
    (IMAGE + "?invert=perhaps", GOOD_PNG, PNG, "query parameter 'invert' is wrong"),
    (IMAGE + "?topk=1", GOOD, JSON, "there is no query parameter 'topk'"),
    (IMAGE + "?version=1", GOOD, JSON, "there is no query parameter 'version'"),
    (IMAGE + "?invert=true", GOOD, JSON, "invert is for images"),
    (IMAGE + "?invert=true", bytes(16), OCTETS, "invert is for images"),
    (AUDIO + "?invert=true", wav(sound()), WAV, "invert is for models that take images"),
    *((IMAGE, GOOD, {**JSON, "x-timeout-ms": bad}, "X-Timeout-Ms must be") for bad in BAD_TIMES),
    (AUDIO, b"I am a text", WAV, "not a WAV file"),
    (AUDIO, wav(sound())[:-10], WAV, "truncated"),
    (AUDIO, wav(sound())[:30], WAV, "truncated"),
    (AUDIO, wav(sound(8001)), WAV, "at most 1 s are allowed"),
    (AUDIO, wav(sound(), 4000), WAV, "4000 samples a second"),
    (AUDIO, instances(np.zeros((1, 8001))), JSON, "longer than the allowed 1 s"),
    (AUDIO, np.array([[2.0]], "<f4").tobytes(), {**OCTETS, "x-tensor-shape": "1,1"}, "-1 to 1 are allowed"),
    (AUDIO, np.array([[np.nan]], "<f4").tobytes(), {**OCTETS, "x-tensor-shape": "1,1"}, "not finite"),
    (AUDIO, bytes(8), OCTETS, "its shape must be given"),
]  # fmt: skip


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module", params=[True, False], ids=["lane", "routes"])
async def strict(repository: Path, request: pytest.FixtureRequest) -> AsyncIterator[httpx.AsyncClient]:
    """One application with small limits for every bad request, so that each could harm the next."""
    limits: dict[str, Any] = {"max_pixels": 2000, "max_audio_s": 1, "max_rows": 30, "max_body_bytes": 100_000}
    async with running_app(repository, lane=request.param, **limits) as client:
        yield client


@pytest.mark.parametrize(
    ("url", "body", "headers", "words"),
    BAD_REQUESTS,
    ids=[f"{i}-{bad[3].replace(' ', '-')}" for i, bad in enumerate(BAD_REQUESTS)],
)
async def test_a_bad_request_is_a_400_problem_and_the_next_good_one_is_answered(
    strict: httpx.AsyncClient, url: str, body: bytes, headers: dict[str, str], words: str
) -> None:
    for verb in ("predict", "confidence"):
        answer = await strict.post(url.replace(":predict", f":{verb}"), content=body, headers=headers)
        assert_problem(answer, 400, words)
    await assert_still_answers(strict)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("/v1/models/nothing:predict", "no model 'nothing'"),
        ("/v1/models/nothing/versions/1:predict", "no model 'nothing'"),
        ("/v1/models/tiny-image/versions/3:predict", "no version '3'"),
        ("/v1/models/tiny-image/versions/abc:predict", "no version 'abc'"),
        ("/v1/models/tiny-image/versions/01:predict", "no version '01'"),
        ("/v1/models/tiny-image:classify", "there is nothing at"),
        ("/v1/models/tiny-image:predict/", "there is nothing at"),
        ("/v1/models/:predict", "there is nothing at"),
        ("/v1/models/a:b:predict", "there is nothing at"),
    ],
)
async def test_what_is_not_served_is_a_404_problem(strict: httpx.AsyncClient, url: str, words: str) -> None:
    assert_problem(await strict.post(url, content=GOOD, headers=JSON), 404, words)
    await assert_still_answers(strict)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_another_method_is_a_405_problem(strict: httpx.AsyncClient, method: str) -> None:
    answer = await strict.request(method, IMAGE)
    assert_problem(answer, 405, f"{method} is not allowed at {IMAGE}")
    assert answer.headers["allow"] == "POST"
    await assert_still_answers(strict)


@pytest.mark.parametrize(
    ("url", "headers", "words"),
    [
        (IMAGE, {}, "a body without a content type"),
        (IMAGE, {"content-type": "text/plain"}, "'text/plain'; it takes application/json, image/png"),
        (IMAGE, {"content-type": "multipart/mixed; boundary=x"}, "'multipart/mixed'"),
        (AUDIO, PNG, "tiny-audio does not take the content type 'image/png'"),
        (IMAGE, WAV, "tiny-image does not take the content type 'audio/wav'"),
        (IMAGE, {**JSON, "content-encoding": "br"}, "content encoding 'br' is not supported"),
    ],
)
async def test_a_body_of_another_type_is_a_415_problem(
    strict: httpx.AsyncClient, url: str, headers: dict[str, str], words: str
) -> None:
    assert_problem(await strict.post(url, content=GOOD, headers=headers), 415, words)
    await assert_still_answers(strict)


async def test_a_body_over_the_limit_is_a_413_problem_declared_or_not(strict: httpx.AsyncClient) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(101):
            yield bytes(1000)

    for body in (bytes(101_000), parts()):
        answer = await strict.post(IMAGE, content=body, headers=OCTETS)
        assert_problem(answer, 413, "larger than the allowed 100000 bytes")
        assert answer.headers["connection"] == "close"
    await assert_still_answers(strict)


async def test_a_body_that_does_not_come_is_a_408_problem(repository: Path) -> None:
    async def stalls() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    async with running_app(repository, lane=False, body_timeout_s=0.05) as client:
        answer = await client.post(IMAGE, content=stalls(), headers=JSON)
        assert_problem(answer, 408, "did not arrive within 0.05 s")
        assert answer.headers["connection"] == "close"
        await assert_still_answers(client)


async def test_a_full_queue_is_a_429_problem_with_the_time_to_retry(repository: Path, lane: bool) -> None:
    async with gated_app(repository, lane=lane, max_queue_size=2) as (client, predictor):
        images = [pixels(1, seed) for seed in range(3)]
        first = asyncio.ensure_future(client.post(IMAGE, content=instances(images[0]), headers=JSON))
        await until(predictor.running.is_set)
        waiting = [
            asyncio.ensure_future(client.post(IMAGE, content=instances(image), headers=JSON))
            for image in images[1:]
        ]
        depth = client.app.state.registry.get("tiny-image").batcher._queue_depth  # type: ignore[attr-defined]
        await until(lambda: depth._value.get() == 2)
        refused = await client.post(IMAGE, content=GOOD, headers=JSON)
        assert_problem(refused, 429, "2 rows are waiting")
        assert refused.headers["retry-after"] == "1"
        predictor.gate.set()
        for answer, image in zip(await asyncio.gather(first, *waiting), images, strict=True):
            assert_image_answers(answer, image)
        assert_image_answers(await client.post(IMAGE, content=GOOD, headers=JSON), pixels(1))


@pytest.mark.parametrize(
    ("deadline_ms", "headers"),
    [(30, {}), (30, {"x-timeout-ms": "999999999"}), (10_000, {"x-timeout-ms": "30"})],
)
async def test_an_answer_that_is_late_is_a_504_problem(
    repository: Path, lane: bool, deadline_ms: int, headers: dict[str, str]
) -> None:
    async with gated_app(repository, lane=lane, deadline_ms=deadline_ms) as (client, predictor):
        answer = await client.post(IMAGE, content=GOOD, headers={**JSON, **headers})
        assert_problem(answer, 504, "not ready within 30 ms")
        predictor.gate.set()
    async with gated_app(repository, lane=lane) as (client, predictor):
        predictor.gate.set()
        answer = await client.post(IMAGE, content=GOOD, headers={**JSON, "x-timeout-ms": "60000"})
        assert_image_answers(answer, pixels(1))


async def test_a_caller_that_goes_away_is_counted_as_499_and_harms_no_neighbour(
    repository: Path, lane: bool
) -> None:
    async with gated_app(repository, lane=lane) as (client, predictor):
        app: Any = client.app  # type: ignore[attr-defined]
        first = asyncio.ensure_future(client.post(IMAGE, content=GOOD, headers=JSON))
        await until(predictor.running.is_set)
        if lane:
            async with wired(client) as wire:
                await wire.say(request(GOOD))
        else:
            sent = await leave_after_the_body(app)
            assert sent[0]["status"] == 499
        images = pixels(4, 3)
        neighbour = asyncio.ensure_future(client.post(IMAGE, content=instances(images), headers=JSON))
        predictor.gate.set()
        assert_image_answers(await first, pixels(1))
        assert_image_answers(await neighbour, images)
        text = (await client.get("/metrics")).text
    assert 'route="/v1/models/{name}:predict",status="499",version="1"} 1.0' in text
    assert 'octet_queue_depth{model="tiny-image",version="1"} 0.0' in text
    assert 'octet_rows_total{model="tiny-image",version="1"} 5.0' in text


async def leave_after_the_body(app: Any) -> list[Any]:
    """Send a whole request, and close the connection at once; return what is sent to nobody."""
    messages = itertools.chain(
        [{"type": "http.request", "body": GOOD, "more_body": False}],
        itertools.repeat({"type": "http.disconnect"}),
    )
    sent: list[Any] = []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": IMAGE,
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }
    await app(scope, receive, send)
    return sent
