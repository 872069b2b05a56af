"""Bodies to send, and what the right answers are."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np
import soundfile
from PIL import Image

from bundle.confidence import softmax
from tests import tiny

IMAGE = "/v1/models/tiny-image:predict"
AUDIO = "/v1/models/tiny-audio:predict"
JSON = {"content-type": "application/json"}
PNG = {"content-type": "image/png"}
WAV = {"content-type": "audio/wav"}
OCTETS = {"content-type": "application/octet-stream"}


def pixels(n: int = 1, seed: int = 7) -> np.ndarray:
    """(n, 4, 4) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (n, 4, 4), dtype=np.uint8)


def sound(length: int = 50, seed: int = 7) -> np.ndarray:
    """(length,) float32 in -1..1."""
    return np.random.default_rng(seed).uniform(-1, 1, length).astype(np.float32)


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def wav(samples: np.ndarray, rate_hz: int = 8000) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate_hz, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


def instances(values: Any) -> bytes:
    return json.dumps({"instances": values.tolist() if isinstance(values, np.ndarray) else values}).encode()


def b64(media: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(media).decode()}


def assert_image_answers(answer: httpx.Response, images: np.ndarray) -> None:
    """The answer of `:predict` is the oracle's for each image."""
    assert answer.status_code == 200, answer.text
    assert_predictions(answer.json()["predictions"], tiny.image_logits(images))


def assert_audio_answers(answer: httpx.Response, sounds: Sequence[np.ndarray]) -> None:
    assert answer.status_code == 200, answer.text
    assert_predictions(
        answer.json()["predictions"], np.stack([tiny.audio_logits(samples) for samples in sounds])
    )


def assert_predictions(predictions: list[dict[str, Any]], logits: np.ndarray) -> None:
    probabilities = softmax(logits, tiny.TEMPERATURE)
    assert len(predictions) == len(logits)
    for prediction, row in zip(predictions, probabilities, strict=True):
        best = int(row.argmax())
        assert (prediction["label"], prediction["index"]) == (tiny.LABELS[best], best)
        assert abs(prediction["probability"] - row[best]) <= 1e-5
        assert [top["index"] for top in prediction["top"]] == np.argsort(-row)[
            : len(prediction["top"])
        ].tolist()
        for top in prediction["top"]:
            assert top["label"] == tiny.LABELS[top["index"]]
            assert abs(top["probability"] - row[top["index"]]) <= 1e-5


def assert_problem(answer: httpx.Response, status: int, words: str = "") -> dict[str, Any]:
    """The answer is a problem of that status whose detail holds these words; return it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    content = answer.json()
    assert set(content) == {"type", "title", "status", "detail", "error", "request_id"}
    assert content["status"] == status
    assert content["error"] == content["detail"]
    assert words in content["detail"]
    assert content["request_id"] == answer.headers["x-request-id"]
    return dict(content)


async def assert_still_answers(client: httpx.AsyncClient) -> None:
    """Both models answer a good request."""
    images, samples = pixels(2), sound()
    assert_image_answers(await client.post(IMAGE, content=instances(images), headers=JSON), images)
    assert_audio_answers(await client.post(AUDIO, content=wav(samples), headers=WAV), [samples])
