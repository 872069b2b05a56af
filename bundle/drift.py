"""Drift: whether the inputs of today are spread as those that the evidence was gathered on.

Counts are compared, which add up over processes, with the counts of the evidence. Each test gives a p-value
and an effect: with enough rows every difference is certain, and a small one matters to nobody.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bundle.conformal import Floats
from bundle.distributions import beta_binomial_tail, chi_square_tail
from bundle.evidence import Evidence

# Both scores together: an input of which one has a p-value of at most half of this. It sees small shares of
# foreign inputs better than any comparison of whole histograms.
EXCEEDANCE_ALPHA = 0.02
# Drift is what is as certain as this and at least as large as that.
ALARM_P_VALUE = 0.001
ALARM_EFFECT = 0.02
# More labels are not counted one by one.
MOST_LABELS = 50
# Neighbouring bins are counted together until the evidence holds so many; in emptier ones the statistic is
# not spread as chi-square says.
_LEAST_COUNT = 5
# Of a confusion matrix: beyond this, what it gives back is mostly noise.
_WORST_CONDITION = 1e4


class Finding(NamedTuple):
    """What one test of one signal says.

    Attributes:
        effect: population stability index, in nats.
        p_value: of a difference at least so large while nothing has changed.
    """

    signal: str
    test: str
    effect: float
    p_value: float

    @property
    def alarms(self) -> bool:
        """Whether it is certain and large enough."""
        return self.p_value < ALARM_P_VALUE and self.effect >= ALARM_EFFECT


@dataclass(frozen=True)
class Spread:
    """How the answers to some inputs are spread.

    Attributes:
        confidence, novelty: counts between the edges of the evidence's references.
        labels: how often each label was answered; empty where there are too many.
        exceeding: inputs with a novelty p-value of at most `EXCEEDANCE_ALPHA`.
        sum_confidence: of all.
    """

    confidence: NDArray[np.int64]
    novelty: NDArray[np.int64]
    labels: NDArray[np.int64]
    exceeding: int
    sum_confidence: float

    @property
    def rows(self) -> int:
        """How many inputs."""
        return int(self.confidence.sum())

    def __add__(self, other: Spread) -> Spread:
        """Return how both together are spread."""
        return Spread(
            self.confidence + other.confidence,
            self.novelty + other.novelty,
            self.labels + other.labels,
            self.exceeding + other.exceeding,
            self.sum_confidence + other.sum_confidence,
        )


def no_spread(evidence: Evidence) -> Spread:
    """Return that of no inputs."""
    references = evidence.facts.references
    labels = len(evidence.facts.confusion)
    return Spread(
        np.zeros(len(references["confidence"].counts), np.int64),
        np.zeros(len(references["novelty"].counts), np.int64),
        np.zeros(labels if labels <= MOST_LABELS else 0, np.int64),
        0,
        0.0,
    )


def spread_of(
    evidence: Evidence, confidences: Floats, novelty: Floats, answers: NDArray[np.integer]
) -> Spread:
    """Return how some answers are spread.

    Args:
        confidences: (n,) calibrated.
        novelty: (n,) p-values.
        answers: (n,) indices of labels.
    """
    references = evidence.facts.references
    labels = len(evidence.facts.confusion)
    return Spread(
        _histogram(confidences, references["confidence"].edges),
        _histogram(novelty, references["novelty"].edges),
        np.bincount(answers, minlength=labels) if labels <= MOST_LABELS else np.zeros(0, np.int64),
        int((novelty <= EXCEEDANCE_ALPHA).sum()),
        float(confidences.sum()),
    )


def compare(evidence: Evidence, spread: Spread) -> list[Finding]:
    """Hold some inputs, at least one, against the evidence with every test that there is."""
    references = evidence.facts.references
    found = [
        _psi("confidence", references["confidence"].counts, spread.confidence),
        _psi("novelty", references["novelty"].counts, spread.novelty),
        _exceedance(evidence.facts.n, spread),
    ]
    if spread.labels.size:
        found.append(_psi("label", np.sum(evidence.facts.confusion, axis=0), spread.labels))
    return found


def stability_index(reference: NDArray[np.integer], found: NDArray[np.integer]) -> tuple[float, float]:
    """Return the population stability index of two histograms, and the p-value of one at least so large.

    The index is the sum of (a - b) ln(a / b) over the bins, of shares whose counts were increased by .5.
    While both are draws of one distribution, it is spread as (1/N + 1/M) chi-square with one degree less than
    there are bins (Yurdakul and Naranjo 2020).

    Args:
        reference, found: (bins,) counts, at least one in each.
    """
    reference, found = _merged(reference, found)
    n, m = int(found.sum()), int(reference.sum())
    a, b = ((counts + 0.5) / (counts.sum() + 0.5 * len(counts)) for counts in (found, reference))
    index = float(((a - b) * np.log(a / b)).sum())
    if len(reference) < 2:
        return index, 1.0
    return index, chi_square_tail(index / (1 / n + 1 / m), len(reference) - 1)


def exceedance_p_value(n: int, rows: int, exceeding: int) -> float:
    """Return the p-value of so many rows with a novelty p-value of at most `EXCEEDANCE_ALPHA`, or of more.

    Each score's own p-value of a new input is at most half of that with a probability that is itself a draw
    of Beta(k, n + 1 - k), k = floor(half (n + 1)), because it depends on the n held-out inputs; both together
    at most twice as often. With many of them this is the binomial tail.

    Args:
        n: inputs of the conformal split.
    """
    k = 2 * math.floor(round(EXCEEDANCE_ALPHA / 2 * (n + 1), 9))
    return beta_binomial_tail(exceeding, rows, k, n + 1 - k) if k else 1.0


def estimate_priors(
    confusion: Sequence[Sequence[int]], labels: NDArray[np.integer]
) -> NDArray[np.float64] | None:
    """Return how often each label is right, from how often each was answered, if nothing else has changed.

    With C[i, j] the share of test inputs of label j that are answered i, and m the shares of the answers of
    today, the weights w of C w = m say how much more often each label comes than it did (Lipton, Wang and
    Smola 2018); negative ones are noise, and count as 0.

    Args:
        confusion: [right label][answer] -> counts of the test split.
        labels: (labels,) counts of the answers of today, at least one.

    Returns:
        (labels,) shares, or None where the matrix tells labels apart too badly.
    """
    counts = np.asarray(confusion, np.float64)
    joint = counts.T / max(counts.sum(), 1.0)
    if np.linalg.cond(joint) > _WORST_CONDITION:
        return None
    weights = np.linalg.solve(joint, labels / labels.sum())
    priors = np.maximum(weights * joint.sum(axis=0), 0.0)
    return np.asarray(priors / priors.sum(), np.float64)


def _psi(signal: str, reference: Sequence[int] | NDArray[np.integer], found: NDArray[np.integer]) -> Finding:
    return Finding(signal, "psi", *stability_index(np.asarray(reference), found))


def _exceedance(n: int, spread: Spread) -> Finding:
    """Its effect is the index of the two bins; fewer than expected are no drift."""
    rows, exceeding = spread.rows, spread.exceeding
    share = exceeding / rows
    effect = 0.0
    if share > EXCEEDANCE_ALPHA:
        a = (exceeding + 0.5) / (rows + 1)
        odds = (a / EXCEEDANCE_ALPHA, (1 - a) / (1 - EXCEEDANCE_ALPHA))
        effect = (a - EXCEEDANCE_ALPHA) * (math.log(odds[0]) - math.log(odds[1]))
    return Finding("novelty", "exceedance", effect, exceedance_p_value(n, rows, exceeding))


def _merged(
    reference: NDArray[np.integer], found: NDArray[np.integer]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Both histograms with neighbouring bins put together until each has `_LEAST_COUNT` of the reference."""
    starts, inside = [], _LEAST_COUNT
    for place, count in enumerate(reference.tolist()):
        if inside >= _LEAST_COUNT:
            starts.append(place)
            inside = 0
        inside += count
    if inside < _LEAST_COUNT and len(starts) > 1:
        starts.pop()
    return np.add.reduceat(reference, starts), np.add.reduceat(found, starts)


def _histogram(values: Floats, edges: Sequence[float]) -> NDArray[np.int64]:
    return np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)
