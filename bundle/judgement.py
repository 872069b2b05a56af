"""What the evidence says of answers just given: of a whole batch at once, because each numpy call costs."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bundle.conformal import Floats, lac_scores, p_values
from bundle.evidence import Evidence, Threshold
from bundle.novelty import energy, novelty_p_values


class Judgement(NamedTuple):
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


@dataclass(frozen=True, slots=True)
class Judged:
    """What the evidence says of n answers, as arrays; see `Judgement`.

    Attributes:
        answers: (n,) the most probable label of each.
        confidences: (n,) its calibrated probability.
        label_p_values: (n, labels).
        novelty_p_values, energies, energy_p_values, familiarities, familiarity_p_values: (n,).
    """

    answers: NDArray[np.intp]
    confidences: Floats
    label_p_values: Floats
    novelty_p_values: Floats
    energies: Floats
    energy_p_values: Floats
    familiarities: Floats
    familiarity_p_values: Floats

    @staticmethod
    def joined(parts: Sequence[Judged]) -> Judged:
        """Return what is said of the answers of several, at least one, one after the other."""
        if len(parts) == 1:
            return parts[0]
        names = [each.name for each in fields(Judged)]
        return Judged(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def one_by_one(self) -> list[Judgement]:
        """Return that of each answer."""
        columns = (
            self.label_p_values,
            self.novelty_p_values,
            self.energies,
            self.energy_p_values,
            self.familiarities,
            self.familiarity_p_values,
        )
        return list(map(Judgement, *(column.tolist() for column in columns)))


def judge(
    evidence: Evidence,
    logits: NDArray[np.floating],
    features: NDArray[np.floating],
    probabilities: NDArray[np.floating],
) -> Judged:
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
    return Judged(
        answers=logits.argmax(axis=1),
        confidences=probabilities.max(axis=1),
        label_p_values=p_values(evidence.lac, lac_scores(probabilities)),
        novelty_p_values=together,
        energies=energies,
        energy_p_values=of_energy,
        familiarities=familiarities,
        familiarity_p_values=of_familiarity,
    )


def observed_bin(evidence: Evidence, confidence: float) -> dict[str, Any]:
    """Return what was observed of answers with such a confidence."""
    edges = evidence.bin_edges
    return evidence.observed[bisect_left(edges, confidence, hi=len(edges) - 1)]


def threshold_for(evidence: Evidence, target_risk: float) -> Threshold | None:
    """Return the threshold that keeps a target risk: the loosest that was proven for it or a smaller one."""
    proven = [each for each in evidence.facts.thresholds if each.target_risk <= target_risk]
    return min(proven, key=lambda each: each.threshold, default=None)


def refusals(
    evidence: Evidence, judgement: Judgement, confidence: float, threshold: Threshold | None
) -> list[str]:
    """Return why an answer is not accepted: "ood", "low_confidence", "no_threshold"; none where it is."""
    reasons = []
    if judgement.novelty_p_value <= evidence.facts.novelty_alpha:
        reasons.append("ood")
    if threshold is None:
        reasons.append("no_threshold")
    elif confidence < threshold.threshold:
        reasons.append("low_confidence")
    return reasons


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
    if len(inside) > 1:
        inside.sort(key=lambda label: -p_values_of_labels[label])
    forced = best not in inside
    return ([best, *inside] if forced else inside), forced
