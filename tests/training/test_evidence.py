from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix

from bundle.confidence import softmax
from bundle.evidence import Evidence, EvidenceDocument, GraphEvidence, load_evidence, save_arrays
from bundle.novelty import energy
from bundle.predictor import Predictor, load_predictor
from tests import tiny
from training.data.splits import Examples, Splits
from training.evidence import CONFIDENCE_EDGES, Arrays, gather_evidence, reliability_bins

TEMPERATURE = 1.5


def examples(n: int, start: int) -> Examples:
    """Digits whose labels are wrong now and then."""
    random = np.random.default_rng(start)
    pixels = random.integers(0, 256, (n, 4, 4), dtype=np.uint8)
    labels = (tiny.image_logits(pixels).argmax(1) + (random.random(n) < 0.1)) % 3
    return Examples(np.arange(start, start + n), list(pixels), labels.astype(np.int64))


@pytest.fixture(scope="module")
def splits() -> Splits:
    return Splits(*(examples(300, 1_000 * i) for i in range(5)))


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return load_predictor(tiny.make_image_bundle(tmp_path_factory.mktemp("models")))


@pytest.fixture(scope="module")
def gathered(predictor: Predictor, splits: Splits) -> tuple[GraphEvidence, Arrays]:
    return gather_evidence(predictor, splits, TEMPERATURE, "a split", 0.2)


def reloaded(gathered: tuple[GraphEvidence, Arrays]) -> Evidence:
    facts, arrays = gathered
    document = EvidenceDocument(schema_version=1, graphs={"int8": facts}).model_dump_json().encode()
    evidence = load_evidence(document, save_arrays({"int8": arrays}), "int8", facts.graph_sha256)
    assert evidence is not None
    return evidence


def test_the_conformal_scores_are_of_their_own_split(
    gathered: tuple[GraphEvidence, Arrays], splits: Splits
) -> None:
    evidence = reloaded(gathered)
    logits = tiny.image_logits(np.stack(splits.conformal.items))
    probabilities = softmax(logits, TEMPERATURE)
    labels = splits.conformal.labels
    expected = 1 - probabilities[np.arange(300), labels]
    np.testing.assert_allclose(evidence.lac, np.sort(expected), atol=1e-5)
    np.testing.assert_allclose(evidence.energy, np.sort(energy(logits)), atol=1e-3)
    for label in range(3):
        np.testing.assert_allclose(evidence.by_label[label], np.sort(expected[labels == label]), atol=1e-5)
    assert evidence.facts.n == 300
    assert evidence.facts.n_errors == (probabilities.argmax(1) != labels).sum() > 0


def test_bins_and_confusion_are_of_the_test_split(
    gathered: tuple[GraphEvidence, Arrays], splits: Splits
) -> None:
    facts, _ = gathered
    answers = tiny.image_logits(np.stack(splits.test.items)).argmax(1)
    np.testing.assert_array_equal(facts.confusion, confusion_matrix(splits.test.labels, answers))
    assert sum(each.n for each in facts.bins) == 300
    assert sum(each.correct for each in facts.bins) == (answers == splits.test.labels).sum()


def test_references_count_every_input_of_the_conformal_split(gathered: tuple[GraphEvidence, Arrays]) -> None:
    for reference in gathered[0].references.values():
        assert sum(reference.counts) == 300
        assert len(reference.counts) == len(reference.edges) + 1


def test_thresholds_hold_on_the_split_that_they_were_learned_from(
    gathered: tuple[GraphEvidence, Arrays],
) -> None:
    """A tenth of the labels is wrong: nothing below that can be promised."""
    facts, _ = gathered
    assert all(each.target_risk >= 0.1 for each in facts.thresholds)
    assert all(each.errors / each.n <= each.target_risk for each in facts.thresholds)


@given(st.integers(0, 1_000))
def test_a_confidence_falls_into_exactly_one_bin(seed: int) -> None:
    random = np.random.default_rng(seed)
    confidences = np.concatenate([random.random(50), CONFIDENCE_EDGES, [1.0, 1e-9]])
    correct = random.random(len(confidences)) < confidences
    bins = reliability_bins(confidences, correct)
    assert sum(each.n for each in bins) == len(confidences)
    assert sum(each.correct for each in bins) == correct.sum()
    assert sum(each.sum_confidence for each in bins) == pytest.approx(confidences.sum())
    for each in bins:
        assert 0 <= each.ci95[0] <= each.ci95[1] <= 1
        if each.n:
            assert each.ci95[0] <= each.correct / each.n <= each.ci95[1]


def test_a_bundle_is_published_with_its_evidence(tmp_path: Path) -> None:
    from tests.training.test_assemble import run

    directory = run(tmp_path)
    document = EvidenceDocument.model_validate_json((directory / "confidence.json").read_bytes())
    assert set(document.graphs) == {"int8", "fp32"}
    arrays = (directory / "confidence.npz").read_bytes()
    for precision in ("int8", "fp32"):
        predictor = load_predictor(directory, precision=precision)
        digest = predictor.bundle.manifest.files[f"model.{precision}.onnx"]
        evidence = load_evidence((directory / "confidence.json").read_bytes(), arrays, precision, digest)
        assert evidence is not None
        assert evidence.facts.temperature == predictor.temperature
