"""Calibration errors against naive loops, intervals against the Beta law."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from training.report.answers import Answers
from training.report.calibration import (
    bins_of_equal_width,
    debiased_error,
    equal_mass_error,
    measure_calibration,
    share_interval,
)
from training.scores import expected_calibration_error


def draw(seed: int, n: int = 217) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    confidences = random.beta(5, 1, n)
    return confidences, random.random(n) < confidences**2


def naive_parts(confidences: np.ndarray, bins: int) -> list[list[int]]:
    """Equally many in each; the first ones get what is left over."""
    order = sorted(range(len(confidences)), key=lambda i: confidences[i])
    size, left = divmod(len(order), bins)
    parts, start = [], 0
    for b in range(bins):
        end = start + size + (b < left)
        parts.append(order[start:end])
        start = end
    return [part for part in parts if part]


@settings(deadline=None)
@given(st.integers(0, 1_000), st.integers(1, 300))
def test_the_errors_over_equal_numbers_are_those_of_a_naive_loop(seed: int, n: int) -> None:
    confidences, correct = draw(seed, n)
    mass = squares = 0.0
    for part in naive_parts(confidences, 15):
        accuracy = sum(bool(correct[i]) for i in part) / len(part)
        confidence = sum(confidences[i] for i in part) / len(part)
        mass += len(part) / n * abs(accuracy - confidence)
        if len(part) > 1:
            chance = accuracy * (1 - accuracy) / (len(part) - 1)
            squares += len(part) / n * ((confidence - accuracy) ** 2 - chance)
    assert equal_mass_error(confidences, correct) == pytest.approx(mass)
    assert debiased_error(confidences, correct) == pytest.approx(math.sqrt(max(0.0, squares)), abs=1e-9)


def test_the_debiased_error_finds_the_true_one_where_the_plain_one_is_too_large() -> None:
    random = np.random.default_rng(0)
    confidences = random.uniform(0.5, 1, 4000)
    shifted = confidences - 0.1
    found = [debiased_error(confidences, random.random(4000) < shifted) for _ in range(40)]
    assert np.mean(found) == pytest.approx(0.1, abs=0.003)
    none = [debiased_error(confidences, random.random(4000) < confidences) for _ in range(40)]
    assert np.median(none) < 0.01


def test_the_bins_are_those_of_the_calibration_error() -> None:
    confidences, correct = draw(3)
    bins = bins_of_equal_width(confidences, correct)
    assert len(bins) == 15
    assert sum(each.n for each in bins) == len(confidences)
    gaps = [
        each.n * abs(each.accuracy - each.confidence)
        for each in bins
        if each.accuracy is not None and each.confidence is not None
    ]
    assert sum(gaps) / len(confidences) == pytest.approx(expected_calibration_error(confidences, correct))
    empty = next(each for each in bins if each.n == 0)
    assert (empty.accuracy, empty.confidence, empty.ci95) == (None, None, (0.0, 1.0))


@pytest.mark.parametrize(("count", "n"), [(0, 9), (9, 9), (3, 10), (990, 1000)])
def test_intervals_are_those_of_clopper_and_pearson(count: int, n: int) -> None:
    low, high = share_interval(count, n)
    expected_low = stats.beta.ppf(0.025, count, n - count + 1) if count else 0.0
    expected_high = stats.beta.ppf(0.975, count + 1, n - count) if count < n else 1.0
    assert (low, high) == (pytest.approx(expected_low), pytest.approx(expected_high))


def test_a_model_that_is_right_as_often_as_it_says_is_called_calibrated(int8: Answers) -> None:
    found = measure_calibration(int8)
    assert found.ece15 == expected_calibration_error(int8.confidences, int8.correct)
    assert found.null_p_value > 0.01
    assert found.ece15 < 3 * found.null_q95
