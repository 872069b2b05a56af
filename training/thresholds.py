"""Thresholds of confidence with a guarantee: of the answers that are accepted, few enough are wrong.

Learn then Test with a fixed sequence (Angelopoulos, Bates, Candès, Jordan and Lei 2021): the thresholds are
tried from the strictest on; one passes while the Clopper-Pearson bound of the error rate among what it
accepts is at most the target; the first that fails ends it. With probability at least 1 - delta over the
held-out inputs, the true rate of what the last one accepts is at most the target. Picking the loosest
threshold whose observed rate is low enough breaks its promise about half of the time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

# Thresholds tried: quantiles of the confidences, so that each accepts a little more than the one before.
_STEPS = 200
# The strictest threshold accepts so many that it would pass with this many errors. Where to begin may be
# chosen freely, as long as no error is looked at; with 0, one wrong label in the data would end it at once.
_ERRORS_AT_FIRST = 1


@dataclass(frozen=True)
class Threshold:
    """What keeps the error rate of accepted answers at most `target_risk`, with probability 1 - `delta`.

    Attributes:
        threshold: an answer is accepted if its confidence is at least this.
        n, errors: held-out answers that it accepts, and how many of those are wrong.
        coverage: share of all held-out answers that it accepts.
        bound: upper confidence bound of the error rate among them, at most `target_risk`.
    """

    target_risk: float
    delta: float
    threshold: float
    n: int
    errors: int
    coverage: float
    bound: float


def upper_bound(errors: int, n: int, delta: float) -> float:
    """Return the Clopper-Pearson upper bound of an error rate: too low with probability at most delta."""
    return 1.0 if errors >= n else float(stats.beta.ppf(1 - delta, errors + 1, n - errors))


def learn_threshold(
    confidences: NDArray[np.floating],
    correct: NDArray[np.bool_],
    eligible: NDArray[np.bool_],
    target_risk: float,
    delta: float,
) -> Threshold | None:
    """Return the loosest threshold that is proven, or None where none is.

    Args:
        confidences: (n,) of held-out answers.
        correct: (n,) whether each is right.
        eligible: (n,) whether the rest of the rule accepts it: the threshold is judged by the whole rule.
        target_risk: 0..1, exclusive.
        delta: 0..1, exclusive.
    """
    scores, right = confidences[eligible], correct[eligible]
    if not len(scores):
        return None
    best = None
    for candidate in np.unique(np.quantile(scores, np.linspace(0, 1, _STEPS), method="lower"))[::-1]:
        accepted = scores >= candidate
        n, errors = int(accepted.sum()), int((~right[accepted]).sum())
        if upper_bound(_ERRORS_AT_FIRST, n, delta) > target_risk:
            continue  # the sequence begins with what accepts more
        bound = upper_bound(errors, n, delta)
        if bound > target_risk:
            break
        best = Threshold(target_risk, delta, float(candidate), n, errors, n / len(confidences), bound)
    return best
