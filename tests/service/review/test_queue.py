"""The queue: it stores what is worth it, and nothing that goes wrong with the store reaches serving."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from bundle.predictor import Predictor, load_predictor
from service.metrics import Metrics
from service.review import queue
from service.review.queue import Review
from service.review.store import open_store
from service.settings import Settings
from service.tap import Shown, Tap
from tests.calibrated import make_calibrated_bundle
from tests.service.fakes import LIMIT_S

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return load_predictor(make_calibrated_bundle(tmp_path_factory.mktemp("models")))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "_FIRST_PAUSE_S", 0.01)


def shown(predictor: Predictor, seed: int, n: int = 4) -> Shown:
    """A run of noise; with a bound of 1, all of it is picked."""
    pixels = np.random.default_rng(seed).integers(0, 256, (n, 4, 4), dtype=np.uint8)
    rows = [{"pixels": item} for item in pixels]
    return Shown(predictor, rows, predictor.answer(rows))


def make(folder: Path, **settings: object) -> tuple[Review, Metrics]:
    chosen = {"review_url": f"sqlite:///{folder}/review.db", "review_max_confidence": 1, **settings}
    metrics = Metrics()
    return Review(Settings(**chosen), metrics), metrics  # type: ignore[arg-type]


def counts(metrics: Metrics) -> dict[str, float]:
    """Outcome -> rows; "unseen" for those that nobody looked at, and "unavailable" for the gauge."""
    found = {}
    for family in metrics.registry.collect():
        for sample in family.samples:
            if sample.name == "octet_review_stored_total":
                found[sample.labels["outcome"]] = sample.value
            elif sample.name in ("octet_review_unseen_total", "octet_review_unavailable"):
                found[sample.name.removeprefix("octet_review_").removesuffix("_total")] = sample.value
    return found


async def eventually(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


def stored(folder: Path) -> int:
    with open_store(f"sqlite:///{folder}/review.db") as store:
        return store.counts().total


async def test_what_is_shown_is_stored_when_the_queue_stops(predictor: Predictor, tmp_path: Path) -> None:
    review, metrics = make(tmp_path)
    tap = Tap()
    run = shown(predictor, 1)
    async with review.running(tap):
        tap.ran(*run)
        tap.ran(*run)
    assert counts(metrics) == {"stored": 4, "known": 4, "unavailable": 0}
    with open_store(f"sqlite:///{tmp_path}/review.db") as store:
        items = store.page("calibrated")
        assert {item.answer for item in items} <= set(predictor.bundle.manifest.labels)
        assert {item.bundle_sha256 for item in items} == {predictor.bundle.manifest_sha256}
        assert {item.precision for item in items} == {"int8"}
        assert {item.version for item in items} == {"1"}


async def test_no_more_rows_a_second_are_judged_than_are_allowed(
    predictor: Predictor, tmp_path: Path
) -> None:
    review, metrics = make(tmp_path, review_rows_per_s=8)
    async with review.running(Tap()):
        review.observe([shown(predictor, seed) for seed in range(10)])
        judged = shown(predictor, 99)
        assert judged.answers[0].judgement  # as by a caller of :confidence; it costs nothing more
        review.observe([judged])
    found = counts(metrics)
    assert found["unseen"] in (28, 32)  # two runs, or one more if a quarter of a second passed meanwhile
    assert found["stored"] + found["unseen"] == 44


async def test_a_store_that_is_away_is_told_once_and_found_again(
    predictor: Predictor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "later"
    review, metrics = make(folder)
    tap = Tap()
    with caplog.at_level(logging.INFO, "service.review"):
        async with review.running(tap):
            for seed in range(5):
                tap.ran(*shown(predictor, seed))
                tap.hand_on()
                await eventually(lambda seed=seed: counts(metrics).get("failed", 0) == 4 * (seed + 1))
                await asyncio.sleep(0.03)
            assert counts(metrics)["unavailable"] == 1
            folder.mkdir()
            await asyncio.sleep(0.5)
            tap.ran(*shown(predictor, 10))
            tap.hand_on()
            await eventually(lambda: counts(metrics).get("stored", 0) == 4)
            await eventually(lambda: counts(metrics)["unavailable"] == 0)
    lines = [record.message for record in caplog.records]
    (failed, again) = lines
    assert failed.startswith("inputs are not kept for review, and serving goes on: the review store")
    assert failed.count("\n") == 0
    assert again == "the review queue stores inputs again"
    assert stored(folder) == 4


async def test_a_store_that_hangs_keeps_nobody_waiting(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "_MOST_WAITING", 8)
    review, metrics = make(tmp_path, review_rows_per_s=100_000)
    runs = [shown(predictor, seed) for seed in range(100)]
    async with review.running(Tap()):
        review.observe([shown(predictor, 1000)])
        await eventually(lambda: counts(metrics).get("stored") == 4)
        with locked(tmp_path / "review.db"):
            began_s = time.monotonic()
            review.observe(runs)
            assert time.monotonic() - began_s < 1
            assert counts(metrics)["unseen"] >= 4 * (100 - 8 - 2 * queue._MOST_TOGETHER)
    found = counts(metrics)
    assert found["stored"] + found["unseen"] + found.get("failed", 0) == 404
    assert stored(tmp_path) == found["stored"] > 0


async def test_no_more_memory_is_held_than_is_allowed(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "_MOST_HELD_BYTES", 20_000)
    review, metrics = make(tmp_path)
    body = bytes(range(256)) * 100  # a request of which the rows are but a small part
    wide = np.frombuffer(body, np.uint8).reshape(-1, 4, 4)
    rows = [{"pixels": wide[i]} for i in range(2)]
    review.observe([Shown(predictor, rows, predictor.answer(rows))])
    assert counts(metrics)["unseen"] == 2
    review.observe([shown(predictor, 1)])
    async with review.running(Tap()):
        pass
    assert counts(metrics)["stored"] == 4
    assert review._held_bytes == 0


async def test_a_run_that_cannot_be_looked_at_harms_no_other(
    predictor: Predictor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    review, metrics = make(tmp_path)
    odd = shown(predictor, 1)
    broken = odd._replace(rows=odd.rows[:0])  # rows are missing for what was picked
    tap = Tap()
    async with review.running(tap):
        review.observe([broken])
        await eventually(lambda: counts(metrics).get("failed", 0) == 4)
        await asyncio.sleep(0.1)
        review.observe([shown(predictor, 2)])
    assert counts(metrics)["stored"] == 4
    assert stored(tmp_path) == 4


async def test_what_is_too_old_goes_even_if_nothing_comes(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "_SWEEP_S", 0.1)
    review, metrics = make(tmp_path, review_max_age_s=1)
    async with review.running(Tap()):
        review.observe([shown(predictor, 1)])
        await eventually(lambda: counts(metrics).get("stored") == 4)
        await eventually(lambda: stored(tmp_path) == 0)
    assert not any(thread.name == "review" for thread in threading.enumerate())


async def test_a_server_that_cuts_the_connection_is_found_again(
    predictor: Predictor, tmp_path: Path, postgres: str, caplog: pytest.LogCaptureFixture
) -> None:
    import psycopg

    review, metrics = make(tmp_path, review_url=postgres)
    with caplog.at_level(logging.INFO, "service.review"), psycopg.connect(postgres, autocommit=True) as own:
        async with review.running(Tap()):
            review.observe([shown(predictor, 1)])
            await eventually(lambda: counts(metrics).get("stored") == 4)
            own.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            )
            review.observe([shown(predictor, 2)])
            await eventually(lambda: counts(metrics).get("failed") == 4)
            assert counts(metrics)["unavailable"] == 1
            await asyncio.sleep(0.1)
            review.observe([shown(predictor, 3)])
            await eventually(lambda: counts(metrics).get("stored") == 8)
            assert counts(metrics)["unavailable"] == 0
    first, second = [record.message for record in caplog.records]
    assert first.startswith("inputs are not kept for review, and serving goes on: the review store in Post")
    assert second == "the review queue stores inputs again"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock for writers of a SQLite file from another connection."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    yield
    connection.execute("ROLLBACK")
    connection.close()


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    yield
    assert not any(thread.name == "review" for thread in threading.enumerate())
