"""Conformal prediction against libraries that do the same: scores and sets of MAPIE, p-values of crepes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from crepes import ConformalClassifier
from mapie.classification import SplitConformalClassifier
from mapie.conformity_scores import RAPSConformityScore
from sklearn.base import BaseEstimator, ClassifierMixin

from bundle.conformal import lac_scores, p_values, p_values_by_label, quantile_of, raps_scores

LABELS = 5
ALPHAS = [0.01, 0.05, 0.1, 0.25, 0.5]


class Given(ClassifierMixin, BaseEstimator):
    """A classifier whose inputs are the probabilities of its labels."""

    def __init__(self) -> None:
        self.classes_ = np.arange(LABELS)
        self.is_fitted_ = True

    def fit(self, X: np.ndarray, y: np.ndarray) -> Given:  # noqa: N803
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:  # noqa: N803
        return X.argmax(axis=1)

    def predict_proba(self, X: np.ndarray) -> np.ndarray:  # noqa: N803
        return X


def draw(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, and labels that are right as often as they say; every label stands there."""
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.full(LABELS, 0.4), size=n)
    labels = (random.random((n, 1)) > probabilities.cumsum(axis=1)).sum(axis=1).clip(max=LABELS - 1)
    labels[:LABELS] = np.arange(LABELS)
    return probabilities, labels


def of_right(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return scores[np.arange(len(labels)), labels]


def mapie(score: str, seed: int, held_out: tuple[np.ndarray, np.ndarray]) -> SplitConformalClassifier:
    classifier = SplitConformalClassifier(
        Given(), [1 - alpha for alpha in ALPHAS], conformity_score=score, random_state=seed
    )
    return classifier.conformalize(*held_out)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n", [150, 499, 1000])
def test_quantiles_and_sets_are_those_of_mapie(seed: int, n: int) -> None:
    probabilities, labels = draw(seed, n)
    tested, _ = draw(seed + 100, 200)
    classifier = mapie("lac", seed, (probabilities, labels))
    _, expected = classifier.predict_set(tested)  # (n, labels, alphas)
    ours = np.sort(of_right(lac_scores(probabilities), labels))
    quantiles = classifier._conformity_score.quantiles_
    for i, alpha in enumerate(ALPHAS):
        assert quantile_of(ours, alpha) == pytest.approx(quantiles[i], abs=1e-12)
        assert np.array_equal(p_values(ours, lac_scores(tested)) > alpha, expected[:, :, i])


@pytest.mark.parametrize("seed", range(5))
def test_randomised_adaptive_sets_are_those_of_mapie(seed: int) -> None:
    probabilities, labels = draw(seed, 499)
    tested, _ = draw(seed + 100, 200)
    classifier = mapie("aps", seed, (probabilities, labels))
    _, expected = classifier.predict_set(tested, conformity_score_params={"include_last_label": "randomized"})
    # MAPIE draws from the same seed each time.
    held_out_u, tested_u = (np.random.RandomState(seed).uniform(size=len(x)) for x in (labels, tested))
    ours = np.sort(of_right(raps_scores(probabilities, held_out_u, penalty=0.0), labels))
    quantiles = classifier._conformity_score.quantiles_
    for i, alpha in enumerate(ALPHAS):
        assert quantile_of(ours, alpha) == pytest.approx(quantiles[i], abs=1e-12)
        found = p_values(ours, raps_scores(tested, tested_u, penalty=0.0)) > alpha
        assert np.array_equal(found, expected[:, :, i])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("penalty", "free"), [(0.05, 2), (0.3, 1), (0.01, 4)])
def test_the_rank_penalty_is_that_of_mapie(seed: int, penalty: float, free: int) -> None:
    """Of the scores alone: its own choice of the penalty, and how it draws the last label, are not ours."""
    probabilities, labels = draw(seed, 300)
    without = raps_scores(probabilities, np.zeros(300), penalty=0.0)
    cumulated, ranks = RAPSConformityScore.get_true_label_cumsum_proba(
        labels, probabilities, np.arange(LABELS)
    )
    np.testing.assert_allclose(of_right(without, labels), cumulated[:, 0], atol=1e-12)
    expected = RAPSConformityScore._regularize_conformity_score(
        np.array([free]), np.array([penalty]), cumulated, ranks
    )
    found = of_right(raps_scores(probabilities, np.zeros(300), penalty, free), labels)
    np.testing.assert_allclose(found, expected[:, 0, 0], atol=1e-12)


def rounded(probabilities: np.ndarray) -> np.ndarray:
    """Scores with many ties, which are where p-values can be got wrong."""
    return np.round(lac_scores(probabilities), 2)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("scores_of", [lac_scores, rounded])
def test_p_values_are_those_of_crepes(seed: int, scores_of: Callable[[np.ndarray], np.ndarray]) -> None:
    probabilities, labels = draw(seed, 300)
    tested, _ = draw(seed + 100, 100)
    ours = of_right(scores_of(probabilities), labels)
    oracle = ConformalClassifier().fit(ours)
    expected = oracle.predict_p(scores_of(tested), smoothing=False)
    np.testing.assert_allclose(p_values(np.sort(ours), scores_of(tested)), expected, rtol=1e-12)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("scores_of", [lac_scores, rounded])
def test_p_values_by_label_are_those_of_crepes(
    seed: int, scores_of: Callable[[np.ndarray], np.ndarray]
) -> None:
    probabilities, labels = draw(seed, 300)
    tested, _ = draw(seed + 100, 100)
    ours = of_right(scores_of(probabilities), labels)
    oracle = ConformalClassifier().fit(ours, bins=labels)
    scores = scores_of(tested)
    expected = np.stack(
        [
            oracle.predict_p(scores[:, label], bins=np.full(len(scores), label), smoothing=False)
            for label in range(LABELS)
        ],
        axis=1,
    )
    own = [np.sort(ours[labels == label]) for label in range(LABELS)]
    np.testing.assert_allclose(p_values_by_label(own, scores), expected, rtol=1e-12)
