"""Windows: the answers of a while, held against the evidence when there are enough of them.

A window ends when it has enough rows and is old enough: tests made too often would raise alarms by chance.
Drift in two windows in a row makes the calibration stale; two windows in a row without any make it valid.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from bundle.drift import Finding, Spread, compare, no_spread
from bundle.evidence import Evidence

LEAST_ROWS = 500
SHORTEST_S = 60.0
# A window that is not full by then is thrown away: its rows are no longer those of one while.
LONGEST_S = 24 * 3600.0
_IN_A_ROW = 2


class Windows:
    """The windows of one version of a model, one after the other.

    Args:
        clock: seconds that only grow.

    Attributes:
        last: the last one that ended, or None.
        findings: what the tests said of it.
        is_stale: whether the calibration is not to be trusted any more.
        rows: that were added in all.
    """

    def __init__(self, evidence: Evidence, clock: Callable[[], float]) -> None:
        self._evidence = evidence
        self._clock = clock
        self._open = no_spread(evidence)
        self._began_s = clock()
        self._alarms: Counter[tuple[str, str]] = Counter()
        self._fine = 0
        self.last: Spread | None = None
        self.findings: list[Finding] = []
        self.is_stale = False
        self.rows = 0

    def add(self, spread: Spread) -> bool:
        """Add some rows; return whether a window has ended with them."""
        now_s = self._clock()
        if now_s - self._began_s > LONGEST_S:
            self._begin(now_s)
        self._open += spread
        self.rows += spread.rows
        if self._open.rows < LEAST_ROWS or now_s - self._began_s < SHORTEST_S:
            return False
        self.last = self._open
        self._begin(now_s)
        self._judge(compare(self._evidence, self.last))
        return True

    def _begin(self, now_s: float) -> None:
        self._open = no_spread(self._evidence)
        self._began_s = now_s

    def _judge(self, findings: list[Finding]) -> None:
        self.findings = findings
        alarming = [(each.signal, each.test) for each in findings if each.alarms]
        self._alarms = Counter({each: self._alarms[each] + 1 for each in alarming})
        self._fine = 0 if alarming else self._fine + 1
        if max(self._alarms.values(), default=0) >= _IN_A_ROW:
            self.is_stale = True
        elif self._fine >= _IN_A_ROW:
            self.is_stale = False
