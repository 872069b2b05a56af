from __future__ import annotations

import io
import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from bundle.confidence import softmax
from bundle.errors import EvidenceError
from bundle.evidence import Evidence, load_evidence, save_arrays
from bundle.judgement import conformal_confidence, credibility, judge, label_set, observed_bin, threshold_for

DIGEST = "a" * 64
N = 40


def document(**changes: Any) -> dict[str, Any]:
    edges = (0.0, 0.5, 0.9, 1.0)
    part = {
        "graph_sha256": DIGEST,
        "temperature": 1.0,
        "split": "forty inputs",
        "n": N,
        "n_errors": 2,
        "novelty_alpha": 0.01,
        "thresholds": [
            {"target_risk": 0.01, "delta": 0.05, "threshold": 0.9, "n": 30, "errors": 0, "coverage": 0.75},
            {"target_risk": 0.05, "delta": 0.05, "threshold": 0.6, "n": 36, "errors": 1, "coverage": 0.9},
        ],
        "default_target_risk": 0.05,
        "bins": [
            {"low": low, "high": high, "n": 10, "correct": 9, "sum_confidence": 9.0, "ci95": [0.5, 1.0]}
            for low, high in pairwise(edges)
        ],
        "confusion": [[10, 0, 0], [1, 9, 0], [0, 0, 10]],
        "references": {"confidence": {"edges": [0.5], "counts": [5, 35]}},
        **changes,
    }
    return {"schema_version": 1, "graphs": {"int8": part}}


def arrays(**changes: np.ndarray) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        "lac": random.random(N).astype(np.float32),
        "lac_labels": (np.arange(N) % 3).astype(np.int32),
        "energy": random.normal(size=N).astype(np.float32),
        "familiarity": -random.random(N).astype(np.float32),
        "means": random.normal(size=(3, 5)).astype(np.float32),
        "whitening": np.eye(5, dtype=np.float32),
        **changes,
    }


def load(content: dict[str, Any] | None = None, found: dict[str, np.ndarray] | None = None) -> Evidence:
    evidence = load_evidence(
        json.dumps(content or document()).encode(), save_arrays({"int8": found or arrays()}), "int8", DIGEST
    )
    assert evidence is not None
    return evidence


def test_scores_are_sorted_and_by_label() -> None:
    evidence = load()
    assert (np.diff(evidence.lac) >= 0).all()
    assert sum(map(len, evidence.by_label)) == N
    expected = np.sort(arrays()["lac"][arrays()["lac_labels"] == 1])
    np.testing.assert_array_equal(evidence.by_label[1], expected)


def test_a_graph_without_a_part_has_no_evidence() -> None:
    content = json.dumps(document()).encode()
    assert load_evidence(content, save_arrays({"int8": arrays()}), "fp32", DIGEST) is None


def test_evidence_of_another_graph_is_refused() -> None:
    content = json.dumps(document()).encode()
    with pytest.raises(EvidenceError, match="of another graph"):
        load_evidence(content, save_arrays({"int8": arrays()}), "int8", "b" * 64)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"temperature": 0}, "temperature"),
        ({"surprise": 1}, "surprise"),
        ({"n": N + 1}, "not of the 41 inputs"),
        ({"confusion": [[1, 2], [3, 4]]}, "do not fit 2 labels"),
    ],
)
def test_a_document_that_makes_no_sense_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(EvidenceError, match=reason):
        load(document(**changes))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"energy": np.full(N, np.nan, np.float32)}, "finite numbers"),
        ({"lac": np.zeros(3, np.float32)}, "not of the 40 inputs"),
        ({"whitening": np.eye(4, dtype=np.float32)}, "do not fit"),
        ({"lac": np.array(["text"] * N)}, "finite numbers"),
    ],
)
def test_arrays_that_make_no_sense_are_refused(changes: dict[str, np.ndarray], reason: str) -> None:
    with pytest.raises(EvidenceError, match=reason):
        load(found=arrays(**changes))


@pytest.mark.parametrize("content", [b"", b"no archive", save_arrays({"fp32": arrays()})[:-30]])
def test_a_damaged_file_is_refused(content: bytes) -> None:
    with pytest.raises(EvidenceError, match="cannot be read"):
        load_evidence(json.dumps(document()).encode(), content, "int8", DIGEST)


def test_pickled_objects_are_refused() -> None:
    buffer = io.BytesIO()
    pickled = {f"int8.{name}": np.array([{}] * N, object) for name in arrays()}
    np.savez(buffer, **pickled)  # type: ignore[arg-type]
    with pytest.raises(EvidenceError, match="cannot be read"):
        load_evidence(json.dumps(document()).encode(), buffer.getvalue(), "int8", DIGEST)


def test_every_row_is_judged_as_it_would_be_alone() -> None:
    evidence = load()
    random = np.random.default_rng(1)
    logits, features = random.normal(size=(6, 3)) * 4, random.normal(size=(6, 5))
    together = judge(evidence, logits, features, softmax(logits)).one_by_one()
    for i, found in enumerate(together):
        (alone,) = judge(
            evidence, logits[i : i + 1], features[i : i + 1], softmax(logits[i : i + 1])
        ).one_by_one()
        assert found.label_p_values == alone.label_p_values
        assert found.familiarity == pytest.approx(alone.familiarity)
        assert (found.energy, found.novelty_p_value) == (alone.energy, alone.novelty_p_value)
        assert found.novelty_p_value == min(1.0, 2 * min(found.energy_p_value, found.familiarity_p_value))
        assert credibility(found.label_p_values) == max(found.label_p_values)
        others = sorted(found.label_p_values)
        assert conformal_confidence(found.label_p_values) == 1 - others[1]


def test_the_p_value_of_a_label_is_the_share_that_fits_no_better() -> None:
    evidence = load()
    probabilities = np.array([[0.7, 0.2, 0.1]])
    (found,) = judge(evidence, np.log(probabilities), np.ones((1, 5)), probabilities).one_by_one()
    expected = [(1 + (evidence.lac >= 1 - p).sum()) / (N + 1) for p in probabilities[0]]
    np.testing.assert_allclose(found.label_p_values, expected)


def test_a_set_holds_the_labels_over_alpha_and_always_the_answer() -> None:
    assert label_set([0.5, 0.04, 0.2], 0.05, best=0) == ([0, 2], False)
    assert label_set([0.5, 0.04, 0.2], 0.6, best=0) == ([0], True)
    assert label_set([0.01, 0.02, 0.2], 0.1, best=0) == ([0, 2], True)


def test_a_bin_holds_the_confidences_up_to_its_end() -> None:
    evidence = load()
    assert [observed_bin(evidence, value)["high"] for value in (0.1, 0.5, 0.51, 0.9, 1.0)] == [
        0.5,
        0.5,
        0.9,
        0.9,
        1.0,
    ]


def test_a_threshold_is_the_loosest_that_is_proven_for_the_risk() -> None:
    evidence = load()
    assert threshold_for(evidence, 0.001) is None
    for risk, expected in ((0.01, 0.9), (0.04, 0.9), (0.05, 0.6), (0.5, 0.6)):
        found = threshold_for(evidence, risk)
        assert found is not None
        assert found.threshold == expected
