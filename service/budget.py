"""A budget: how often something may be done, where doing it always would cost others too much."""

from __future__ import annotations

import time
from collections.abc import Callable


class Budget:
    """Allows so much a second, and a second's worth at once after a rest.

    Args:
        per_s: how much; 0 for nothing.
        clock: seconds that only grow.

    Attributes:
        per_s: it may be changed at any time.
    """

    def __init__(self, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_s = per_s
        self._clock = clock
        self._left = per_s
        self._looked_s = clock()

    def take(self, n: float = 1.0) -> bool:
        """Take n where anything is left; what is taken beyond that is missing later."""
        now_s = self._clock()
        self._left = min(self.per_s, self._left + (now_s - self._looked_s) * self.per_s)
        self._looked_s = now_s
        if self._left <= 0:
            return False
        self._left -= n
        return True
