"""The tap: shows runs that are over to those who look at them later, and keeps nobody waiting.

Whoever monitors, compares or collects what a model does is an observer here. It sees whole runs a moment
after their answers were handed over, on the event loop, so what takes long it does elsewhere; what goes wrong
in one is logged, and touches neither the answers nor other observers.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from bundle.answer import Answer
from bundle.predictor import Predictor
from bundle.rows import Row
from service.metrics import GATHER_S
from service.turn import Together

logger = logging.getLogger(__name__)

# Runs that are kept for the observers; more within one `GATHER_S` are not shown.
_MOST_RUNS = 1024


class Shown(NamedTuple):
    """One run that is over.

    Attributes:
        predictor: of the version that ran.
        rows: what ran, in the order of the answers.
        answers: all of one run. What one of them computes when first asked, it keeps: who asks for its
            judgement may find it made already, by the caller's own question.
    """

    predictor: Predictor
    rows: Sequence[Row]
    answers: Sequence[Answer]


class Observer(Protocol):
    """Who looks at runs."""

    def observe(self, runs: Sequence[Shown]) -> None:
        """Look at some runs, of whatever models, quickly."""


class Tap:
    """Hands runs on to observers, `GATHER_S` later and many together."""

    def __init__(self) -> None:
        self._observers: list[Observer] = []
        self._runs: list[Shown] = []
        self._later = Together(self.hand_on, GATHER_S)

    def add(self, observer: Observer) -> None:
        """Show every run from now on to one more observer."""
        self._observers.append(observer)

    def ran(self, predictor: Predictor, rows: Sequence[Row], answers: Sequence[Answer]) -> None:
        """Take note of a run. Call it on the event loop."""
        if self._observers and len(self._runs) < _MOST_RUNS:
            self._runs.append(Shown(predictor, rows, answers))
            self._later.ask()

    def hand_on(self) -> None:
        """Show the observers what has been noted; it happens by itself soon after."""
        runs, self._runs = self._runs, []
        for observer in self._observers if runs else ():
            try:
                observer.observe(runs)
            except Exception:  # an observer must not harm a caller
                logger.exception("%s failed to look at %d runs", type(observer).__name__, len(runs))
