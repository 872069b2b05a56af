from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from training.thresholds import learn_threshold, upper_bound


def answers(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Confidences, the true probability of each being right, and which are."""
    random = np.random.default_rng(seed)
    confidences = random.beta(6, 0.4, n)
    rights = confidences**1.1  # a little overconfident
    return confidences, rights, random.random(n) < rights


ALL = np.ones(4_000, bool)


@given(st.integers(0, 20), st.integers(21, 3_000), st.sampled_from([0.01, 0.05, 0.1]))
def test_the_bound_is_that_of_clopper_and_pearson(errors: int, n: int, delta: float) -> None:
    oracle = stats.binomtest(errors, n, alternative="less").proportion_ci(1 - delta, method="exact")
    assert upper_bound(errors, n, delta) == pytest.approx(oracle.high)


def test_nothing_is_bounded_where_all_are_wrong() -> None:
    assert upper_bound(0, 0, 0.05) == 1
    assert upper_bound(7, 7, 0.05) == 1


def test_a_threshold_tells_what_it_accepts_and_what_is_proven_of_it() -> None:
    confidences, _, correct = answers(4_000, 1)
    found = learn_threshold(confidences, correct, ALL, 0.02, 0.05)
    assert found is not None
    accepted = confidences >= found.threshold
    assert (found.n, found.errors) == (accepted.sum(), (~correct[accepted]).sum())
    assert found.coverage == accepted.mean()
    assert found.bound == upper_bound(found.errors, found.n, 0.05) <= 0.02


def test_what_the_rest_of_the_rule_refuses_counts_against_coverage_alone() -> None:
    confidences, _, correct = answers(4_000, 2)
    eligible = np.random.default_rng(0).random(4_000) < 0.8
    correct = correct | ~eligible  # whatever is refused need not be right
    found = learn_threshold(confidences, correct, eligible, 0.02, 0.05)
    assert found is not None
    assert found.n == (eligible & (confidences >= found.threshold)).sum()
    assert found.coverage == found.n / 4_000


def test_a_looser_target_accepts_no_less() -> None:
    confidences, _, correct = answers(4_000, 3)
    thresholds = [learn_threshold(confidences, correct, ALL, risk, 0.05) for risk in (0.01, 0.02, 0.05, 0.2)]
    coverages = [0.0 if each is None else each.coverage for each in thresholds]
    assert coverages == sorted(coverages)
    assert coverages[-1] > 0.9


def test_where_nothing_can_be_proven_there_is_none() -> None:
    confidences, _, correct = answers(4_000, 4)
    assert learn_threshold(confidences, correct, ALL, 0.0005, 0.05) is None  # of 4,000, too few
    assert learn_threshold(confidences, np.zeros(4_000, bool), ALL, 0.1, 0.05) is None
    assert learn_threshold(confidences, correct, ~ALL, 0.1, 0.05) is None


@pytest.mark.parametrize("target", [0.02, 0.05])
def test_the_promise_is_broken_no_more_often_than_delta(target: float) -> None:
    """Over 300 sets of held-out answers, by the true error rates, which are known here."""
    delta, splits, broken, learned = 0.1, 300, 0, 0
    new, rights, _ = answers(200_000, 10**6)
    for seed in range(splits):
        confidences, _, correct = answers(2_000, seed)
        found = learn_threshold(confidences, correct, ALL[:2_000], target, delta)
        if found is not None:
            learned += 1
            broken += (1 - rights[new >= found.threshold]).mean() > target
    allowed = delta + NormalDist().inv_cdf(0.999) * (delta * (1 - delta) / splits) ** 0.5
    assert broken / splits <= allowed
    assert learned > splits * 0.9


def test_the_naive_rule_breaks_it_about_half_of_the_time() -> None:
    """Why there is a test at all."""
    target, broken = 0.05, 0
    new, rights, _ = answers(200_000, 10**6)
    for seed in range(100):
        confidences, _, correct = answers(2_000, seed)
        order = np.argsort(-confidences)
        risks = np.cumsum(~correct[order]) / np.arange(1, 2_001)
        loosest = confidences[order][np.flatnonzero(risks <= target).max()]
        broken += (1 - rights[new >= loosest]).mean() > target
    assert broken > 25
