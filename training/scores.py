"""Scores of probabilistic predictions. Plain numpy; scikit-learn is the oracle in the tests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bundle.confidence import softmax

ECE_BINS = 15


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
