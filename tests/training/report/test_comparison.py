from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from bundle.answer import Outputs
from bundle.manifest import Precision
from training.report.answers import Answers, Subject
from training.report.comparison import SHIFT_EDGES, compare

SIZES: dict[Precision, int] = {"int8": 100, "fp32": 400}


def moved(answers: Answers, by: float) -> Answers:
    logits = answers.outputs.logits + np.array([by, 0, 0], np.float32)
    return replace(answers, outputs=Outputs({**answers.outputs.arrays, "logits": logits}))


def test_what_int8_changes_is_counted_row_by_row(
    subject: Subject, answers: Mapping[Precision, Answers]
) -> None:
    int8, fp32 = moved(answers["int8"], 1.0), answers["fp32"]
    found = compare(subject.manifest, SIZES, {"int8": int8, "fp32": fp32})
    assert found is not None
    flips = [a != b for a, b in zip(int8.chosen, fp32.chosen, strict=True)]
    assert sum(flips) > 0
    assert found.agreement == pytest.approx(1 - np.mean(flips))
    assert sum(each.flips for each in found.flips) == sum(flips)
    for index, each in enumerate(found.flips):
        own = fp32.labels == index
        assert (each.label, each.n, each.flips) == (
            subject.manifest.labels[index],
            own.sum(),
            np.sum(np.array(flips) & own),
        )
    assert found.gained == sum(a and not b for a, b in zip(int8.correct, fp32.correct, strict=True))
    assert found.lost == sum(b and not a for a, b in zip(int8.correct, fp32.correct, strict=True))
    shifts = [max(abs(p - q)) for p, q in zip(int8.probabilities, fp32.probabilities, strict=True)]
    assert (found.mean_shift, found.max_shift) == (pytest.approx(np.mean(shifts)), pytest.approx(max(shifts)))
    assert len(found.shifts) == len(SHIFT_EDGES) - 1
    assert sum(found.shifts) == len(shifts)
    assert found.size_ratio == 0.25


def test_the_difference_map_is_the_mean_by_right_label(
    subject: Subject, answers: Mapping[Precision, Answers]
) -> None:
    int8, fp32 = moved(answers["int8"], 1.0), answers["fp32"]
    found = compare(subject.manifest, SIZES, {"int8": int8, "fp32": fp32})
    assert found is not None
    for label, row in enumerate(found.difference):
        own = int8.labels == label
        np.testing.assert_allclose(row, (int8.probabilities - fp32.probabilities)[own].mean(axis=0))
        assert sum(row) == pytest.approx(0, abs=1e-9)
        assert row[0] > 0


def test_latencies_are_those_of_the_manifest(subject: Subject, answers: Mapping[Precision, Answers]) -> None:
    found = compare(subject.manifest, SIZES, answers)
    assert found is not None
    for precision in ("int8", "fp32"):
        metrics = subject.manifest.graphs[precision].metrics
        assert metrics is not None
        assert found.latency_ms[precision] == metrics.latency_ms
    assert list(found.latency_ratio) == [1, 8, 32]


def test_one_graph_alone_is_not_compared(subject: Subject, answers: Mapping[Precision, Answers]) -> None:
    assert compare(subject.manifest, SIZES, {"fp32": answers["fp32"]}) is None
