"""What the evidence says of answers just given: of a whole batch at once, because each numpy call costs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bundle.conformal import lac_scores, p_values
from bundle.evidence import Bin, Evidence, Threshold
from bundle.novelty import energy, novelty_p_values


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the evidence says of one answer, in plain Python numbers.

    Attributes:
        label_p_values: (labels,) of each label being right: the share of right labels of the conformal split
            that fit no better.
        novelty_p_value: share of inputs of that split that look at most as familiar, by both scores together.
        energy, energy_p_value, familiarity, familiarity_p_value: see `bundle.novelty`.
    """

    label_p_values: list[float]
    novelty_p_value: float
    energy: float
    energy_p_value: float
    familiarity: float
    familiarity_p_value: float


def judge(
    evidence: Evidence,
    logits: NDArray[np.floating],
    features: NDArray[np.floating],
    probabilities: NDArray[np.floating],
) -> list[Judgement]:
    """Say of every answer of a run what the evidence says of it.

    Args:
        logits: (n, labels).
        features: (n, size).
        probabilities: (n, labels), of the evidence's temperature.
    """
    energies = energy(logits)
    familiarities = evidence.classes.familiarity(features)
    together, (of_energy, of_familiarity) = novelty_p_values(
        (evidence.energy, evidence.familiarity), (energies, familiarities)
    )
    of_labels = p_values(evidence.lac, lac_scores(probabilities))
    columns = (together, energies, of_energy, familiarities, of_familiarity)
    return list(map(Judgement, of_labels.tolist(), *(column.tolist() for column in columns)))


def bin_of(evidence: Evidence, confidence: float) -> Bin:
    """Return the bin that a confidence falls into."""
    return next(each for each in evidence.facts.bins if confidence <= each.high)


def threshold_for(evidence: Evidence, target_risk: float) -> Threshold | None:
    """Return the threshold that keeps a target risk: the loosest that was proven for it or a smaller one."""
    proven = [each for each in evidence.facts.thresholds if each.target_risk <= target_risk]
    return min(proven, key=lambda each: each.threshold, default=None)


def credibility(p_values_of_labels: list[float]) -> float:
    """Return the largest p-value of a label: small where none fits."""
    return max(p_values_of_labels)


def conformal_confidence(p_values_of_labels: list[float]) -> float:
    """Return one minus the second largest p-value: how surely all labels but one can be excluded."""
    return 1.0 - sorted(p_values_of_labels)[-2]


def label_set(p_values_of_labels: list[float], alpha: float, best: int) -> tuple[list[int], bool]:
    """Return the labels of the prediction set, best first, and whether the answer itself had to be put in.

    Args:
        best: the label that is answered. It is always in the set: more labels cover no less.
    """
    inside = [label for label, p in enumerate(p_values_of_labels) if p > alpha]
    inside.sort(key=lambda label: -p_values_of_labels[label])
    forced = best not in inside
    return ([best, *inside] if forced else inside), forced
