"""Risk over coverage against naive loops, AUROC against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from training.report.answers import Answers
from training.report.selection import accepted_by, auroc, measure_selection


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=30), st.lists(st.integers(0, 9), min_size=1, max_size=30)
)
def test_the_auroc_is_scikit_learns_also_with_ties(high: list[int], low: list[int]) -> None:
    found = auroc(np.array(high, float), np.array(low, float))
    assert found == pytest.approx(roc_auc_score([1] * len(high) + [0] * len(low), high + low))


def test_without_one_of_the_kinds_there_is_no_auroc() -> None:
    assert auroc(np.array([1.0]), np.array([])) is None
    assert auroc(np.array([]), np.array([1.0])) is None


def test_the_areas_are_those_of_a_naive_loop(int8: Answers) -> None:
    found = measure_selection(int8)
    order = sorted(range(len(int8.labels)), key=lambda i: -int8.confidences[i])
    wrong = [not int8.correct[i] for i in order]
    risks = [sum(wrong[: i + 1]) / (i + 1) for i in range(len(wrong))]
    best = sorted(wrong)
    oracle = [sum(best[: i + 1]) / (i + 1) for i in range(len(best))]
    assert found.aurc == pytest.approx(np.mean(risks))
    assert found.e_aurc == pytest.approx(np.mean(risks) - np.mean(oracle))
    assert found.augrc == pytest.approx(
        np.mean([sum(wrong[: i + 1]) / len(wrong) for i in range(len(wrong))])
    )
    assert found.auroc_of_errors == pytest.approx(roc_auc_score(int8.correct, int8.confidences))
    assert 0 <= found.e_aurc <= found.aurc


def test_the_curve_ends_with_all_answers_and_lies_above_the_best_one(int8: Answers) -> None:
    curve = measure_selection(int8).curve
    assert curve.coverage[-1] == 1
    assert curve.risk[-1] == curve.oracle[-1] == pytest.approx((~int8.correct).mean())
    assert all(risk >= best - 1e-12 for risk, best in zip(curve.risk, curve.oracle, strict=True))
    assert list(curve.coverage) == sorted(curve.coverage)
    assert len(curve.coverage) <= 200


def test_thresholds_are_tried_on_the_test_split_by_the_whole_rule(int8: Answers) -> None:
    assert int8.evidence is not None
    assert int8.novelty is not None
    found = measure_selection(int8)
    assert [each.target_risk for each in found.thresholds] == [
        each.target_risk for each in int8.evidence.facts.thresholds
    ]
    assert found.thresholds
    for each in found.thresholds:
        accepted = [
            i
            for i in range(len(int8.labels))
            if int8.confidences[i] >= each.threshold and int8.novelty[i] > int8.evidence.facts.novelty_alpha
        ]
        errors = sum(not int8.correct[i] for i in accepted)
        assert (each.n, each.errors) == (len(accepted), errors)
        assert each.coverage == len(accepted) / len(int8.labels)
        assert each.risk == errors / len(accepted)
        assert each.ci95[0] <= each.risk <= each.ci95[1]
        assert accepted_by(int8, each.threshold).sum() == each.n
    assert found.default_target_risk == 0.1
