"""Live figures: what feedback says of the answers of one version of a model, over the last of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from bundle.evidence import Evidence
from bundle.outcomes import (
    BINS,
    bin_of_confidence,
    calibration_error,
    coverage_band,
    null_calibration_error,
    wilson_interval,
)
from service.monitoring.tokens import FIXED_ALPHAS, Claim

# The figures are of the last so many labels, or up to twice as many.
_GENERATION = 1_000


@dataclass
class Sums:
    """What adds up over answers whose right label is known, and over processes.

    Attributes:
        counts, confidences, right: by bin of the confidence: answers, the sum of their confidences, and how
            many are right.
        accepted, accepted_right: those that the bundle's own policy accepted.
        judged: answers that carry sets.
        covered: for each of the fixed alphas, how many of those sets hold the right label.
    """

    counts: list[int] = field(default_factory=lambda: [0] * BINS)
    confidences: list[float] = field(default_factory=lambda: [0.0] * BINS)
    right: list[int] = field(default_factory=lambda: [0] * BINS)
    accepted: int = 0
    accepted_right: int = 0
    judged: int = 0
    covered: list[int] = field(default_factory=lambda: [0] * len(FIXED_ALPHAS))

    @property
    def n(self) -> int:
        """How many answers."""
        return sum(self.counts)

    def add(self, claim: Claim, label: int) -> None:
        """Count one more answer."""
        right = claim.answer == label
        place = bin_of_confidence(claim.confidence)
        self.counts[place] += 1
        self.confidences[place] += claim.confidence
        self.right[place] += right
        if claim.accepted:
            self.accepted += 1
            self.accepted_right += right
        if claim.sets is not None:
            self.judged += 1
            for place, held in enumerate(claim.sets):
                self.covered[place] += held >> label & 1

    def as_json(self) -> dict[str, Any]:
        """Return it as it travels between processes."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


def add_up(parts: Sequence[Mapping[str, Any]]) -> Sums:
    """Return the sum of what several processes, or none, have counted."""
    total = Sums()
    for part in parts:
        for name, value in part.items():
            old = getattr(total, name)
            added = [a + b for a, b in zip(old, value, strict=True)] if isinstance(old, list) else old + value
            setattr(total, name, added)
    return total


class Live:
    """The last outcomes of one version of a model: those of this generation and of the one before it."""

    def __init__(self) -> None:
        self._now = Sums()
        self._before = Sums()

    def add(self, claim: Claim, label: int) -> None:
        """Count one more answer."""
        if self._now.n >= _GENERATION:
            self._before, self._now = self._now, Sums()
        self._now.add(claim, label)

    @property
    def sums(self) -> Sums:
        """Those of both together."""
        return add_up([self._before.as_json(), self._now.as_json()])


def figures(sums: Sums, evidence: Evidence | None) -> dict[str, Any]:
    """Return what the outcomes of at least one answer say, each figure with its band."""
    counts, right = np.array(sums.counts), np.array(sums.right)
    confidences = np.array(sums.confidences)
    found: dict[str, Any] = {
        "n": sums.n,
        "accuracy": sum(sums.right) / sums.n,
        "accuracy_ci95": wilson_interval(sum(sums.right), sums.n),
        "ece": calibration_error(counts, confidences, right),
        "ece_null95": null_calibration_error(counts, confidences),
        "coverage": [],
        "accepted": None,
    }
    if evidence is None or not sums.judged:
        return found
    found["coverage"] = [
        {
            "alpha": alpha,
            "n": sums.judged,
            "coverage": covered / sums.judged,
            "band95": coverage_band(evidence.facts.n, alpha, sums.judged),
        }
        for alpha, covered in zip(FIXED_ALPHAS, sums.covered, strict=True)
    ]
    wrong = sums.accepted - sums.accepted_right
    found["accepted"] = {
        "n": sums.accepted,
        "wrong": wrong,
        "risk": wrong / sums.accepted if sums.accepted else None,
        "risk_ci95": wilson_interval(wrong, sums.accepted),
        "target_risk": evidence.facts.default_target_risk,
    }
    return found
