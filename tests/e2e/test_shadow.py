"""The shadow in live services under load: fp32 takes over, nothing is lost, counts add up over workers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests import tiny
from tests.conftest import LiveServer
from tests.service.calls import IMAGE, JSON, instances, pixels
from tests.service.live import LIMIT_S, eventually, log_text, samples

SHIFT = 3.0
CALLERS = 4
PATIENCE_S = 150
MODEL = ("tiny-image", "1")


def share_of_time(url: str, precision: str) -> float:
    """How many of some new connections are answered by a process that serves this graph."""
    found = [httpx.get(f"{url}/v1/models/tiny-image", timeout=LIMIT_S).json() for _ in range(12)]
    return sum(each["precision"] == precision for each in found) / len(found)


@pytest.mark.anyio
@pytest.mark.parametrize("workers", [1, 2])
async def test_fp32_takes_over_under_load_and_nothing_is_lost(
    start_service: Callable[..., LiveServer], tmp_path: Path, workers: int
) -> None:
    tiny.make_image_bundle(tmp_path, int8_shift=SHIFT)
    flags = ["--models", str(tmp_path), "--threads", "1", "--workers", str(workers)]
    shadow = ["--shadow-share", "1", "--shadow-rows-per-s", "100000", "--shadow-min-agreement", "0.95"]
    server = start_service(*flags, *shadow)
    images = pixels(16)
    body, over = instances(images), asyncio.Event()
    int8 = tiny.image_logits(images) + np.array([SHIFT, 0, 0])
    expected = [
        [tiny.LABELS[i] for i in logits.argmax(axis=1)] for logits in (int8, tiny.image_logits(images))
    ]
    assert expected[0] != expected[1]
    answers: list[int] = []

    async def call() -> None:
        async with httpx.AsyncClient(base_url=server.url, timeout=LIMIT_S) as client:
            seen = 0
            while not over.is_set():
                answer = await client.post(IMAGE, content=body, headers=JSON)
                assert answer.status_code == 200, answer.text
                labels = [each["label"] for each in answer.json()["predictions"]]
                graph = expected.index(labels)
                assert graph >= seen  # one connection is one process's, which goes back to int8 never
                seen = graph
                answers.append(graph)

    callers = [asyncio.ensure_future(call()) for _ in range(CALLERS)]
    # The shadow rests nine times as long as it works, so 500 comparisons take a while on a busy machine.
    async with asyncio.timeout(PATIENCE_S):
        while log_text(server).count("; fp32 takes over") < workers:
            assert not any(caller.done() for caller in callers)
            await asyncio.sleep(0.05)
    await asyncio.to_thread(eventually, lambda: share_of_time(server.url, "fp32") == 1)
    more = len(answers) + 200
    await asyncio.to_thread(eventually, lambda: len(answers) >= more or any(map(asyncio.Task.done, callers)))
    over.set()
    await asyncio.gather(*callers)

    assert set(answers) == {0, 1}
    assert set(answers[-100:]) == {1}
    requests = samples(server.url, "octet_requests_total")
    answered = {labels: n for labels, n in requests.items() if labels[1] == "/v1/models/{name}:predict"}
    assert sum(answered.values()) == len(answers)
    assert samples(server.url, "octet_shadow_fallback")[MODEL] == 1
    compared = samples(server.url, "octet_shadow_compared_total")[MODEL]
    assert compared >= 500 * workers
    flips = samples(server.url, "octet_shadow_disagreements_total")
    assert 0 < sum(flips.values()) < compared
    assert samples(server.url, "octet_shadow_abs_dp_count")[MODEL] == compared
    assert "Traceback" not in log_text(server)
    server.process.terminate()
    assert server.process.wait(LIMIT_S) == 0
