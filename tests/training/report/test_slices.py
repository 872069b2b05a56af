from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests import tiny
from training.report.answers import Answers, Subject
from training.report.slices import measure_slices


def test_slices_are_parts_of_the_whole(subject: Subject, int8: Answers) -> None:
    found = measure_slices(subject, int8)
    assert [each.name for each in found["label"]] == list(tiny.LABELS)
    assert [each.name for each in found["group"]] == ["ann", "bob"]
    for slices in found.values():
        assert sum(each.n for each in slices) == len(int8.labels)
        assert sum(each.n * each.accuracy for each in slices) == pytest.approx(int8.correct.sum())
    ann = found["group"][0]
    inside = np.arange(len(int8.labels)) % 2 == 0
    assert ann.accuracy == int8.correct[inside].mean()
    assert ann.ci95[0] <= ann.accuracy <= ann.ci95[1]
    assert ann.confidence == pytest.approx(int8.confidences[inside].mean())
    p_values = int8.p_values("marginal")
    assert p_values is not None
    assert int8.novelty is not None
    assert ann.coverage == (p_values[np.arange(len(inside)), int8.labels][inside] > 0.05).mean()
    assert ann.false_flags == (int8.novelty[inside] <= 0.05).mean()


def test_what_is_not_known_is_left_out(subject: Subject, int8: Answers) -> None:
    found = measure_slices(replace(subject, groups=None), replace(int8, evidence=None))
    assert list(found) == ["label"]
    assert all(each.coverage is None and each.false_flags is None for each in found["label"])
