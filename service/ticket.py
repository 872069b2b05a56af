"""The ticket: what a caller holds for rows that it has asked a batcher to run.

Callers are told what came of their rows right where the run ends. A future for each, and the turn of the
event loop that it takes, would cost a small request as much as everything else that the batcher does for it;
who wants one all the same gets `Awaited`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import Any, Generic, Protocol, TypeVar

from bundle.rows import Row, size_of

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
# What came of some rows: a result for each, or why there are none; cancelled where the batcher was stopped.
Outcome = list[Result] | Exception | asyncio.CancelledError
Tell = Callable[[Outcome[Result]], None]


class Asked(Protocol):
    """What somebody has asked for."""

    def cancel(self) -> None:
        """Want it no more: nothing will be told, and what has not begun is left out."""


class Ticket(Generic[Result]):
    """Rows of one request that run together, at most one batch, and who is told what comes of them.

    Attributes:
        size: elements of the largest row.
        priority: the smaller goes first.
        waiting: until a runner takes it, or its caller cancels it.
        done: its caller was told, or does not want to know any more.
    """

    __slots__ = ("_tell", "_when_dropped", "arrived_s", "done", "priority", "rows", "size", "waiting")

    def __init__(
        self,
        rows: Sequence[Row],
        tell: Tell[Result],
        when_dropped: Callable[[Ticket[Result]], None],
        priority: int,
    ) -> None:
        self.rows = rows
        self.priority = priority
        self.size = size_of(rows[0]) if len(rows) == 1 else max(map(size_of, rows))
        self.arrived_s = time.perf_counter()
        self.waiting = True
        self.done = False
        self._tell = tell
        self._when_dropped = when_dropped

    def cancel(self) -> None:
        """Want nothing any more. While it waits it makes room at once, and the runners pass it over."""
        self.done = True
        if self.waiting:
            self.waiting = False
            self._when_dropped(self)

    def tell(self, outcome: Outcome[Result]) -> None:
        """Tell its caller, who still waits, what came of it."""
        if self.done:
            return
        self.cancel()
        try:
            self._tell(outcome)
        except Exception:  # the next caller of the batch must be told all the same
            logger.exception("a caller could not be told what came of its rows")


class Parts(Generic[Result]):
    """A request of more rows than fit into one batch: a ticket for each part, and one who is told."""

    def __init__(
        self,
        parts: Sequence[Sequence[Row]],
        enqueue: Callable[[Sequence[Row], Tell[Result], int], Ticket[Result]],
        tell: Tell[Result],
        priority: int,
    ) -> None:
        self._tell = tell
        self._results: dict[int, list[Result]] = {}
        self._tickets = [
            enqueue(part, partial(self._take, number), priority) for number, part in enumerate(parts)
        ]

    def cancel(self) -> None:
        """Want nothing any more."""
        for ticket in self._tickets:
            ticket.cancel()

    def _take(self, number: int, outcome: Outcome[Result]) -> None:
        if isinstance(outcome, Exception | asyncio.CancelledError):
            self.cancel()  # nobody wants the other parts
            self._tell(outcome)
            return
        self._results[number] = outcome
        if len(self._results) == len(self._tickets):
            self._tell(list(chain.from_iterable(self._results[i] for i in range(len(self._tickets)))))


class Awaited(asyncio.Future[list[Result]]):
    """The results of a request, for a caller that awaits them. Cancelling it drops the rows at once."""

    asked: Asked | None = None

    def cancel(self, msg: Any | None = None) -> bool:
        """Want the results no more."""
        if self.asked is not None:
            self.asked.cancel()
        return super().cancel(msg)

    def take(self, outcome: Outcome[Result]) -> None:
        """Be told what came of the rows."""
        if self.done():
            return
        if isinstance(outcome, asyncio.CancelledError):
            super().cancel()
        elif isinstance(outcome, Exception):
            self.set_exception(outcome)
        else:
            self.set_result(outcome)
