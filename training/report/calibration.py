"""How far confidences are from how often answers are right, by several measures; none sees all of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from training.report.answers import Answers, Bools, Floats
from training.scores import (
    ECE_BINS,
    calibration_p_value,
    expected_calibration_error,
    null_quantile,
    score,
)


@dataclass(frozen=True)
class CalibrationBin:
    """Answers whose confidence lies in (low, high].

    Attributes:
        confidence, accuracy: their means; None where there are no answers.
        ci95: Clopper-Pearson interval of the accuracy; (0, 1) where there are none.
    """

    low: float
    high: float
    n: int
    confidence: float | None
    accuracy: float | None
    ci95: tuple[float, float]


@dataclass(frozen=True)
class Calibration:
    """The calibration of a graph's confidences.

    Attributes:
        ece15: expected calibration error over 15 bins of equal width; see `training.scores`.
        ece15_uncalibrated: the same at temperature 1.
        null_q95: the error that a calibrated model of such confidences exceeds in one of twenty draws.
        null_p_value: how often a calibrated model has an error at least as large as `ece15`.
        ece15_equal_mass: the same over 15 bins of equal number.
        l2_debiased: root of the mean squared error over those, less what chance adds (Kumar et al. 2019).
        bins: of equal width.
    """

    ece15: float
    ece15_uncalibrated: float
    null_q95: float
    null_p_value: float
    ece15_equal_mass: float
    l2_debiased: float
    bins: tuple[CalibrationBin, ...]


def measure_calibration(answers: Answers) -> Calibration:
    """Measure the calibration of a graph's answers."""
    confidences, correct = answers.confidences, answers.correct
    return Calibration(
        ece15=expected_calibration_error(confidences, correct),
        ece15_uncalibrated=score(answers.outputs.logits, answers.labels).ece,
        null_q95=null_quantile(confidences),
        null_p_value=calibration_p_value(confidences, correct),
        ece15_equal_mass=equal_mass_error(confidences, correct),
        l2_debiased=debiased_error(confidences, correct),
        bins=bins_of_equal_width(confidences, correct),
    )


def equal_mass_error(confidences: Floats, correct: Bools, bins: int = ECE_BINS) -> float:
    """Return the calibration error over bins that hold equally many answers, by growing confidence."""
    parts = _parts(confidences, bins)
    gaps = (abs(float(correct[part].mean() - confidences[part].mean())) * len(part) for part in parts)
    return math.fsum(gaps) / len(confidences)


def debiased_error(confidences: Floats, correct: Bools, bins: int = ECE_BINS) -> float:
    """Return the root mean square calibration error over such bins, less what chance adds to it.

    sqrt(max(0, sum_b n_b / n ((conf_b - acc_b)^2 - acc_b (1 - acc_b) / (n_b - 1)))): Kumar, Liang and Ma
    2019, section 5. Bins of one answer, whose chance cannot be told, are left out.
    """
    total = 0.0
    for part in _parts(confidences, bins):
        if len(part) < 2:
            continue
        accuracy = float(correct[part].mean())
        gap = accuracy - float(confidences[part].mean())
        total += len(part) * (gap**2 - accuracy * (1 - accuracy) / (len(part) - 1))
    return math.sqrt(max(0.0, total / len(confidences)))


def bins_of_equal_width(
    confidences: Floats, correct: Bools, bins: int = ECE_BINS
) -> tuple[CalibrationBin, ...]:
    """Return the bins of the expected calibration error, with how often answers in each were right."""
    bin_of = np.clip(np.ceil(confidences * bins).astype(np.int64) - 1, 0, bins - 1)
    found = []
    for b in range(bins):
        inside = bin_of == b
        n = int(inside.sum())
        right = int(correct[inside].sum())
        found.append(
            CalibrationBin(
                low=b / bins,
                high=(b + 1) / bins,
                n=n,
                confidence=float(confidences[inside].mean()) if n else None,
                accuracy=right / n if n else None,
                ci95=share_interval(right, n),
            )
        )
    return tuple(found)


def share_interval(count: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return the Clopper-Pearson interval of a share; (0, 1) of nothing."""
    if n == 0:
        return 0.0, 1.0
    found = stats.binomtest(count, n).proportion_ci(level, method="exact")
    return float(found.low), float(found.high)


def _parts(confidences: Floats, bins: int) -> list[NDArray[np.intp]]:
    parts = np.array_split(np.argsort(confidences, kind="stable"), bins)
    return [part for part in parts if len(part)]
