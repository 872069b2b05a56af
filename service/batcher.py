"""The batcher: runs requests that arrive together as one batch, and hands each its own rows back.

A batch is formed when a runner is free, from what has arrived by then; nothing waits for company. The
queue item owns its future: a caller that goes away cancels it, and its rows are left out or their result is
dropped, whatever the other callers of the batch do.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bundle.predictor import Predictor
from bundle.rows import Row
from service.errors import QueueFullError
from service.metrics import Metrics
from service.pool import RunPool

logger = logging.getLogger(__name__)

Logits = NDArray[np.float32]


@dataclass(eq=False)
class _Item:
    """Rows of one request that run together, at most one batch; they wait until a runner takes them."""

    rows: Sequence[Row]
    future: asyncio.Future[Logits]
    arrived_s: float = field(default_factory=time.perf_counter)
    waiting: bool = True


class Batcher:
    """The queue of one model.

    Args:
        predictor: what runs the rows.
        pool: the threads that it runs on.
        max_queue_size: rows that may wait. A request that alone is larger is let in when nothing waits.
        metrics: told of every run.
    """

    def __init__(self, predictor: Predictor, pool: RunPool, max_queue_size: int, metrics: Metrics) -> None:
        self._predictor = predictor
        self._pool = pool
        self._max_queue_size = max_queue_size
        self._max_batch_size = predictor.bundle.manifest.max_batch_size
        self._queue: deque[_Item] = deque()
        self._waiting_rows = 0
        self._arrival = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        labels = (predictor.bundle.manifest.name, str(predictor.bundle.manifest.version))
        self._rows = metrics.rows.labels(*labels)
        self._queue_seconds = metrics.queue_seconds.labels(*labels)
        self._run_seconds = metrics.run_seconds.labels(*labels)
        self._batch_rows = metrics.batch_rows.labels(*labels)
        self._queue_depth = metrics.queue_depth.labels(*labels)

    def start(self) -> None:
        """Start the runners on the running event loop."""
        self._tasks = [asyncio.create_task(self._serve()) for _ in range(self._pool.threads)]

    async def stop(self) -> None:
        """Stop the runners. Call it when no request is left; what still waits or runs is cancelled."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        while self._queue:
            self._drop(self._queue.popleft())

    async def submit(self, rows: Sequence[Row]) -> Logits:
        """Run rows, split or together with others as it comes; cancelling this drops them.

        Args:
            rows: validated, at least one.

        Returns:
            (rows, labels) float32 logits, in the order given.

        Raises:
            QueueFullError: too many rows wait already.
        """
        if self._waiting_rows and self._waiting_rows + len(rows) > self._max_queue_size:
            raise QueueFullError(f"{self._waiting_rows} rows are waiting for this model; try again later")
        loop = asyncio.get_running_loop()
        items = [
            _Item(rows[start : start + self._max_batch_size], loop.create_future())
            for start in range(0, len(rows), self._max_batch_size)
        ]
        self._queue.extend(items)
        self._count_waiting(len(rows))
        self._arrival.set()
        try:
            parts = await asyncio.gather(*(item.future for item in items))
        except BaseException:  # one part failed, or the caller has gone: nobody wants the others
            for item in items:
                self._drop(item)
            raise
        self._rows.inc(len(rows))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    async def _serve(self) -> None:
        """Run batch after batch, for ever."""
        while True:
            await self._arrival.wait()
            async with self._pool.slots:
                batch = self._next_batch()
                if not batch:
                    self._arrival.clear()
                    continue
                now_s = time.perf_counter()
                for item in batch:
                    self._queue_seconds.observe(now_s - item.arrived_s)
                try:
                    await self._run(batch)
                finally:
                    for item in batch:  # when this is stopped, nobody else would answer them
                        item.future.cancel()

    def _next_batch(self) -> list[_Item]:
        """Take what has arrived, first come first served, as far as it fits into one batch."""
        batch: list[_Item] = []
        size = 0
        while self._queue:
            item = self._queue[0]
            if item.waiting:  # else it was dropped
                if size + len(item.rows) > self._max_batch_size:
                    break
                self._stop_waiting(item)
                batch.append(item)
                size += len(item.rows)
            self._queue.popleft()
        return batch

    async def _run(self, batch: list[_Item]) -> None:
        """Run one batch and give every item its rows; where the batch fails, run each item alone."""
        rows = [row for item in batch for row in item.rows]
        started_s = time.perf_counter()
        self._batch_rows.observe(len(rows))
        try:
            outputs = await asyncio.get_running_loop().run_in_executor(
                self._pool.executor, self._predictor.run, rows
            )
        except Exception as error:  # noqa: BLE001 - the runtime's exceptions have no common base
            if len(batch) > 1:
                logger.warning("a batch of %d requests failed (%s); running each alone", len(batch), error)
                for item in batch:
                    if not item.future.done():  # else its caller has gone
                        await self._run([item])
            elif not batch[0].future.done():
                batch[0].future.set_exception(error)
            return
        self._run_seconds.observe(time.perf_counter() - started_s)
        start = 0
        for item in batch:
            if not item.future.done():
                item.future.set_result(outputs.logits[start : start + len(item.rows)])
            start += len(item.rows)

    def _drop(self, item: _Item) -> None:
        """Forget an item: it makes room at once, and the runners pass it over."""
        item.future.cancel()
        if item.waiting:
            self._stop_waiting(item)

    def _stop_waiting(self, item: _Item) -> None:
        item.waiting = False
        self._count_waiting(-len(item.rows))

    def _count_waiting(self, change: int) -> None:
        self._waiting_rows += change
        self._queue_depth.set(self._waiting_rows)
