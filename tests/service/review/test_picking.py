"""What is picked is what `:confidence` does not accept, and what the operator asks for beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle.answer import Answer
from bundle.predictor import Predictor, load_predictor
from service.api.confidence import Policy, render_confidence
from service.review.picking import BELOW_BOUND, can_pick, is_judged, pick
from tests import tensor_models, tiny
from tests.calibrated import make_calibrated_bundle

DEFAULT = Policy(alpha=0.05, target_risk=None, withhold=False, top_k=3)


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return load_predictor(make_calibrated_bundle(tmp_path_factory.mktemp("models")))


def answers_of(predictor: Predictor, n: int = 8) -> list[Answer]:
    """To grey squares, some of which are like no example: all black, all white, half and half."""
    pixels = np.random.default_rng(5).integers(0, 256, (n, 4, 4), dtype=np.uint8)
    pixels[0], pixels[1], pixels[2, :2], pixels[2, 2:] = 0, 255, 0, 255
    return predictor.answer([{"pixels": item} for item in pixels])


def test_what_the_policy_does_not_accept_is_picked_with_what_is_known_of_it(predictor: Predictor) -> None:
    picked: dict[int, Any] = {}
    results: list[dict[str, Any]] = []
    for start in range(20):
        pixels = np.random.default_rng(start).integers(0, 256, (8, 4, 4), dtype=np.uint8)
        pixels[start % 8] = 255 * (start % 2)
        answers = predictor.answer([{"pixels": item} for item in pixels])
        picked |= {len(results) + each.place: each for each in pick(predictor, answers, 0)}
        results += render_confidence(predictor, answers, DEFAULT)["results"]
    refused = {place for place, result in enumerate(results) if not result["accepted"]}
    assert set(picked) == refused
    assert 5 < len(refused) < len(results) - 5
    for place, each in picked.items():
        result = results[place]
        assert each.answer == result["label"]
        assert each.reasons == tuple(result["reasons"])
        assert (each.confidence, each.confidence_raw) == (result["confidence"], result["confidence_raw"])
        assert each.novelty_p_value == result["ood"]["p_value"]
        expected = min(each.confidence, each.novelty_p_value) if "ood" in each.reasons else each.confidence
        assert each.sureness == expected
    assert {reason for each in picked.values() for reason in each.reasons} == {"ood", "low_confidence"}


def test_a_bound_of_the_operators_own_picks_more(predictor: Predictor) -> None:
    answers = answers_of(predictor)
    by_policy = {each.place for each in pick(predictor, answers, 0)}
    all_of_them = pick(predictor, answers, 1)
    assert [each.place for each in all_of_them] == list(range(8))
    assert all(BELOW_BOUND in each.reasons for each in all_of_them)
    assert {each.place for each in all_of_them if each.reasons != (BELOW_BOUND,)} == by_policy


def test_without_evidence_only_the_bound_counts(tmp_path: Path) -> None:
    predictor = load_predictor(tiny.make_image_bundle(tmp_path))
    answers = answers_of(predictor)
    assert not can_pick(predictor, 0)
    assert can_pick(predictor, 0.5)
    assert pick(predictor, answers, 0) == []
    confidences = [max(each.confidence.probabilities) for each in answers]
    bound = sorted(confidences)[4]
    picked = pick(predictor, answers, bound)
    assert {each.place for each in picked} == {i for i, value in enumerate(confidences) if value < bound}
    assert all(each.novelty_p_value is None and each.reasons == (BELOW_BOUND,) for each in picked)


def test_where_nothing_was_calibrated_no_confidence_is_told(tmp_path: Path) -> None:
    predictor = load_predictor(tiny.make_image_bundle(tmp_path, calibrated=False))
    (first, *_) = pick(predictor, answers_of(predictor), 1)
    assert first.confidence is None
    assert 0 < first.confidence_raw < 1
    assert first.sureness == pytest.approx(first.confidence_raw)


def test_of_a_model_that_classifies_nothing_nothing_is_picked(tmp_path: Path) -> None:
    assert not can_pick(load_predictor(tensor_models.make_roots(tmp_path)), 1)


def test_what_a_caller_had_judged_is_known(predictor: Predictor, tmp_path: Path) -> None:
    answers = answers_of(predictor)
    assert not is_judged(predictor, answers)
    assert answers[3].judgement
    assert is_judged(predictor, answers)
    bare = load_predictor(tiny.make_image_bundle(tmp_path))
    answers = answers_of(bare)
    assert not is_judged(bare, answers)
    assert answers[0].confidence
    assert is_judged(bare, answers)
