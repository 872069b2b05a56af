"""Conformal prediction: p-values and prediction sets that hold their promise whatever the model is worth.

A score says how badly a label fits an input. Held-out inputs, which nothing was fitted on, give the scores of
right labels; a label whose score is among the worst of those has a small p-value. The set of labels with a
p-value over alpha holds the right one with a probability of at least 1 - alpha, on average over inputs that
are exchangeable with the held-out ones (Vovk, Gammerman and Shafer 2005; Sadinle, Lei and Wasserman 2019 for
LAC; Romano, Sesia and Candès 2020 for APS; Angelopoulos et al. 2021 for RAPS).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Of RAPS, as its authors use them for few classes: what each label beyond the second adds to a score.
RAPS_PENALTY = 0.05
RAPS_FREE_RANKS = 2


def quantile_of(scores: NDArray[np.floating], alpha: float) -> float:
    """Return the largest score that a label may have and still be in the set.

    It is the k-th smallest of the n scores, k = ceil((n + 1)(1 - alpha)); infinite where k > n, because so
    few scores cannot promise so much.

    Args:
        scores: (n,) of right labels, sorted.
        alpha: 0..1, exclusive.
    """
    n = len(scores)
    # The product is a whole number where it is meant to be one: 0.9 * 10 must not become 9.000000000000002.
    k = math.ceil(round((n + 1) * (1 - alpha), 9))
    return float(scores[k - 1]) if k <= n else math.inf


def p_values(scores: NDArray[np.floating], found: NDArray[np.floating]) -> Floats:
    """Return the share of right labels that fit no better than each score: (1 + #{s >= found}) / (n + 1).

    Args:
        scores: (n,) of right labels, sorted.
        found: of any shape.

    Returns:
        Float64 of the shape of `found`, over 0 and at most 1.
    """
    at_least = len(scores) - np.searchsorted(scores, found, side="left")
    return np.asarray((1.0 + at_least) / (len(scores) + 1.0), np.float64)


def p_values_by_label(scores: Sequence[NDArray[np.floating]], found: NDArray[np.floating]) -> Floats:
    """Return each label's p-values among the right labels of its own kind alone (Mondrian: Vovk et al. 2005).

    Sets made of them hold the right label with a probability of at least 1 - alpha for the inputs of each
    label, not only on average over all; see `least_scores`.

    Args:
        scores: for each label, those of its own inputs, sorted.
        found: (n, labels).

    Returns:
        (n, labels) float64.
    """
    columns = [p_values(own, found[:, label]) for label, own in enumerate(scores)]
    return np.stack(columns, axis=1)


def least_scores(alpha: float) -> int:
    """Return how many scores are needed for a p-value that is at most alpha: ceil(1 / alpha) - 1.

    With fewer no label can be excluded.
    """
    return math.ceil(round(1 / alpha, 9)) - 1


def lac_scores(probabilities: NDArray[np.floating]) -> Floats:
    """Return 1 - p of every label: the scores of the least ambiguous sets.

    Args:
        probabilities: (n, labels).
    """
    return 1.0 - np.asarray(probabilities, np.float64)


def raps_scores(
    probabilities: NDArray[np.floating],
    u: NDArray[np.floating],
    penalty: float = RAPS_PENALTY,
    free_ranks: int = RAPS_FREE_RANKS,
) -> Floats:
    """Return for every label the probability of those before it and a share of its own, and a rank penalty.

    S(x, y) = sum of p over the labels up to the rank of y - u p(y) + penalty * max(0, rank - free_ranks).
    Without a penalty these are the scores of APS.

    Args:
        probabilities: (n, labels).
        u: (n,) in 0..1, the share of its own probability that a label is spared; see `unit_of`.
    """
    wide = np.asarray(probabilities, np.float64)
    order = (-wide).argsort(axis=1, kind="stable")
    sorted_wide = np.take_along_axis(wide, order, axis=1)
    ranks = np.arange(1, wide.shape[1] + 1)
    sorted_scores = (
        sorted_wide.cumsum(axis=1)
        - np.asarray(u, np.float64)[:, np.newaxis] * sorted_wide
        + penalty * np.maximum(0, ranks - free_ranks)
    )
    scores = np.empty_like(wide)
    np.put_along_axis(scores, order, sorted_scores, axis=1)
    return scores


def unit_of(version: str, content: bytes) -> float:
    """Return the u of an input: the same for the same input and version, and spread evenly over 0..1.

    Drawn anew each time it would make an answer that cannot be repeated.
    """
    digest = hashlib.sha256(version.encode() + b"\0" + content).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
