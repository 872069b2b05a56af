"""How often two graphs gave the same label of late, and whether that is too seldom to be chance."""

from __future__ import annotations

import math
from collections import deque
from functools import lru_cache

# Comparisons that are looked back on, and the fewest that allow a conclusion.
MOST, LEAST = 1000, 500
# How improbable so many flips must be where the agreement is just at its bound. It is asked after every
# comparison, so it is far smaller than for a question that is asked once.
SIGNIFICANCE = 1e-6


class Agreement:
    """The last comparisons of one version of a model, held against the agreement that it must keep.

    Args:
        bound: share of comparisons that must agree, in (0, 1).
    """

    def __init__(self, bound: float) -> None:
        self._bound = bound
        self._agreed: deque[bool] = deque(maxlen=MOST)
        self._flips = 0

    @property
    def n(self) -> int:
        """How many comparisons are looked back on."""
        return len(self._agreed)

    @property
    def share(self) -> float:
        """Share of them that agree; there must be some."""
        return 1 - self._flips / self.n

    def note(self, *, agreed: bool) -> None:
        """Note one more comparison."""
        if self.n == MOST:
            self._flips -= not self._agreed[0]
        self._agreed.append(agreed)
        self._flips += not agreed

    @property
    def is_broken(self) -> bool:
        """Whether the agreement is below its bound, beyond reasonable doubt.

        The test is one-sided and exact: if comparisons agreed with a probability of `bound`, so many flips
        would be seen with a probability of less than `SIGNIFICANCE` (which says that the upper limit of
        Clopper and Pearson for the agreement, at that significance, is below the bound).
        """
        if self.n < LEAST or self._flips <= self.n * (1 - self._bound):
            return False
        return self._flips >= _fewest_flips(self.n, 1 - self._bound)


@lru_cache(MOST)
def _fewest_flips(n: int, probability: float) -> int:
    """Return the smallest k with P(Binomial(n, probability) >= k) < SIGNIFICANCE, or n + 1."""
    tail = 0.0
    for flips in range(n, -1, -1):
        tail += math.exp(
            math.lgamma(n + 1)
            - math.lgamma(flips + 1)
            - math.lgamma(n - flips + 1)
            + flips * math.log(probability)
            + (n - flips) * math.log1p(-probability)
        )
        if tail >= SIGNIFICANCE:
            return flips + 1
    return 0
