from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import mahalanobis
from scipy.special import logsumexp
from sklearn.covariance import EmpiricalCovariance

from bundle.novelty import Classes, energy, fit_classes, novelty_p_values


def made_up(seed: int = 0, n: int = 400, size: int = 8) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = np.arange(n) % 4
    centres = random.normal(size=(4, size)) * 3
    stretch = random.normal(size=(size, size))
    return (centres[labels] + random.normal(size=(n, size)) @ stretch * 0.3).astype(np.float32), labels


@given(st.integers(0, 1_000))
def test_the_energy_is_scipys_logsumexp(seed: int) -> None:
    logits = np.random.default_rng(seed).normal(size=(5, 7)) * 300
    np.testing.assert_allclose(energy(logits), logsumexp(logits, axis=1), rtol=1e-12)


def test_familiarity_is_the_distance_of_scipy_to_the_nearest_class() -> None:
    features, labels = made_up()
    classes = fit_classes(features, labels, 4)
    x = features.astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    means = np.stack([x[labels == label].mean(axis=0) for label in range(4)])
    covariance = EmpiricalCovariance(assume_centered=True).fit(x - means[labels]).covariance_
    inverse = np.linalg.inv(covariance + np.eye(8) * 1e-6 * np.trace(covariance) / 8)
    expected = [-min(mahalanobis(row, mean, inverse) ** 2 for mean in means) for row in x[:50]]
    np.testing.assert_allclose(classes.familiarity(features[:50]), expected, rtol=1e-6)


def test_features_that_lie_in_fewer_directions_can_be_fitted() -> None:
    features, labels = made_up()
    features[:, 5:] = 0  # as units that never fire
    found = fit_classes(features, labels, 4).familiarity(features)
    assert np.isfinite(found).all()


def test_features_of_nothing_are_scored_too() -> None:
    features, labels = made_up()
    classes = fit_classes(features, labels, 4)
    assert np.isfinite(classes.familiarity(np.zeros((1, 8), np.float32))).all()
    assert isinstance(classes, Classes)


@given(st.integers(0, 1_000))
def test_familiarity_does_not_depend_on_the_length_of_the_features(seed: int) -> None:
    features, labels = made_up()
    classes = fit_classes(features, labels, 4)
    factor = np.random.default_rng(seed).uniform(0.1, 50)
    np.testing.assert_allclose(
        classes.familiarity(features * factor), classes.familiarity(features), rtol=1e-3, atol=1e-3
    )


def test_p_values_of_familiar_inputs_are_no_smaller_than_they_may_be() -> None:
    """At most alpha of them are at most alpha: the doubling is on the safe side."""
    random = np.random.default_rng(3)
    for alpha in (0.01, 0.05, 0.2):
        shares = []
        for _ in range(200):
            scores = random.normal(size=(1_200, 2)) @ np.array([[1.0, 0.8], [0.0, 0.6]])  # they go together
            held_out, new = scores[:1_000], scores[1_000:]
            familiar = tuple(np.sort(column) for column in held_out.T)
            together, each = novelty_p_values(familiar, tuple(new.T))
            np.testing.assert_array_equal(together, np.minimum(1, 2 * np.minimum(*each)))
            shares.append((together <= alpha).mean())
        assert np.mean(shares) <= alpha + 4 * np.std(shares) / np.sqrt(len(shares))


def test_what_is_less_familiar_has_a_smaller_p_value() -> None:
    familiar = (np.arange(99.0),)
    together, (alone,) = novelty_p_values(familiar, (np.array([-1.0, 0.0, 50.0, 1e9]),))
    np.testing.assert_allclose(alone, [0.01, 0.02, 0.52, 1.0])
    assert together == pytest.approx(alone)
