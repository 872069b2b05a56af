"""Predictors that wait at a gate or fail on purpose, which a real one cannot be made to do."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from bundle.answer import Answer
from bundle.predictor import Predictor, load_predictor
from bundle.rows import Row
from service.app import create_app
from service.batcher import Batcher, Runner
from service.metrics import Metrics
from service.pool import RunPool
from service.registry import Registry, Served, runner_of
from service.resources import Resources
from service.settings import Settings
from tests.conftest import client_of

LIMIT_S = 20  # far above what anything here takes; a test that gets there fails


class Echo:
    """Gives each row its own value back; rows with a negative value make their whole run fail.

    Attributes:
        gate: runs wait until it is set.
        gates: values of a run -> the gate at which it waits instead.
        runs: the values of each run, in the order in which they began.
        lengths: the lengths of the rows of each run.
        threads: the name of the thread of each run.
    """

    def __init__(
        self, max_batch_size: int, seconds_per_element: float = math.inf, max_elements: float = math.inf
    ) -> None:
        self.runner = Runner(
            "echo", "1", self.run, max_batch_size, seconds_per_element, max_elements=max_elements
        )
        self.gate = threading.Event()
        self.gates: dict[tuple[float, ...], threading.Event] = {}
        self.runs: list[list[float]] = []
        self.lengths: list[list[int]] = []
        self.threads: list[str] = []

    def run(self, rows: Sequence[Row]) -> list[float]:
        values = [float(row["x"].flat[0]) for row in rows]
        self.lengths.append([row["x"].size for row in rows])
        self.threads.append(threading.current_thread().name)
        self.runs.append(values)
        assert self.gates.get(tuple(values), self.gate).wait(LIMIT_S)
        if min(values) < 0:
            raise RuntimeError(f"cannot run {min(values):g}")
        return values


class GatedPredictor:
    """A real predictor whose runs wait at a gate.

    Attributes:
        gate: runs wait until it is set.
        running: set once a run waits at the gate.
        failure: raised instead of running, if any.
    """

    def __init__(self, real: Predictor) -> None:
        self._real = real
        self.gate = threading.Event()
        self.running = threading.Event()
        self.failure: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def answer(self, rows: Sequence[Row]) -> list[Answer]:
        self.running.set()
        assert self.gate.wait(LIMIT_S)
        if self.failure is not None:
            raise self.failure
        return self._real.answer(rows)


@asynccontextmanager
async def gated_app(
    repository: Path, *, lane: bool = False, **settings: Any
) -> AsyncIterator[tuple[httpx.AsyncClient, GatedPredictor]]:
    """Run the application in this process with tiny-image alone, on one thread, behind a gate."""
    chosen = Settings(models=repository, threads=1, **settings)
    metrics = Metrics()
    predictor: Any = GatedPredictor(load_predictor(repository / "tiny-image" / "1"))
    pool = RunPool(1)
    batcher = Batcher(runner_of(predictor), pool, chosen.max_queue_size, metrics)
    app = create_app(chosen, Registry([Served(predictor, batcher)], Resources(pool)), metrics)
    async with client_of(app, lane=lane) as client:
        try:
            yield client, predictor
        finally:
            predictor.gate.set()


async def until(condition: Callable[[], bool]) -> None:
    """Let the event loop run until a condition holds."""
    async with asyncio.timeout(LIMIT_S):
        while not condition():
            await asyncio.sleep(0.001)
