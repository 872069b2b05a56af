"""The two laws that live figures are held against: chi-square and Beta-binomial. Exact, without scipy."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

# Terms of a series or a fraction; both converge within a few times the square root of what they are of.
_MOST_TERMS = 10_000
_PRECISION = 1e-15
# A tail is added up this many standard deviations beyond the mean; what lies further cannot be seen.
_REACH_SDS = 60


def chi_square_tail(x: float, degrees: int) -> float:
    """Return P(X >= x) of a chi-square variable: the regularised upper incomplete gamma Q(degrees/2, x/2).

    Args:
        degrees: of freedom, at least 1.
    """
    a, half = degrees / 2, x / 2
    if half <= 0:
        return 1.0
    scale = math.exp(a * math.log(half) - half - math.lgamma(a))
    if half < a + 1:
        return 1.0 - scale * _lower_series(a, half)
    return scale * _upper_fraction(a, half)


def _lower_series(a: float, x: float) -> float:
    """The sum of x^k / (a (a+1) … (a+k)): the lower incomplete gamma without its scale (DLMF 8.7.1)."""
    term = total = 1 / a
    for k in range(1, _MOST_TERMS):
        term *= x / (a + k)
        total += term
        if term < total * _PRECISION:
            break
    return total


def _upper_fraction(a: float, x: float) -> float:
    """The continued fraction of the upper incomplete gamma (DLMF 8.9.2), by the method of Lentz."""
    b = x + 1 - a
    c, d = math.inf, 1 / b
    fraction = d
    for k in range(1, _MOST_TERMS):
        numerator = -k * (k - a)
        b += 2
        d = 1 / (numerator * d + b)
        c = b + numerator / c
        fraction *= c * d
        if abs(c * d - 1) < _PRECISION:
            break
    return fraction


def beta_binomial_tail(x: int, n: int, a: float, b: float) -> float:
    """Return P(X >= x) of hits out of n whose probability is itself drawn from Beta(a, b).

    Args:
        x, n: 0 <= x <= n.
        a, b: over 0.
    """
    if x <= 0:
        return 1.0
    share = a / (a + b)
    sd = math.sqrt(n * share * (1 - share) * (1 + (n - 1) / (a + b + 1)))
    last = min(n, max(x, math.ceil(n * share)) + math.ceil(_REACH_SDS * sd))
    return float(min(1.0, np.exp(_log_probabilities(x, last, n, a, b)).sum()))


def beta_binomial_band(n: int, a: float, b: float, level: float) -> tuple[int, int]:
    """Return the smallest and the largest number of hits out of n in the middle `level` of Beta(a, b).

    Args:
        level: 0..1, exclusive; half of the rest lies at most on each side.
    """
    cumulated = np.exp(_log_probabilities(0, n, n, a, b)).cumsum()
    outside = (1 - level) / 2
    low, high = np.searchsorted(cumulated, (outside, 1 - outside))
    return int(low), int(min(high, n))


def _log_probabilities(first: int, last: int, n: int, a: float, b: float) -> NDArray[np.float64]:
    """The logarithms of P(X = x) for first <= x <= last: one by gamma functions, the others by ratios."""

    def log_beta(p: float, q: float) -> float:
        return math.lgamma(p) + math.lgamma(q) - math.lgamma(p + q)

    choices = math.lgamma(n + 1) - math.lgamma(first + 1) - math.lgamma(n - first + 1)
    begin = choices + log_beta(first + a, n - first + b) - log_beta(a, b)
    x = np.arange(first, last, dtype=np.float64)
    ratios = np.log((n - x) * (x + a)) - np.log((x + 1) * (n - x - 1 + b))
    return begin + np.concatenate(([0.0], ratios.cumsum()))
