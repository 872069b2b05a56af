"""The real test sets over HTTP, live: accuracy, the predictor's own answers, exact counts."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Sequence

import httpx
import numpy as np
import pytest
import soundfile
import soxr
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from bundle.confidence import softmax
from bundle.predictor import load_predictor
from tests.committed import MNIST_CNN, SPOKEN_DIGITS_LSTM, VERSION
from tests.conftest import LiveServer
from training.data.splits import Examples

pytestmark = [pytest.mark.realdata, pytest.mark.anyio]

CONNECTIONS = 8


async def post_all(
    url: str, path: str, media_type: str, bodies: Sequence[bytes]
) -> tuple[np.ndarray, np.ndarray]:
    """Send every body by 8 connections; return labels (n,) and probabilities (n, 10)."""
    labels = np.zeros(len(bodies), np.int64)
    probabilities = np.zeros((len(bodies), 10))
    todo = iter(enumerate(bodies))

    async def worker(client: httpx.AsyncClient) -> None:
        for i, body in todo:
            answer = await client.post(path, content=body, headers={"content-type": media_type})
            assert answer.status_code == 200, answer.text
            prediction = answer.json()["predictions"][0]
            labels[i] = prediction["index"]
            for entry in prediction["top"]:
                probabilities[i, entry["index"]] = entry["probability"]

    limits = httpx.Limits(max_connections=CONNECTIONS)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=30) as client:
        await asyncio.gather(*(worker(client) for _ in range(CONNECTIONS)))
    return labels, probabilities


def counted(url: str, name: str, **labels: str) -> float:
    families = text_string_to_metric_families(httpx.get(f"{url}/metrics").text)
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


async def test_mnist_over_http(mnist_test: Examples, start_service: Callable[..., LiveServer]) -> None:
    server = start_service()
    bodies = [png(pixels) for pixels in mnist_test.items]
    path = f"/v1/models/mnist-cnn/versions/{VERSION}:predict?top_k=10"
    labels, probabilities = await post_all(server.url, path, "image/png", bodies)
    assert (labels == mnist_test.labels).mean() >= 0.995

    predictor = load_predictor(MNIST_CNN)
    logits = predictor.run_all(predictor.rows(mnist_test.items)).logits
    assert (labels == logits.argmax(axis=1)).all()
    assert np.abs(probabilities - softmax(logits, predictor.temperature)).max() <= 1e-5

    asked = {"model": "mnist-cnn", "version": VERSION}
    assert counted(server.url, "octet_requests_total", status="200", **asked) == len(bodies)
    assert counted(server.url, "octet_requests_total", model="mnist-cnn") == len(bodies)
    assert counted(server.url, "octet_rows_total", **asked) == len(bodies)
    assert counted(server.url, "octet_batch_rows_sum", **asked) == len(bodies)
    assert counted(server.url, "octet_queue_depth", **asked) == 0


async def test_spoken_digits_over_http(
    fsdd_test: Examples, fsdd_files: list[bytes], start_service: Callable[..., LiveServer]
) -> None:
    server = start_service()
    path = "/v1/models/spoken-digits-lstm:predict?top_k=10"
    labels, _ = await post_all(server.url, path, "audio/wav", fsdd_files)
    assert (labels == fsdd_test.labels).mean() >= 0.97

    predictor = load_predictor(SPOKEN_DIGITS_LSTM)
    logits = predictor.run_all(predictor.rows(fsdd_test.items)).logits
    assert (labels == logits.argmax(axis=1)).all()

    for rate_hz in (16_000, 44_100, 48_000):
        bodies = [resampled(sound, rate_hz) for sound in fsdd_test.items]
        again, _ = await post_all(server.url, path, "audio/wav", bodies)
        assert (again == labels).mean() >= 0.99, rate_hz
    asked = {"model": "spoken-digits-lstm", "version": VERSION, "status": "200"}
    assert counted(server.url, "octet_requests_total", **asked) == 4 * len(fsdd_files)


def resampled(sound: np.ndarray, rate_hz: int) -> bytes:
    buffer = io.BytesIO()
    louder = soxr.resample(sound, 8_000, rate_hz, quality="VHQ").clip(-1, 1)
    soundfile.write(buffer, louder, rate_hz, format="WAV", subtype="PCM_16")
    return buffer.getvalue()
