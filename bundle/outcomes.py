"""What the right labels tell of answers that were given: how often they were right, and if as often as said.

Everything is made of sums by bin, which add up over processes. Each figure comes with the band in which it
lies while the model is as good as its evidence says, because a figure of few labels is mostly noise.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from bundle.conformal import Floats
from bundle.distributions import beta_binomial_band

# Of confidences: of equal width, each with its upper edge, as in the evaluation of a bundle.
BINS = 15
_DRAWS = 1_000
_Z95 = 1.959963984540054


def bin_of_confidence(confidence: float) -> int:
    """Return the bin of a confidence, 0..`BINS` - 1."""
    return min(max(math.ceil(confidence * BINS) - 1, 0), BINS - 1)


def wilson_interval(right: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of which n were seen (Wilson 1927); (0, 1) where none was."""
    if n == 0:
        return 0.0, 1.0
    share, square = right / n, _Z95**2
    middle = (share + square / (2 * n)) / (1 + square / n)
    half = _Z95 / (1 + square / n) * math.sqrt(share * (1 - share) / n + square / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def calibration_error(
    counts: NDArray[np.integer], sums: NDArray[np.floating], right: NDArray[np.integer]
) -> float:
    """Return the expected calibration error: the mean of |accuracy - confidence| over the bins.

    Args:
        counts: (bins,) answers whose label is known, at least one in all.
        sums: (bins,) of their confidences.
        right: (bins,) how many of them are right.
    """
    return float(np.abs(right - sums).sum() / counts.sum())


def null_calibration_error(
    counts: NDArray[np.integer], sums: NDArray[np.floating], level: float = 0.95, seed: int = 0
) -> float:
    """Return the calibration error that a calibrated model exceeds in 1 - `level` of draws.

    The right answers of a bin are drawn from a binomial of its mean confidence. Within bins of a width of
    1/15 the confidences differ so little that it is hardly wider than with each answer's own.

    Args:
        counts, sums: as `calibration_error` has them.
    """
    filled = counts > 0
    n, total = counts[filled], sums[filled]
    drawn = np.random.default_rng(seed).binomial(n, np.clip(total / n, 0.0, 1.0), size=(_DRAWS, len(n)))
    errors: Floats = np.abs(drawn - total).sum(axis=1) / counts.sum()
    return float(np.quantile(errors, level))


def coverage_band(n_calibration: int, alpha: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return between which shares of n sets hold the right label, while inputs are like the held-out ones.

    The number that do is Beta-binomial with k and n_calibration + 1 - k, k = ceil((n_calibration + 1)
    (1 - alpha)), before the answer itself is put into sets that lack it (Angelopoulos and Bates 2023,
    section 3.2).

    Args:
        n_calibration: inputs of the conformal split.
        n: at least 1.
    """
    k = math.ceil(round((n_calibration + 1) * (1 - alpha), 9))
    if k > n_calibration:
        return 1.0, 1.0
    low, high = beta_binomial_band(n, k, n_calibration + 1 - k, level)
    return low / n, high / n
