from __future__ import annotations

import numpy as np

from bundle.conformal import lac_scores
from bundle.predictor import Predictor
from tests import tiny
from tests.calibrated import splits
from training.report.answers import Answers, Subject


def test_a_subject_tells_what_it_is_judged_by(subject: Subject) -> None:
    assert subject.items is not None
    np.testing.assert_array_equal(np.stack(subject.items), np.stack(splits().test.items))
    assert subject.sizes == dict.fromkeys(("train", "validation", "temperature", "conformal", "test"), 800)
    kinds = dict(subject.kinds())
    assert list(kinds) == ["label", "group"]
    assert kinds["label"].tolist() == [tiny.LABELS[i] for i in subject.labels]
    assert set(kinds["group"].tolist()) == {"ann", "bob"}


def test_answers_are_those_of_the_graph_at_its_temperature(int8: Answers, subject: Subject) -> None:
    assert subject.items is not None
    logits = tiny.image_logits(np.stack(subject.items)) + np.array([0.001, 0, 0])
    np.testing.assert_allclose(int8.outputs.logits, logits, atol=1e-4)
    assert int8.temperature == subject.predictors["int8"].temperature
    np.testing.assert_array_equal(int8.chosen, int8.outputs.logits.argmax(axis=1))
    np.testing.assert_array_equal(int8.correct, int8.chosen == subject.labels)
    assert int8.confidences.max() <= 1


def test_p_values_and_novelty_are_those_that_the_service_tells(int8: Answers, subject: Subject) -> None:
    predictor: Predictor = subject.predictors["int8"]
    judged = [answer.judgement for answer in predictor.answer(subject.rows[:8])]
    marginal, by_label = int8.p_values("marginal"), int8.p_values("label")
    assert marginal is not None
    assert by_label is not None
    assert int8.novelty is not None
    assert int8.evidence is not None
    np.testing.assert_allclose(marginal[:8], [each.label_p_values for each in judged])
    np.testing.assert_allclose(int8.novelty[:8], [each.novelty_p_value for each in judged])
    own = int8.evidence.by_label[1]
    score = lac_scores(int8.probabilities)[0, 1]
    assert by_label[0, 1] == (1 + (own >= score).sum()) / (len(own) + 1)
