"""Scores against naive loops and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss

from bundle.confidence import softmax
from training.scores import (
    ECE_BINS,
    brier_score,
    calibration_p_value,
    expected_calibration_error,
    negative_log_likelihood,
    null_quantile,
    score,
)


def draw(seed: int, n: int = 200, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.normal(size=(n, classes)).astype(np.float32), random.integers(0, classes, n)


def naive_ece(confidence: np.ndarray, correct: np.ndarray, bins: int) -> float:
    total = 0.0
    for b in range(bins):
        inside = [i for i, c in enumerate(confidence) if b / bins < c <= (b + 1) / bins]
        if inside:
            accuracy = sum(correct[i] for i in inside) / len(inside)
            mean_confidence = sum(confidence[i] for i in inside) / len(inside)
            total += len(inside) / len(confidence) * abs(accuracy - mean_confidence)
    return total


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40))
def test_the_calibration_error_is_that_of_a_naive_loop_over_bins(seed: int, bins: int) -> None:
    random = np.random.default_rng(seed)
    confidence = random.uniform(1e-6, 1, 60)
    correct = random.random(60) < confidence
    assert expected_calibration_error(confidence, correct, bins) == pytest.approx(
        naive_ece(confidence, correct, bins), abs=1e-12
    )


def test_bins_are_closed_on_the_right() -> None:
    # 0.5 ends the first of two bins: apart, the gaps add up; in one bin they would cancel.
    confidence = np.array([0.5, 0.75])
    correct = np.array([False, True])
    assert expected_calibration_error(confidence, correct, bins=2) == pytest.approx((0.5 + 0.25) / 2)


def test_full_confidence_falls_into_the_last_bin() -> None:
    assert expected_calibration_error(np.array([1.0, 1.0]), np.array([True, False])) == 0.5


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_scores_are_those_of_scikit_learn(seed: int, temperature: float) -> None:
    logits, labels = draw(seed)
    probabilities = softmax(logits, temperature)
    scores = score(logits, labels, temperature)
    classes = list(range(5))
    assert scores.n == 200
    assert scores.accuracy == accuracy_score(labels, logits.argmax(1))
    assert scores.nll == pytest.approx(log_loss(labels, probabilities, labels=classes), rel=1e-9)
    assert scores.brier == pytest.approx(
        brier_score_loss(labels, probabilities, labels=classes, scale_by_half=False), rel=1e-9
    )
    expected = naive_ece(probabilities.max(1), logits.argmax(1) == labels, ECE_BINS)
    assert scores.ece == pytest.approx(expected, abs=1e-12)


def test_the_likelihood_of_huge_logits_is_finite() -> None:
    logits = np.array([[1e4, 0.0], [0.0, 1e4]])
    assert negative_log_likelihood(logits, np.array([0, 0])) == pytest.approx(5e3)


def test_the_brier_score_goes_from_0_to_2_and_leaves_its_argument_alone() -> None:
    probabilities = np.array([[1.0, 0.0], [1.0, 0.0]])
    assert brier_score(probabilities, np.array([0, 0])) == 0
    assert brier_score(probabilities, np.array([1, 1])) == 2
    assert probabilities.tolist() == [[1.0, 0.0], [1.0, 0.0]]


def outcomes(seed: int, n: int = 300, power: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Confidences, and whether each answer is right: as often as it says, or as often as its power."""
    random = np.random.default_rng(seed)
    confidences = random.uniform(0.3, 1, n)
    return confidences, random.random(n) < confidences**power


def test_a_calibrated_model_has_p_values_that_are_spread_evenly() -> None:
    found = [calibration_p_value(*outcomes(seed), seed=seed, draws=199) for seed in range(300)]
    assert stats.kstest(found, "uniform").pvalue > 0.01
    assert np.mean(np.array(found) <= 0.05) == pytest.approx(0.05, abs=0.04)


def test_a_model_that_is_too_sure_has_a_small_p_value() -> None:
    found = [calibration_p_value(*outcomes(seed, power=2.0), draws=199) for seed in range(20)]
    assert max(found) <= 0.01


def test_a_p_value_is_the_count_of_its_definition_and_repeatable() -> None:
    confidences, correct = outcomes(1, n=50)
    random = np.random.default_rng(7)
    drawn = [naive_ece(confidences, random.random(50) < confidences, ECE_BINS) for _ in range(99)]
    expected = (1 + sum(d >= naive_ece(confidences, correct, ECE_BINS) - 1e-12 for d in drawn)) / 100
    assert calibration_p_value(confidences, correct, seed=7, draws=99) == expected
    assert null_quantile(confidences, 0.9, seed=7, draws=99) == pytest.approx(np.quantile(drawn, 0.9))


def test_a_model_that_is_always_right_and_says_so_is_calibrated() -> None:
    assert calibration_p_value(np.ones(30), np.ones(30, bool), draws=99) == 1.0
    assert null_quantile(np.ones(30), draws=99) == 0.0
    assert calibration_p_value(np.ones(30), np.arange(30) > 0, draws=99) == 0.01


def test_a_larger_sample_of_a_calibrated_model_has_a_smaller_error() -> None:
    few, many = (null_quantile(outcomes(0, n)[0]) for n in (300, 10_000))
    assert many == pytest.approx(few * (300 / 10_000) ** 0.5, rel=0.2)
