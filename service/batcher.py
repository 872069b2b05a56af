"""The batcher: runs requests that arrive together as one batch, and hands each its own rows back.

A batch is formed when a runner is free, from what has arrived by then; nothing waits for company. Each
caller holds a ticket: when it goes away it cancels that, and its rows are left out or their result is
dropped, whatever the other callers of the batch do.

Rows of differing lengths wait in buckets of like lengths, so that little is padded: the oldest ticket says
which bucket is next. A batch that is quick runs on the event loop itself, where that is the only runner:
handing it to a thread and back would take longer than what it keeps others waiting.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from bundle.rows import Row, size_of
from service.errors import QueueFullError
from service.metrics import GATHER_S, Metrics
from service.pool import RunPool
from service.statistics import Total
from service.ticket import Asked, Awaited, Parts, Tell, Ticket
from service.turn import Together

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
# A run that takes longer goes to a thread, so that the event loop can answer others meanwhile.
_LONGEST_INLINE_S = 0.005
# Of callers that say nothing; one that does can go before them or after them.
_USUAL_PRIORITY = 2


def _by_length(row: Row) -> int:
    """Lengths in one bucket differ by a factor of at most the square root of two."""
    return math.ceil(2 * math.log2(max(1, size_of(row))))


@dataclass(frozen=True)
class Runner(Generic[Result]):
    """How the rows of one model are run.

    Attributes:
        run: gives one result for each row, in order.
        max_batch_size: most rows in one run.
        seconds_per_element: of one run on this machine, for each element of the padded batch; with it the
            length of a run is foretold. Infinite where it is not known.
        bucket_of: what rows must have in common to run together.
        max_elements: most elements of the padded batch in one run, unless one row alone has more.
    """

    name: str
    version: str
    run: Callable[[Sequence[Row]], list[Result]]
    max_batch_size: int
    seconds_per_element: float = float("inf")
    bucket_of: Callable[[Row], Hashable] = _by_length
    max_elements: float = math.inf

    def fits(self, rows: int, largest: int) -> bool:
        """Whether so many rows, the largest of so many elements, may run together."""
        return rows <= self.max_batch_size and (rows == 1 or rows * largest <= self.max_elements)

    def split(self, rows: Sequence[Row]) -> list[Sequence[Row]]:
        """Return the rows in parts that fit."""
        largest = max(map(size_of, rows))
        if self.fits(len(rows), largest):
            return [rows]
        size = int(max(1, min(self.max_batch_size, self.max_elements // max(1, largest))))
        return [rows[start : start + size] for start in range(0, len(rows), size)]


class Batcher(Generic[Result]):
    """The queue of one model.

    Args:
        runner: what runs the rows.
        pool: the threads that it may run on.
        max_queue_size: rows that may wait. A request that alone is larger is let in when nothing waits.
        metrics: told of every run.
        queued: told of every request's wait.
        delivered: told of every run that succeeded, with its rows and results, once these are handed over.
    """

    def __init__(
        self,
        runner: Runner[Result],
        pool: RunPool,
        max_queue_size: int,
        metrics: Metrics,
        queued: Total | None = None,
        delivered: Callable[[Sequence[Row], Sequence[Result]], None] | None = None,
    ) -> None:
        self._runner = runner
        self._delivered = delivered
        self._queued = queued or Total()
        self._pool = pool
        self._max_queue_size = max_queue_size
        self._buckets: dict[Hashable, deque[Ticket[Result]]] = {}
        self._waiting_rows = 0
        self._running: set[asyncio.Task[None]] = set()
        self._stopped = False
        self._asks_for_slot = False
        self._turn = Together(self._serve)
        self._waits_s: list[float] = []
        self._runs_s: list[float] = []
        self._sizes: list[int] = []
        self._delivered_rows = 0
        self._later = Together(self._count, GATHER_S)
        self._metrics = metrics
        metrics.gatherers.append(self._count)
        labels = (runner.name, runner.version)
        self._rows = metrics.rows.labels(*labels)
        self._queue_seconds = metrics.queue_seconds.labels(*labels)
        self._run_seconds = metrics.run_seconds.labels(*labels)
        self._batch_rows = metrics.batch_rows.labels(*labels)
        self._queue_depth = metrics.queue_depth.labels(*labels)

    def submit(self, rows: Sequence[Row], priority: int = 0) -> asyncio.Future[list[Result]]:
        """Run rows as `ask` does.

        Returns:
            A future of one result for each row, in the order given. Cancelling it drops the rows.

        Raises:
            QueueFullError: too many rows wait already.
        """
        awaited: Awaited[Result] = Awaited()
        awaited.asked = self.ask(rows, awaited.take, priority)
        return awaited

    def ask(self, rows: Sequence[Row], tell: Tell[Result], priority: int = 0) -> Asked:
        """Run rows, split or together with others as it comes.

        Args:
            rows: validated, at least one.
            tell: gets one result for each row, in the order given, once all of them are there. It is called
                on the event loop, right after the run, and has to be quick.
            priority: 1 goes before all others that wait, 2 before those of 3; 0 is as 2.

        Returns:
            What drops the rows when it is cancelled.

        Raises:
            QueueFullError: too many rows wait already.
        """
        if self._waiting_rows and self._waiting_rows + len(rows) > self._max_queue_size:
            raise QueueFullError(f"{self._waiting_rows} rows are waiting for this model; try again later")
        if len(rows) == 1 or len(parts := self._runner.split(rows)) == 1:
            return self._enqueue(rows, tell, priority)
        return Parts(parts, self._enqueue, tell, priority)

    async def stop(self) -> None:
        """Drop what waits and what runs. Call it when no request is left."""
        self._stopped = True
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        for bucket in self._buckets.values():
            _drop(bucket)

    def retire(self) -> None:
        """Be forgotten by the metrics, because no more will come. What has come is run as ever."""
        self._count()
        self._metrics.gatherers.remove(self._count)

    def _enqueue(self, rows: Sequence[Row], tell: Tell[Result], priority: int) -> Ticket[Result]:
        ticket = Ticket(rows, tell, self._forget, priority or _USUAL_PRIORITY)
        largest = rows[0] if len(rows) == 1 else max(rows, key=size_of)
        key = (ticket.priority, self._runner.bucket_of(largest))
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = deque()
        bucket.append(ticket)
        self._waiting_rows += len(rows)
        self._turn.ask()
        self._later.ask()
        return ticket

    def _serve(self) -> None:
        """Start what can be started; called once a turn while something waits."""
        buckets = self._oldest_first()
        if self._asks_for_slot and all(map(self._is_quick, buckets)):  # the callers with the others have gone
            self._asks_for_slot = False
            self._pool.withdraw(self._turn.ask)
        for bucket in buckets:
            if self._stopped:
                return
            if self._is_quick(bucket):
                self._run_here(self._take_batch(bucket))
                if self._waiting_rows:  # its turn comes after the answers to this batch
                    self._turn.ask()
                return
            self._asks_for_slot = not self._pool.take_slot(self._turn.ask)
            if not self._asks_for_slot:
                task = asyncio.ensure_future(self._run_in_slot(self._take_batch(bucket)))
                self._running.add(task)
                task.add_done_callback(self._running.discard)
                if self._waiting_rows:
                    self._turn.ask()

    def _oldest_first(self) -> list[deque[Ticket[Result]]]:
        """The buckets in which something waits, by the priority and the arrival of their first ticket."""
        for key, bucket in list(self._buckets.items()):
            while bucket and not bucket[0].waiting:
                bucket.popleft()
            if not bucket:
                del self._buckets[key]
        return sorted(self._buckets.values(), key=lambda bucket: (bucket[0].priority, bucket[0].arrived_s))

    def _is_quick(self, bucket: deque[Ticket[Result]]) -> bool:
        """Whether the next batch may run on the event loop."""
        if self._pool.threads > 1:
            return False  # there, batches run beside one another
        batch = self._next_batch(bucket)
        elements = sum([len(ticket.rows) for ticket in batch]) * max([ticket.size for ticket in batch])
        return elements * self._runner.seconds_per_element <= _LONGEST_INLINE_S

    def _next_batch(self, bucket: deque[Ticket[Result]]) -> list[Ticket[Result]]:
        """What has arrived, first come first served, as far as it fits into one batch."""
        batch: list[Ticket[Result]] = []
        rows = largest = 0
        for ticket in bucket:
            if ticket.waiting:  # else it was dropped
                rows, largest = rows + len(ticket.rows), max(largest, ticket.size)
                if batch and not self._runner.fits(rows, largest):
                    break
                batch.append(ticket)
        return batch

    def _take_batch(self, bucket: deque[Ticket[Result]]) -> list[Ticket[Result]]:
        """Take the next batch out of a bucket."""
        batch = self._next_batch(bucket)
        for ticket in batch:
            ticket.waiting = False
            self._waiting_rows -= len(ticket.rows)
        while bucket and not bucket[0].waiting:
            bucket.popleft()
        now_s = time.perf_counter()
        self._waits_s += [now_s - ticket.arrived_s for ticket in batch]
        self._later.ask()
        return batch

    def _run_here(self, batch: list[Ticket[Result]]) -> None:
        started_s = time.perf_counter()
        try:
            results = self._runner.run(_rows_of(batch))
        except Exception as error:  # noqa: BLE001 - the runtime's exceptions have no common base
            for ticket in self._blame(batch, error):
                if not ticket.done:  # the failure of one may end the waiting for another
                    self._run_here([ticket])
        else:
            self._deliver(batch, results, time.perf_counter() - started_s)

    async def _run_in_slot(self, batch: list[Ticket[Result]]) -> None:
        try:
            await self._run_in_thread(batch)
        finally:
            self._pool.give_back_slot()
            _drop(batch)  # when this is stopped, nobody else would answer them

    async def _run_in_thread(self, batch: list[Ticket[Result]]) -> None:
        started_s = time.perf_counter()
        loop = asyncio.get_running_loop()
        try:
            results = await loop.run_in_executor(self._pool.executor, self._runner.run, _rows_of(batch))
        except Exception as error:  # noqa: BLE001 - as above
            for ticket in self._blame(batch, error):
                if not ticket.done:  # its caller may go while the others run
                    await self._run_in_thread([ticket])
        else:
            self._deliver(batch, results, time.perf_counter() - started_s)

    def _blame(self, batch: list[Ticket[Result]], error: Exception) -> list[Ticket[Result]]:
        """Fail the only request of a batch; of several, return those to run alone, so that one fails."""
        self._sizes.append(sum(len(ticket.rows) for ticket in batch))
        waited_for = [ticket for ticket in batch if not ticket.done]
        if len(batch) > 1:
            logger.warning("a batch of %d requests failed (%s); running each alone", len(batch), error)
            return waited_for
        for ticket in waited_for:
            ticket.tell(error)
        return []

    def _deliver(self, batch: list[Ticket[Result]], results: list[Result], seconds: float) -> None:
        """Give every caller the results of its rows."""
        self._runs_s.append(seconds)
        self._later.ask()
        self._sizes.append(len(results))
        start = 0
        for ticket in batch:
            end = start + len(ticket.rows)
            if not ticket.done:  # else its caller has gone
                self._delivered_rows += len(ticket.rows)
                ticket.tell(results[start:end])
            start = end
        if self._delivered is not None:
            self._delivered(_rows_of(batch), results)

    def _forget(self, ticket: Ticket[Result]) -> None:
        """Note that a ticket that waited is not wanted any more."""
        self._waiting_rows -= len(ticket.rows)
        self._later.ask()

    def _count(self) -> None:
        """Hand in what was counted."""
        self._queue_depth.set(self._waiting_rows)
        self._queue_seconds.observe_all(self._waits_s)
        self._queued.add(sum(self._waits_s), len(self._waits_s))
        self._run_seconds.observe_all(self._runs_s)
        self._batch_rows.observe_all(self._sizes)
        self._rows.inc(self._delivered_rows)
        self._waits_s, self._runs_s, self._sizes, self._delivered_rows = [], [], [], 0


def _drop(tickets: Iterable[Ticket[Result]]) -> None:
    """Tell the callers that wait that nobody will answer them."""
    for ticket in tickets:
        ticket.tell(asyncio.CancelledError())


def _rows_of(batch: Sequence[Ticket[Result]]) -> list[Row]:
    return [row for ticket in batch for row in ticket.rows]
