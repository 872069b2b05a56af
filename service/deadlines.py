"""Deadlines: ends what has waited too long.

A timer for each request, set and taken back, takes longer than all that is looked at here a hundred times a
second for all of them together.
"""

from __future__ import annotations

import time
from typing import Protocol

from service.turn import Together

_EVERY_S = 0.01


class Waiting(Protocol):
    """Who waits.

    Attributes:
        due_s: `time.monotonic()` until which; it may change.
    """

    due_s: float

    def expire(self) -> None:
        """End the waiting: it has taken too long."""


class Deadlines:
    """Ends the waiting of those who are added, up to `_EVERY_S` after it is due."""

    def __init__(self) -> None:
        self._waiting: set[Waiting] = set()
        self._later = Together(self._look, _EVERY_S)

    def add(self, waiting: Waiting) -> None:
        """Look after one more. Call it on the event loop."""
        self._waiting.add(waiting)
        self._later.ask()

    def discard(self, waiting: Waiting) -> None:
        """Look after one no more, if it is looked after."""
        self._waiting.discard(waiting)

    def _look(self) -> None:
        if not self._waiting:
            return
        self._later.ask()
        now_s = time.monotonic()
        for waiting in [each for each in self._waiting if each.due_s <= now_s]:
            self._waiting.discard(waiting)
            waiting.expire()
