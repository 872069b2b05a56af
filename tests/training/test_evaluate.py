"""The gates, and figures that are measured on the right split through the predictor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle.manifest import Manifest
from bundle.predictor import create_predictor
from bundle.repository import Bundle, read_bundle
from tests import tiny
from tests.training.test_isolation import jealous_graph
from training.calibrate import fit_temperature
from training.config import GateConfig
from training.data.splits import Examples, Splits
from training.errors import GateError
from training.evaluate import check_gates, evaluate
from training.scores import score

OPEN = GateConfig(max_latency_ratio=1e6, max_accuracy_loss=1, min_agreement=0)
SIZES = {"train": 1, "validation": 40, "temperature": 60, "conformal": 1, "test": 50}
FAST = {"fp32": {8: 2.0}, "int8": {8: 1.0}}


def make_splits(wrong: str = "") -> Splits:
    """Random 4 x 4 images with the tiny model's own labels, three in ten of them wrong.

    Args:
        wrong: a split whose labels are all wrong.
    """
    random = np.random.default_rng(0)
    parts, start = {}, 0
    for name, size in SIZES.items():
        pixels = random.integers(0, 256, (size, 4, 4), dtype=np.uint8)
        labels = tiny.image_logits(pixels).argmax(1).astype(np.int64)
        moved = random.random(size) < (1.0 if name == wrong else 0.3)
        parts[name] = Examples(start + np.arange(size), list(pixels), (labels + moved) % 3)
        start += size
    return Splits(**parts)


def make_bundle(folder: Path, int8_error: float = 0.0) -> Bundle:
    def change(manifest: Manifest) -> Manifest:
        graphs = {
            precision: graph.model_copy(update={"metrics": None})
            for precision, graph in manifest.graphs.items()
        }
        return manifest.model_copy(update={"graphs": graphs})

    return read_bundle(tiny.make_image_bundle(folder, int8_error=int8_error, calibrated=False, change=change))


def logits_of(bundle: Bundle, precision: Any, examples: Examples) -> np.ndarray:
    predictor = create_predictor(bundle, precision)
    return predictor.run_all(predictor.rows(examples.items)).logits


def test_every_figure_comes_from_its_own_split(tmp_path: Path) -> None:
    bundle, splits = make_bundle(tmp_path, int8_error=1.5), make_splits()
    found = evaluate(bundle, splits, OPEN)
    test_fp32 = logits_of(bundle, "fp32", splits.test)
    for precision in ("fp32", "int8"):
        fit = fit_temperature(logits_of(bundle, precision, splits.temperature), splits.temperature.labels)
        logits = logits_of(bundle, precision, splits.test)
        before, after = (score(logits, splits.test.labels, t) for t in (1.0, fit.value))
        temperature, metrics = found[precision].temperature, found[precision].metrics
        assert temperature.method == "temperature_map"
        assert (temperature.value, temperature.n, temperature.n_errors) == (fit.value, 60, fit.n_errors)
        assert (temperature.ece_before, temperature.ece_after) == (before.ece, after.ece)
        assert (metrics.n, metrics.accuracy) == (50, before.accuracy)
        assert (metrics.nll, metrics.brier) == (after.nll, after.brier)
        assert metrics.agreement == (logits.argmax(1) == test_fp32.argmax(1)).mean()
        assert metrics.size_bytes == len(bundle.graph(precision))
        assert list(metrics.latency_ms) == [1, 8, 32]
        assert min(metrics.latency_ms.values()) > 0
    assert found["fp32"].metrics.agreement == 1 > found["int8"].metrics.agreement


def test_the_test_split_takes_part_in_no_choice(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    strict = GateConfig(max_latency_ratio=1e6, max_accuracy_loss=0, min_agreement=1)
    usual, odd = (evaluate(bundle, make_splits(wrong), strict) for wrong in ("", "test"))
    assert odd["int8"].temperature.value == usual["int8"].temperature.value
    assert odd["int8"].metrics.accuracy < usual["int8"].metrics.accuracy


def test_the_gates_look_at_validation_and_nowhere_else(tmp_path: Path) -> None:
    bundle, splits = make_bundle(tmp_path, int8_error=1.5), make_splits()
    pixels = np.random.default_rng(1).integers(0, 256, (300, 4, 4), dtype=np.uint8)
    logits = tiny.image_logits(pixels)
    same = logits.argmax(1) == (logits + np.array([1.5, 0, 0])).argmax(1)
    alike, apart = (
        {"items": list(pixels[chosen][:20]), "labels": logits[chosen][:20].argmax(1)}
        for chosen in (same, ~same)
    )
    strict = GateConfig(max_latency_ratio=1e6, max_accuracy_loss=0, min_agreement=1)

    def put(validation: dict[str, Any], rest: dict[str, Any]) -> Splits:
        parts = {name: Examples(part.ids[:1], rest["items"][:1], rest["labels"][:1]) for name, part in splits}
        for name, chosen in (("validation", validation), ("temperature", rest), ("test", rest)):
            parts[name] = Examples(getattr(splits, name).ids[:20], **chosen)
        return Splits(**parts)

    assert evaluate(bundle, put(alike, apart), strict)["int8"].metrics.agreement == 0
    with pytest.raises(GateError, match="accuracy"):
        evaluate(bundle, put(apart, alike), strict)


def test_a_temperature_that_is_not_kept_is_called_identity(tmp_path: Path) -> None:
    splits = make_splits()
    bundle = make_bundle(tmp_path)
    right = logits_of(bundle, "fp32", splits.temperature).argmax(1).astype(np.int64)
    sure = Examples(splits.temperature.ids, splits.temperature.items, right)
    found = evaluate(bundle, Splits(**{**dict(splits), "temperature": sure}), OPEN)["fp32"].temperature
    assert (found.method, found.value, found.n_errors) == ("identity", 1.0, 0)
    assert found.ece_before == found.ece_after


def test_a_graph_behind_a_gate_is_not_evaluated(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path, int8_error=20.0)
    strict = GateConfig(max_latency_ratio=1e6, max_accuracy_loss=1, min_agreement=0.9)
    with pytest.raises(GateError, match="agrees with fp32 on"):
        evaluate(bundle, make_splits(), strict)


def test_what_the_worst_mates_do_is_measured_where_rows_run_together(tmp_path: Path) -> None:
    bundle, splits = make_bundle(tmp_path), make_splits()
    found = evaluate(bundle, splits, OPEN)
    for precision in ("int8", "fp32"):
        shift = found[precision].metrics.mate_shift
        assert shift is not None
        assert 0 <= shift <= 1e-5
    alone = replace(bundle, manifest=bundle.manifest.model_copy(update={"max_batch_size": 1}))
    assert evaluate(alone, splits, OPEN)["int8"].metrics.mate_shift is None


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_a_graph_whose_rows_move_each_other_is_refused_unless_they_run_alone(
    tmp_path: Path, precision: str
) -> None:
    bundle, splits = make_bundle(tmp_path), make_splits()
    files = {**bundle.files, f"model.{precision}.onnx": jealous_graph().SerializeToString()}
    message = (
        rf"{precision} is not published for batches of 8: .* change \d+ labels .*; allowed are 0 and 1e-05"
    )
    with pytest.raises(GateError, match=message):
        evaluate(replace(bundle, files=files), splits, OPEN)
    manifest = bundle.manifest.model_copy(update={"max_batch_size": 1})
    evaluate(replace(bundle, files=files, manifest=manifest), splits, OPEN)


def one_hot(labels: np.ndarray) -> np.ndarray:
    return np.eye(4, dtype=np.float32)[labels] * 5


LABELS = np.arange(100) % 4
ONE_WRONG = np.where(np.arange(100) == 0, 1, LABELS)
GATES = GateConfig(max_latency_ratio=0.9, max_accuracy_loss=0.005, min_agreement=0.995)


def test_a_good_graph_passes_every_gate() -> None:
    check_gates({"fp32": one_hot(LABELS), "int8": one_hot(LABELS)}, LABELS, FAST, GATES)


def test_a_slow_graph_is_refused_by_its_latency() -> None:
    slow = {"fp32": {8: 1.0}, "int8": {8: 1.5}}
    with pytest.raises(GateError, match=r"its latency at batch 8 is 1\.50 of fp32, allowed is 0\.9"):
        check_gates({"fp32": one_hot(LABELS), "int8": one_hot(LABELS)}, LABELS, slow, GATES)


def test_a_less_accurate_graph_is_refused_by_its_accuracy() -> None:
    message = r"loses 0\.0100 of accuracy on validation \(1\.0000 to 0\.9900\), allowed is 0\.005"
    with pytest.raises(GateError, match=message):
        check_gates({"fp32": one_hot(LABELS), "int8": one_hot(ONE_WRONG)}, LABELS, FAST, GATES)


def test_a_graph_that_answers_otherwise_is_refused_by_its_agreement_though_it_be_more_accurate() -> None:
    with pytest.raises(GateError, match=r"agrees with fp32 on 0\.9900 of validation, required is 0\.995"):
        check_gates({"fp32": one_hot(ONE_WRONG), "int8": one_hot(LABELS)}, LABELS, FAST, GATES)


def test_a_figure_that_is_no_number_passes_no_gate() -> None:
    latencies = {"fp32": {8: 1.0}, "int8": {8: float("nan")}}
    with pytest.raises(GateError, match="latency"):
        check_gates({"fp32": one_hot(LABELS), "int8": one_hot(LABELS)}, LABELS, latencies, GATES)


def test_a_figure_on_its_bound_passes() -> None:
    exact = GateConfig(max_latency_ratio=0.5, max_accuracy_loss=0.25, min_agreement=0.75)
    labels = np.zeros(4, dtype=np.int64)
    int8 = one_hot(np.array([0, 0, 0, 1]))
    check_gates({"fp32": one_hot(labels), "int8": int8}, labels, FAST, exact)
