"""Sets against quantiles, bands against the law itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from bundle.conformal import lac_scores, quantile_of
from tests import tiny
from training.report.answers import Answers
from training.report.sets import ALPHAS, coverage_band, measure_sets


@pytest.mark.parametrize("alpha", ALPHAS)
def test_sets_are_those_of_the_conformal_quantile(int8: Answers, alpha: float) -> None:
    assert int8.evidence is not None
    found = next(
        each for each in measure_sets(int8, tiny.LABELS) if (each.alpha, each.scope) == (alpha, "marginal")
    )
    limit = quantile_of(int8.evidence.lac, alpha)
    sizes, sizes_with, covered, covered_with = [], [], [], []
    for scores, label, answer in zip(lac_scores(int8.probabilities), int8.labels, int8.chosen, strict=True):
        inside = {i for i, score in enumerate(scores) if score <= limit}
        sizes.append(len(inside))
        covered.append(label in inside)
        inside.add(answer)
        sizes_with.append(len(inside))
        covered_with.append(label in inside)
    assert found.coverage == np.mean(covered)
    assert found.coverage_with_answer == np.mean(covered_with)
    assert (found.mean_size, found.mean_size_with_answer) == (np.mean(sizes), np.mean(sizes_with))
    assert found.empty == np.mean(np.array(sizes) == 0)
    assert list(found.sizes) == [sizes_with.count(size) for size in range(max(sizes_with) + 1)]
    assert found.band99 is not None
    assert found.band99[0] <= found.coverage <= found.band99[1]


def test_coverage_is_told_for_each_label(int8: Answers) -> None:
    for sets in measure_sets(int8, tiny.LABELS):
        p_values = int8.p_values(sets.scope)
        assert p_values is not None
        for index, each in enumerate(sets.by_label):
            own = int8.labels == index
            assert each.label == tiny.LABELS[index]
            assert each.n == own.sum()
            assert each.coverage == (p_values[own, index] > sets.alpha).mean()
            assert each.ci95[0] <= each.coverage <= each.ci95[1]
        total = sum(each.n * (each.coverage or 0) for each in sets.by_label)
        assert total / len(int8.labels) == pytest.approx(sets.coverage)


def test_the_band_is_that_of_the_beta_binomial_law() -> None:
    low, high = coverage_band(999, 400, 0.1) or (0, 0)
    law = stats.betabinom(400, 900, 100)
    inside = law.cdf(round(high * 400)) - law.cdf(round(low * 400) - 1)
    assert 0.99 <= inside < 0.995
    random = np.random.default_rng(0)
    coverages = []
    for _ in range(2000):
        limit = np.sort(random.random(999))[899]
        coverages.append((random.random(400) <= limit).mean())
    share = np.mean([low <= coverage <= high for coverage in coverages])
    assert 0.982 <= share <= 0.998


def test_with_too_few_scores_there_is_no_band() -> None:
    assert coverage_band(8, 100, 0.1) is None
    assert coverage_band(9, 100, 0.1) is not None


def test_without_evidence_there_are_no_sets(int8: Answers) -> None:
    assert measure_sets(replace(int8, evidence=None), tiny.LABELS) == ()
