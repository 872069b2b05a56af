"""Scores of probabilistic predictions. Plain numpy; scikit-learn is the oracle in the tests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bundle.confidence import softmax

ECE_BINS = 15
# Outcomes drawn to see what a calibrated model scores: enough for p-values down to .001.
NULL_DRAWS = 1_000


@dataclass(frozen=True)
class Scores:
    """Scores of n predictions; see the functions for definitions."""

    n: int
    accuracy: float
    nll: float
    brier: float
    ece: float


def score(logits: NDArray[np.floating], labels: NDArray[np.int64], temperature: float = 1.0) -> Scores:
    """Score logits at a temperature.

    Args:
        logits: (n, labels).
        labels: (n,) true indices.
    """
    probabilities = softmax(logits, temperature)
    correct = logits.argmax(axis=1) == labels
    return Scores(
        n=len(labels),
        accuracy=float(correct.mean()),
        nll=negative_log_likelihood(logits, labels, temperature),
        brier=brier_score(probabilities, labels),
        ece=expected_calibration_error(probabilities.max(axis=1), correct),
    )


def negative_log_likelihood(
    logits: NDArray[np.floating], labels: NDArray[np.int64], temperature: float = 1.0
) -> float:
    """Return the mean of logsumexp(z / T) - z[y] / T."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    top = scaled.max(axis=1)
    normaliser = top + np.log(np.exp(scaled - top[:, None]).sum(axis=1))
    return float((normaliser - scaled[np.arange(len(labels)), labels]).mean())


def brier_score(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Return the mean over items of sum_k (p_k - [k = y])^2, from 0 to 2."""
    errors = probabilities.copy()
    errors[np.arange(len(labels)), labels] -= 1
    return float((errors**2).sum(axis=1).mean())


def expected_calibration_error(
    confidence: NDArray[np.float64], correct: NDArray[np.bool_], bins: int = ECE_BINS
) -> float:
    """Return sum_b n_b / n |accuracy_b - confidence_b| over right-closed bins of equal width.

    Guo et al. 2017, eq. 5. Even a perfectly calibrated model scores above 0 on a finite sample.
    """
    bin_of = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    gaps = np.bincount(bin_of, weights=correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def calibration_p_value(
    confidences: NDArray[np.floating], correct: NDArray[np.bool_], seed: int = 0, draws: int = NULL_DRAWS
) -> float:
    """Return how often a calibrated model has a calibration error at least as large as this one.

    A calibrated model is right about each item with a probability that is its confidence. Its errors over
    `draws` draws of such outcomes are compared with the one that was found (Vaicenavicius et al. 2019,
    section 4, consistency resampling).

    Args:
        confidences: (n,) of the answers.
        correct: (n,) whether each is right.

    Returns:
        (1 + #{drawn >= found}) / (draws + 1): small where the model is not calibrated.
    """
    found = expected_calibration_error(np.asarray(confidences, np.float64), correct)
    # Equal counts of right answers give sums that differ by rounding alone.
    at_least = (_null_errors(confidences, seed, draws) >= found - 1e-12).sum()
    return float((1 + at_least) / (draws + 1))


def null_quantile(
    confidences: NDArray[np.floating], level: float = 0.95, seed: int = 0, draws: int = NULL_DRAWS
) -> float:
    """Return the calibration error that a calibrated model exceeds in a share 1 - level of draws.

    Args:
        confidences: (n,) of the answers.
        level: 0..1.
    """
    return float(np.quantile(_null_errors(confidences, seed, draws), level))


def _null_errors(confidences: NDArray[np.floating], seed: int, draws: int) -> NDArray[np.float64]:
    """The calibration errors of outcomes drawn from the confidences themselves, (draws,)."""
    wide = np.asarray(confidences, np.float64)
    random = np.random.default_rng(seed)
    return np.array([expected_calibration_error(wide, random.random(len(wide)) < wide) for _ in range(draws)])
