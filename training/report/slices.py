"""The same figures for parts of the test split: a good average may hide a bad part."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.report.answers import Answers, Subject
from training.report.calibration import share_interval
from training.scores import expected_calibration_error

# Of the prediction sets whose coverage is told.
ALPHA = 0.05


@dataclass(frozen=True)
class Slice:
    """Figures of the rows of one label or group.

    Attributes:
        ci95: Clopper-Pearson interval of the accuracy.
        confidence: their mean; ece15, over so few rows, is mostly chance.
        coverage: share of prediction sets at alpha .05 that hold the right label, before the answer itself is
            put in; None without evidence.
        false_flags: share with a novelty p-value of at most .05.
    """

    name: str
    n: int
    accuracy: float
    ci95: tuple[float, float]
    confidence: float
    ece15: float
    coverage: float | None
    false_flags: float | None


def measure_slices(subject: Subject, answers: Answers) -> dict[str, tuple[Slice, ...]]:
    """Return kind ("label", "group") -> slices, by name."""
    return {
        kind: tuple(_measure(str(name), names == name, answers) for name in _in_order(kind, names, subject))
        for kind, names in subject.kinds()
    }


def _in_order(kind: str, names: NDArray[np.str_], subject: Subject) -> list[str]:
    present = set(names.tolist())
    return (
        [each for each in subject.manifest.labels if each in present] if kind == "label" else sorted(present)
    )


def _measure(name: str, inside: NDArray[np.bool_], answers: Answers) -> Slice:
    n, right = int(inside.sum()), int(answers.correct[inside].sum())
    p_values = answers.p_values("marginal")
    coverage = flags = None
    if p_values is not None and answers.novelty is not None:
        of_right = p_values[np.arange(len(inside)), answers.labels]
        coverage = float((of_right[inside] > ALPHA).mean())
        flags = float((answers.novelty[inside] <= 0.05).mean())
    return Slice(
        name=name,
        n=n,
        accuracy=right / n,
        ci95=share_interval(right, n),
        confidence=float(answers.confidences[inside].mean()),
        ece15=expected_calibration_error(answers.confidences[inside], answers.correct[inside]),
        coverage=coverage,
        false_flags=flags,
    )
