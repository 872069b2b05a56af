"""Fit the temperature of a graph's logits: few errors need a prior, and it is kept only if it helps."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from training.scores import negative_log_likelihood

# On a model with few errors the likelihood alone is too flat to fix the temperature: a tighter prior
# then keeps it near 1.
FEW_ERRORS = 30
PRIOR_SD_FEW_ERRORS = 0.1
PRIOR_SD = 0.5
FOLDS = 5
_BOUNDS = (math.log(0.05), math.log(20.0))


@dataclass(frozen=True)
class TemperatureFit:
    """A temperature and what it was fitted on.

    Attributes:
        value: 1 where the fit was not kept.
        kept: there was an error to learn from, and the cross-fitted negative log likelihood fell.
        n: items; n_errors: how many of them the graph got wrong.
        nll_before, nll_after: cross-fitted negative log likelihood at 1 and at the fitted temperature.
    """

    value: float
    kept: bool
    n: int
    n_errors: int
    nll_before: float
    nll_after: float


def fit_temperature(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> TemperatureFit:
    """Fit a temperature by maximum a posteriori and decide by cross-fitting whether to keep it.

    Without a single error it is not kept: the likelihood then only ever asks for more confidence, which
    is no evidence. The folds are interleaved, so that the result depends on nothing but the data.

    Args:
        logits: (n, labels) of the temperature split, from the graph that will serve.
        labels: (n,) true indices.
    """
    errors = int((logits.argmax(axis=1) != labels).sum())
    fold = np.arange(len(labels)) % FOLDS
    held_out = [(fold == k, map_temperature(logits[fold != k], labels[fold != k])) for k in range(FOLDS)]
    before = negative_log_likelihood(logits, labels)
    after = sum(
        negative_log_likelihood(logits[inside], labels[inside], t) * inside.sum() for inside, t in held_out
    ) / len(labels)
    kept = bool(errors > 0 and after < before)
    value = map_temperature(logits, labels) if kept else 1.0
    return TemperatureFit(value, kept, len(labels), errors, before, float(after))


def map_temperature(
    logits: NDArray[np.floating], labels: NDArray[np.int64], prior_sd: float | None = None
) -> float:
    """Return the T that minimises n NLL(T) + (log T)^2 / (2 sd^2).

    A maximum a posteriori fit under log T ~ Normal(0, sd^2); with an infinite sd it is the maximum
    likelihood fit of Guo et al. 2017.

    Args:
        prior_sd: by default 0.1 with fewer than 30 errors, else 0.5.
    """
    if prior_sd is None:
        errors = int((logits.argmax(axis=1) != labels).sum())
        prior_sd = PRIOR_SD_FEW_ERRORS if errors < FEW_ERRORS else PRIOR_SD

    def loss(u: float) -> float:
        return len(labels) * negative_log_likelihood(logits, labels, math.exp(u)) + u * u / (2 * prior_sd**2)

    return math.exp(minimize_scalar(loss, bounds=_BOUNDS, method="bounded", options={"xatol": 1e-6}).x)
