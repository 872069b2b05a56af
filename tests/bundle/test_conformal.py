from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from bundle.conformal import (
    lac_scores,
    least_scores,
    p_values,
    p_values_by_label,
    quantile_of,
    raps_scores,
    unit_of,
)

SCORES = hnp.arrays(np.float64, st.integers(1, 60), elements=st.floats(0, 1))
ALPHAS = st.sampled_from([0.01, 0.05, 0.1, 0.2, 0.25, 0.5, 0.9])


def made_up(n: int, labels: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of a model that is right as often as it says, and right labels drawn from them."""
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.full(labels, 0.3), size=n)
    return probabilities, np.array([random.choice(labels, p=row) for row in probabilities])


@pytest.mark.parametrize(("n", "expected"), [(18, math.inf), (19, 19.0), (20, 20.0), (38, 38.0), (39, 38.0)])
def test_the_quantile_is_the_right_order_statistic(n: int, expected: float) -> None:
    assert quantile_of(np.arange(1.0, n + 1), 0.05) == expected


@given(SCORES, ALPHAS)
def test_the_quantile_is_numpys_of_the_same_definition(scores: np.ndarray, alpha: float) -> None:
    scores = np.sort(scores)
    n = len(scores)
    level = math.ceil(round((n + 1) * (1 - alpha), 9)) / n
    expected = math.inf if level > 1 else float(np.quantile(scores, level, method="inverted_cdf"))
    assert quantile_of(scores, alpha) == pytest.approx(expected)


@given(SCORES, st.lists(st.floats(-1, 2), min_size=1, max_size=5))
def test_p_values_are_the_counts_of_their_definition(scores: np.ndarray, found: list[float]) -> None:
    expected = [(1 + sum(score >= value for score in scores)) / (len(scores) + 1) for value in found]
    np.testing.assert_allclose(p_values(np.sort(scores), np.array(found)), expected)


@given(SCORES, st.floats(-1, 2), ALPHAS)
def test_a_p_value_over_alpha_and_a_score_within_the_quantile_are_the_same(
    scores: np.ndarray, found: float, alpha: float
) -> None:
    scores = np.sort(scores)
    (p,) = p_values(scores, np.array([found]))
    if abs(p - alpha) > 1e-9:  # at the border itself the rounding of alpha decides
        assert (p > alpha) == (found <= quantile_of(scores, alpha))


@given(st.lists(SCORES, min_size=2, max_size=4), st.integers(0, 1_000))
def test_p_values_by_label_are_those_of_each_label_alone(scores: list[np.ndarray], seed: int) -> None:
    found = np.random.default_rng(seed).random((3, len(scores)))
    together = p_values_by_label([np.sort(own) for own in scores], found)
    for label, own in enumerate(scores):
        np.testing.assert_array_equal(together[:, label], p_values(np.sort(own), found[:, label]))


@pytest.mark.parametrize(("alpha", "n"), [(0.1, 9), (0.05, 19), (0.01, 99), (0.3, 3)])
def test_so_many_scores_are_the_fewest_that_exclude_anything(alpha: float, n: int) -> None:
    assert least_scores(alpha) == n
    worst = np.array([2.0])
    assert p_values(np.linspace(0, 1, n), worst)[0] <= alpha + 1e-12
    assert p_values(np.linspace(0, 1, n - 1), worst)[0] > alpha


def naive_raps(p: np.ndarray, u: float, penalty: float, free: int) -> list[float]:
    order = sorted(range(len(p)), key=lambda label: -p[label])
    return [
        sum(p[other] for other in order[: order.index(label) + 1])
        - u * p[label]
        + penalty * max(0, order.index(label) + 1 - free)
        for label in range(len(p))
    ]


@given(st.integers(0, 10_000), st.floats(0, 1), st.sampled_from([(0.05, 2), (0.0, 0), (0.3, 1)]))
def test_raps_scores_are_those_of_a_naive_loop(seed: int, u: float, settings: tuple[float, int]) -> None:
    probabilities, _ = made_up(3, 6, seed)
    found = raps_scores(probabilities, np.full(3, u), *settings)
    for row, expected in zip(found, probabilities, strict=True):
        np.testing.assert_allclose(row, naive_raps(expected, u, *settings), atol=1e-12)


def coverage(method: str, held_out: int, tested: int, seed: int, alpha: float) -> float:
    """The share of new inputs whose right label is in its set, of one split."""
    probabilities, labels = made_up(held_out + tested, 5, seed)
    u = np.random.default_rng(seed + 1).random(len(labels))
    scores = lac_scores(probabilities) if method == "lac" else raps_scores(probabilities, u)
    of_right = scores[np.arange(len(labels)), labels]
    reference = np.sort(of_right[:held_out])
    return float((p_values(reference, of_right[held_out:]) > alpha).mean())


@pytest.mark.parametrize("method", ["lac", "raps"])
def test_coverage_follows_its_law(method: str) -> None:
    """Over splits it is Beta(k, n + 1 - k): neither less than promised nor more than that by 1/(n + 1)."""
    n, m, alpha = 200, 1000, 0.1
    found = np.array([coverage(method, n, m, seed, alpha) for seed in range(500)])
    k = math.ceil((n + 1) * (1 - alpha))
    law = stats.betabinom(m, k, n + 1 - k)
    assert found.mean() == pytest.approx(law.mean() / m, abs=4 * law.std() / m / math.sqrt(500))
    assert found.std() == pytest.approx(law.std() / m, rel=0.15)
    low, high = law.interval(0.99)
    assert ((low / m <= found) & (found <= high / m)).mean() >= 0.97


def test_a_unit_is_repeatable_and_evenly_spread() -> None:
    assert unit_of("3", b"input") == unit_of("3", b"input")
    assert unit_of("3", b"input") != unit_of("4", b"input")
    assert unit_of("1", b"2") != unit_of("12", b"")
    units = [unit_of("1", i.to_bytes(4, "big")) for i in range(5_000)]
    assert stats.kstest(units, "uniform").pvalue > 0.001
