"""The shadow: runs a share of the rows on the fp32 graph as well, and counts where int8 disagrees.

It looks at runs through the tap, when their answers are on their way, and works in one thread of low
priority that rests far more than it works. What comes faster than that is dropped and counted; nobody waits
for it. A row is compared alone, so whatever is in it concerns no other. Where less agrees than was asked for,
it has the fp32 graph take over.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Counter

from bundle.answer import Answer
from bundle.confidence import softmax
from bundle.predictor import Predictor, create_predictor
from bundle.rows import Row
from service.agreement import Agreement
from service.budget import Budget
from service.metrics import BulkHistogram, Metrics
from service.settings import Settings
from service.tap import Shown

logger = logging.getLogger(__name__)

# What may wait for the thread. Rows are of callers' requests, so their size is bounded too.
_MOST_ROWS, _MOST_BYTES = 64, 8 * 1024 * 1024
# Share of its time that the thread works at most.
_DUTY = 0.1
# The thread gives way to others, but not for long: it may hold the interpreter's lock, which all need.
_NICENESS = 5
# Above, a series for each label would be too many.
_MOST_LABELS = 50

FallBack = Callable[[Predictor, str], Awaitable[None]]


class _Sample(NamedTuple):
    """One row that was answered, copied, so that it keeps nothing of its request."""

    predictor: Predictor
    row: Row
    logits: NDArray[np.float32]

    @property
    def size_bytes(self) -> int:
        return sum(array.nbytes for array in self.row.values())


@dataclass
class _Comparison:
    """All that is kept to compare one version.

    Attributes:
        reference: the same bundle with its fp32 graph; None where that cannot be loaded.
        agreement: None where nobody asked for any, or the bound was broken already.
    """

    served: weakref.ref[Predictor]
    reference: Predictor | None
    agreement: Agreement | None
    compared: Counter
    differences: BulkHistogram


class Shadow:
    """Compares int8 with fp32; an observer of the tap.

    Args:
        settings: say how much is compared, and what agreement is asked for.
        metrics: told of every comparison.
        fall_back: has the fp32 graph take the place of a predictor, for the reason given.
    """

    def __init__(self, settings: Settings, metrics: Metrics, fall_back: FallBack) -> None:
        self._share = settings.shadow_share
        self._bound = settings.shadow_min_agreement
        self._metrics = metrics
        self._fall_back = fall_back
        self._budget = Budget(settings.shadow_rows_per_s)
        self._queue: SimpleQueue[_Sample | None] = SimpleQueue()
        # Each is changed on one side alone: what went in by the event loop, what came out by the thread.
        self._rows_in = self._bytes_in = self._rows_out = self._bytes_out = 0
        self._comparisons: dict[int, _Comparison] = {}
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = threading.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Compare what is observed in the block."""
        self._loop = asyncio.get_running_loop()
        yield
        self._loop = None
        if self._thread is not None:
            self._stopping.set()
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def observe(self, runs: Sequence[Shown]) -> None:
        """Take a share of the rows of some runs."""
        for run in runs:
            manifest = run.predictor.bundle.manifest
            if (
                run.predictor.precision != "int8"
                or manifest.task != "classification"
                or "fp32" not in manifest.graphs
            ):
                continue
            chosen = [i for i in range(len(run.rows)) if random.random() < self._share]  # noqa: S311 - it guards nothing
            dropped = sum(not self._take(run.predictor, run.rows[i], run.answers[i]) for i in chosen)
            if dropped:
                self._metrics.shadow_dropped.labels(manifest.name, str(manifest.version)).inc(dropped)

    def _take(self, predictor: Predictor, row: Row, answer: Answer) -> bool:
        """Hand a row to the thread; False where it must be dropped."""
        if self._loop is None or self._rows_in - self._rows_out >= _MOST_ROWS:
            return False
        size_bytes = sum(array.nbytes for array in row.values())
        if self._bytes_in - self._bytes_out + size_bytes > _MOST_BYTES or not self._budget.take():
            return False
        copy = {name: array.copy() for name, array in row.items()}
        self._rows_in += 1
        self._bytes_in += size_bytes
        self._queue.put(_Sample(predictor, copy, answer.tensor("logits").ravel().copy()))
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="shadow", daemon=True)
            self._thread.start()
        return True

    def _work(self) -> None:
        """Compare one row after the other, until the end. It is the thread's."""
        _lower_priority()
        while not self._stopping.is_set() and (worked_s := self._compare_next()) is not None:
            self._stopping.wait(worked_s * (1 / _DUTY - 1))

    def _compare_next(self) -> float | None:
        """Compare the next row; return the seconds that it took, or None at the end.

        Nothing of the row is held when this returns: its predictor may be waited for to go.
        """
        sample = self._queue.get()
        if sample is None:
            return None
        began_s = time.perf_counter()
        try:
            self._compare(sample)
        except Exception:  # a row that cannot be compared harms nobody
            logger.exception("a row could not be run on the fp32 graph")
            manifest = sample.predictor.bundle.manifest
            self._metrics.shadow_dropped.labels(manifest.name, str(manifest.version)).inc()
        self._rows_out += 1
        self._bytes_out += sample.size_bytes
        return time.perf_counter() - began_s

    def _compare(self, sample: _Sample) -> None:
        """Run a row on the fp32 graph, and count what that says of it."""
        predictor = sample.predictor
        comparison = self._comparisons.get(id(predictor)) or self._begin(predictor)
        reference = comparison.reference
        manifest = predictor.bundle.manifest
        model = (manifest.name, str(manifest.version))
        if reference is None:
            self._metrics.shadow_dropped.labels(*model).inc()
            return
        logits = reference.run([sample.row]).logits[0]
        answered = int(sample.logits.argmax())
        agreed = int(logits.argmax()) == answered
        before, after = (
            softmax(each[np.newaxis], graph.temperature)[0, answered]
            for each, graph in ((sample.logits, predictor), (logits, reference))
        )
        comparison.compared.inc()
        comparison.differences.observe(abs(float(before - after)))
        if not agreed:
            label = manifest.labels[answered] if len(manifest.labels) <= _MOST_LABELS else ""
            self._metrics.shadow_disagreements.labels(*model, label).inc()
        if comparison.agreement is not None:
            comparison.agreement.note(agreed=agreed)
            if comparison.agreement.is_broken:
                self._report(predictor, comparison.agreement)
                comparison.agreement = None

    def _begin(self, predictor: Predictor) -> _Comparison:
        """Load the fp32 graph of a version; it is dropped when the version is."""
        bundle = predictor.bundle
        try:
            reference = create_predictor(bundle, "fp32")
        except Exception as error:  # noqa: BLE001 - whatever it is, the int8 graph serves on
            reference = None
            logger.error("%s: nothing is compared with its fp32 graph: %s", bundle.directory, error)
        key = id(predictor)
        model = (bundle.manifest.name, str(bundle.manifest.version))
        self._comparisons[key] = _Comparison(
            weakref.ref(predictor, lambda _: self._comparisons.pop(key, None)),
            reference,
            None if self._bound is None else Agreement(self._bound),
            self._metrics.shadow_compared.labels(*model),
            self._metrics.shadow_abs_dp.labels(*model),
        )
        return self._comparisons[key]

    def _report(self, predictor: Predictor, agreement: Agreement) -> None:
        """Have the fp32 graph take over."""
        manifest = predictor.bundle.manifest
        reason = (
            f"int8 agreed with fp32 on {agreement.share:.2%} of the last {agreement.n} rows that were "
            f"compared, which is below {self._bound:.2%}"
        )
        logger.warning("%s/%d: %s; fp32 takes over", manifest.name, manifest.version, reason)
        if (loop := self._loop) is not None:
            with suppress(RuntimeError):  # it may be closed at this moment
                loop.call_soon_threadsafe(self._start_fall_back, predictor, reason)

    def _start_fall_back(self, predictor: Predictor, reason: str) -> None:
        task = asyncio.ensure_future(self._fall_back(predictor, reason))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _lower_priority() -> None:
    """Let this thread run when others do not need the processor; Linux gives each thread a priority."""
    if sys.platform == "linux":
        with suppress(OSError):
            thread = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + _NICENESS)
