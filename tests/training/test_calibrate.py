"""The temperature against scikit-learn's, its prior, and when it is kept."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator

from bundle.confidence import softmax
from training.calibrate import FEW_ERRORS, FOLDS, fit_temperature, map_temperature
from training.scores import negative_log_likelihood


class Logits(ClassifierMixin, BaseEstimator):
    """A classifier whose decision function is its input."""

    def __init__(self, classes: int = 5) -> None:
        self.classes = classes
        self.classes_ = np.arange(classes)

    def fit(self, X: np.ndarray, y: np.ndarray) -> Logits:  # noqa: N803
        return self

    def decision_function(self, X: np.ndarray) -> np.ndarray:  # noqa: N803
        return X

    def predict(self, X: np.ndarray) -> np.ndarray:  # noqa: N803
        return X.argmax(axis=1)


def draw(seed: int, true_temperature: float, n: int = 1500, classes: int = 5) -> tuple:
    """Logits whose labels are drawn at a temperature: the fit should find it again."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(n, classes)) * 3
    chances = softmax(logits, true_temperature).cumsum(axis=1)
    labels = (random.random((n, 1)) > chances).sum(axis=1).clip(max=classes - 1)
    return logits, labels.astype(np.int64)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("true_temperature", [0.5, 1.0, 3.0])
def test_without_a_prior_the_temperature_is_that_of_scikit_learn(seed: int, true_temperature: float) -> None:
    logits, labels = draw(seed, true_temperature)
    oracle = CalibratedClassifierCV(FrozenEstimator(Logits()), method="temperature").fit(logits, labels)
    beta = oracle.calibrated_classifiers_[0].calibrators[0].beta_
    assert 1 / map_temperature(logits, labels, prior_sd=math.inf) == pytest.approx(float(beta), abs=1e-5)


def test_the_temperature_minimises_the_penalised_likelihood() -> None:
    logits, labels = draw(0, 2.0, n=300)
    found = map_temperature(logits, labels, prior_sd=0.2)

    def loss(t: float) -> float:
        return 300 * negative_log_likelihood(logits, labels, t) + math.log(t) ** 2 / (2 * 0.2**2)

    grid = np.exp(np.linspace(math.log(0.1), math.log(10), 2001))
    assert loss(found) <= min(loss(t) for t in grid) + 1e-9


def test_a_tighter_prior_pulls_the_temperature_towards_1() -> None:
    logits, labels = draw(1, 3.0, n=60)
    fitted = [map_temperature(logits, labels, prior_sd=sd) for sd in (math.inf, 0.5, 0.1, 0.001)]
    assert fitted == sorted(fitted, reverse=True)
    assert fitted[0] > 2
    assert fitted[-1] == pytest.approx(1, abs=1e-3)


def test_with_few_errors_the_prior_is_the_tight_one() -> None:
    logits, labels = draw(2, 0.4, n=60)
    errors = int((logits.argmax(1) != labels).sum())
    assert 0 < errors < FEW_ERRORS
    assert map_temperature(logits, labels) == map_temperature(logits, labels, prior_sd=0.1)
    logits, labels = draw(2, 3.0, n=300)
    assert int((logits.argmax(1) != labels).sum()) >= FEW_ERRORS
    assert map_temperature(logits, labels) == map_temperature(logits, labels, prior_sd=0.5)


def test_a_temperature_that_helps_is_kept() -> None:
    logits, labels = draw(3, 3.0)
    fit = fit_temperature(logits, labels)
    assert fit.kept
    assert fit.value == map_temperature(logits, labels)
    assert fit.value == pytest.approx(3.0, rel=0.15)
    assert fit.nll_after < fit.nll_before == negative_log_likelihood(logits, labels)
    assert (fit.n, fit.n_errors) == (1500, int((logits.argmax(1) != labels).sum()))


def test_the_decision_is_cross_fitted() -> None:
    logits, labels = draw(4, 2.0, n=203)
    total = 0.0
    for k in range(FOLDS):
        inside = [i for i in range(203) if i % FOLDS == k]
        outside = [i for i in range(203) if i % FOLDS != k]
        t = map_temperature(logits[outside], labels[outside])
        total += len(inside) * negative_log_likelihood(logits[inside], labels[inside], t)
    assert fit_temperature(logits, labels).nll_after == pytest.approx(total / 203, rel=1e-12)


def test_a_temperature_that_does_not_help_is_not_kept() -> None:
    # Each fold is as much too sure as the others together are too unsure, so what is learnt misleads.
    folds = np.arange(250) % FOLDS
    logits = np.tile([2.0, 0.0], (250, 1))
    labels = np.zeros(250, dtype=np.int64)
    labels[(folds == 0)] = 1
    fit = fit_temperature(logits, labels)
    assert fit.n_errors == 50
    assert fit.nll_after >= fit.nll_before
    assert (fit.kept, fit.value) == (False, 1.0)


def test_without_an_error_the_temperature_is_not_kept() -> None:
    logits = np.random.default_rng(5).normal(size=(100, 4))
    fit = fit_temperature(logits, logits.argmax(1))
    assert fit.nll_after < fit.nll_before  # the likelihood alone would sharpen
    assert (fit.kept, fit.value, fit.n_errors) == (False, 1.0, 0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.2, 5))
def test_no_answer_changes_at_the_fitted_temperature(seed: int, true_temperature: float) -> None:
    logits, labels = draw(seed, true_temperature, n=50)
    value = fit_temperature(logits, labels).value
    assert value > 0
    assert np.array_equal(softmax(logits, value).argmax(1), logits.argmax(1))
