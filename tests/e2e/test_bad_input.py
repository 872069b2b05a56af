"""Bad input against a live service with the committed models: a clear problem each time, and it lives on."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator

import httpx
import pytest
from PIL import Image

from tests.conftest import ROOT, LiveServer, running_service

PNG = (ROOT / "examples" / "seven.png").read_bytes()
WAV = (ROOT / "examples" / "seven.wav").read_bytes()
CNN, LSTM = "/v1/models/mnist-cnn:predict", "/v1/models/spoken-digits-lstm:predict"
IMAGE, SOUND = "image/png", "audio/wav"
JSON, OCTETS = "application/json", "application/octet-stream"


def flat_png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def pixels(value: object) -> bytes:
    return json.dumps({"instances": [[[value] * 28] * 28]}).encode()


BAD = [
    ("/v1/models/nobody:predict", IMAGE, PNG, 404, "there is no model 'nobody'"),
    ("/v1/models/mnist-cnn/versions/9:predict", IMAGE, PNG, 404, "has no version '9'"),
    ("/v1/models/mnist-cnn/versions/x:predict", IMAGE, PNG, 404, "has no version 'x'"),
    (CNN, JSON, b'{"instances": [', 400, "not valid JSON"),
    (CNN, JSON, b'{"instances": ' + b"[" * 5000 + b"]" * 5000 + b"}", 400, "not valid JSON"),
    (CNN, JSON, b'{"instances": []}', 400, "at least one instance"),
    (CNN, JSON, b'{"inputs": [1]}', 400, "expected [28, 28]"),
    (CNN, JSON, b'{"instances": [[1, 2]]}', 400, "expected [28, 28]"),
    (CNN, JSON, pixels("7"), 400, "got text"),
    (CNN, JSON, pixels(True), 400, "got true or false"),
    (CNN, JSON, pixels(0.5), 400, "got fractions"),
    (CNN, JSON, pixels(256), 400, "0 to 255 are allowed"),
    (CNN, JSON, pixels(float("nan")), 400, "not valid JSON"),
    (LSTM, JSON, b'{"instances": [[0.1, 1.5]]}', 400, "-1 to 1 are allowed"),
    (LSTM, JSON, b'{"instances": [[1e999]]}', 400, "not valid JSON"),
    (CNN, JSON, b'{"instances": [{"b64": "?"}]}', 400, "not valid base64"),
    (CNN, IMAGE, b"I am a text", 400, "not a PNG or JPEG"),
    (CNN, IMAGE, PNG[:100], 400, "damaged"),
    (CNN, IMAGE, flat_png(20_000, 20_000), 400, "pixels; at most 50000000"),
    (LSTM, SOUND, WAV[:10_000], 400, "truncated"),
    (LSTM, SOUND, b"I am a text", 400, "not a WAV file"),
    (LSTM, OCTETS, bytes(8), 400, "its shape must be given"),
    (CNN, OCTETS, bytes(783), 400, "no whole number of rows of 784 bytes"),
    (CNN, OCTETS, bytes(784 * 1025), 400, "1025 rows; at most 1024"),
    (CNN + "?top_k=0", IMAGE, PNG, 400, "'top_k' is wrong"),
    (CNN + "?topk=1", IMAGE, PNG, 400, "no query parameter 'topk'"),
    (LSTM + "?invert=true", SOUND, WAV, 400, "models that take images"),
    (CNN, SOUND, WAV, 415, "does not take the content type 'audio/wav'"),
    (CNN, "", PNG, 415, "without a content type"),
    (CNN, IMAGE, bytes(17_000_000), 413, "larger than the allowed 16777216 bytes"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with running_service() as server:
        yield server


@pytest.mark.parametrize(("path", "media_type", "body", "status", "words"), BAD)
def test_bad_input_gets_a_clear_problem_and_the_next_caller_an_answer(
    server: LiveServer, path: str, media_type: str, body: bytes, status: int, words: str
) -> None:
    headers = {"content-type": media_type} if media_type else {}
    answer = httpx.post(server.url + path, content=body, headers=headers, timeout=30)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert words in answer.json()["error"]
    good = json.dumps({"instances": [{"b64": base64.b64encode(PNG).decode()}]})
    answer = httpx.post(server.url + CNN, content=good, headers={"content-type": JSON}, timeout=30)
    assert answer.json()["predictions"][0]["label"] == "7"


def test_no_bad_input_left_a_trace_in_the_log(server: LiveServer) -> None:
    assert "Traceback" not in "".join(server.log)
