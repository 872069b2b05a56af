"""Assembling measures first and writes last, and what it writes is what it measured."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle.golden import Golden, load_golden
from bundle.manifest import Quantization, TensorSpec
from bundle.media import ImageDecoding
from bundle.predictor import load_predictor
from bundle.repository import read_bundle
from tests import tiny
from training.assemble import TOOLS, Facts, Graphs, assemble
from training.card import CardFacts
from training.config import FitConfig, GateConfig, RecipeConfig
from training.data.splits import Examples, Splits
from training.errors import GateError
from training.golden import keep_steady
from training.provenance import processor_name

CONFIG = RecipeConfig(
    name="tiny",
    fit=FitConfig(max_epochs=1, batch_size=1, learning_rate=1),
    gates=GateConfig(max_latency_ratio=1e6, max_accuracy_loss=1, min_agreement=0),
)
QUANTIZATION = Quantization(method="static_qdq", per_channel=True, excluded_nodes=("stem",))
FACTS = Facts(
    description="A tiny model.",
    inputs=(TensorSpec(name="pixels", datatype="UINT8", shape=("batch", 4, 4), allowed_range=(0, 255)),),
    features=16,
    decoding=ImageDecoding(height=4, width=4, channels=1, background=0),
    labels=tiny.LABELS,
    max_batch_size=4,
    data_sha256="d" * 64,
    default_target_risk=0.1,
    card=CardFacts("Tiny", "Summary.", "Data.", "CC0", "Somebody", ("A limit.",)),
)


def splits() -> Splits:
    random = np.random.default_rng(0)
    parts = {}
    for i, name in enumerate(("train", "validation", "temperature", "conformal", "test")):
        pixels = random.integers(0, 256, (30, 4, 4), dtype=np.uint8)
        labels = (tiny.image_logits(pixels).argmax(1) + (random.random(30) < 0.3)) % 3
        parts[name] = Examples(np.arange(30) + 30 * i, list(pixels), labels.astype(np.int64))
    return Splits(**parts)


def run(repository: Path, gates: dict[str, Any] | None = None, **more: Any) -> Path:
    config = CONFIG.model_copy(update={"gates": CONFIG.gates.model_copy(update=gates or {})})
    graphs = Graphs(tiny.image_graph(), tiny.image_graph(0.01), QUANTIZATION, weights_commit="abc")
    return assemble(config, FACTS, graphs, splits(), {"pixels": tiny.golden_pixels()}, repository, **more)


def test_an_assembled_bundle_serves_and_tells_where_it_comes_from(tmp_path: Path) -> None:
    directory = run(tmp_path)
    assert directory == tmp_path / "tiny" / "1"
    for precision in ("int8", "fp32"):
        predictor = load_predictor(directory, precision=precision)
        assert (predictor.precision, predictor.fallback) == (precision, None)
    manifest = read_bundle(directory).manifest
    assert manifest.graphs["int8"].quantization == QUANTIZATION
    assert manifest.graphs["fp32"].quantization is None
    for graph in manifest.graphs.values():
        assert graph.metrics is not None
        assert graph.temperature is not None
        assert graph.metrics.n == graph.temperature.n == 30
    assert (manifest.max_batch_size, manifest.labels) == (4, tiny.LABELS)
    provenance = manifest.provenance
    assert (provenance.recipe, provenance.config_sha256) == ("tiny", CONFIG.sha256())
    assert provenance.data_sha256 == "d" * 64
    assert set(provenance.tool_versions) == {*TOOLS, "python"}
    assert provenance.created_at.utcoffset() is not None


def test_the_golden_logits_are_those_of_each_graph_row_by_row(tmp_path: Path) -> None:
    golden = load_golden(read_bundle(run(tmp_path)).files["golden.npz"])
    expected = tiny.image_logits(tiny.golden_pixels())
    assert np.array_equal(golden.inputs["pixels"], tiny.golden_pixels())
    np.testing.assert_allclose(golden.logits["fp32"], expected, atol=1e-5)
    np.testing.assert_allclose(golden.logits["int8"], expected + np.array([0.01, 0, 0]), atol=1e-5)


def test_the_card_tells_the_figures_of_the_manifest(tmp_path: Path) -> None:
    bundle = read_bundle(run(tmp_path))
    card = bundle.files["README.md"].decode()
    for graph in bundle.manifest.graphs.values():
        assert graph.metrics is not None
        assert f"{graph.metrics.accuracy:.4f}" in card
        assert f"{graph.metrics.nll:.4f}" in card
    assert "Somebody. Licence: CC0" in card


def test_the_report_is_made_before_publishing_and_pinned_like_every_file(tmp_path: Path) -> None:
    bundle = read_bundle(run(tmp_path))
    assert {"report.json", "report.html"} <= set(bundle.manifest.files)
    content = json.loads(bundle.read("report.json"))
    assert (content["model"], content["version"]) == ("tiny", "1")
    for precision, graph in bundle.manifest.graphs.items():
        assert graph.metrics is not None
        assert content["graphs"][precision]["accuracy"] == pytest.approx(graph.metrics.accuracy)
        assert content["graphs"][precision]["sha256"] == bundle.manifest.files[graph.file]
        assert content["graphs"][precision]["sets"]  # by the evidence of the bundle itself
    assert content["splits"] == dict.fromkeys(("train", "validation", "temperature", "conformal", "test"), 30)
    assert bundle.read("report.html").startswith(b"<!doctype html>")


def test_the_gallery_lies_outside_the_bundle(tmp_path: Path) -> None:
    gallery = tmp_path / "runs" / "gallery.html"
    directory = run(tmp_path / "models", gallery=gallery)
    assert b"data:image/png" in gallery.read_bytes()
    assert "gallery.html" not in read_bundle(directory).manifest.files


def test_strangers_stand_in_the_report(tmp_path: Path) -> None:
    strangers = {"nights": [np.zeros((4, 4), np.uint8)] * 3}
    content = json.loads(read_bundle(run(tmp_path, strangers=strangers)).read("report.json"))
    kinds = {each["name"]: each["n"] for each in content["graphs"]["int8"]["novelty"]["strangers"]}
    assert kinds["nights"] == 3


def test_the_next_run_publishes_the_next_version(tmp_path: Path) -> None:
    assert [run(tmp_path).name for _ in range(2)] == ["1", "2"]


@pytest.mark.parametrize(
    ("gates", "figure"),
    [({"max_latency_ratio": 0.0}, "latency"), ({"max_accuracy_loss": -1.0}, "accuracy")],
)
def test_behind_a_gate_nothing_is_published(tmp_path: Path, gates: dict[str, float], figure: str) -> None:
    with pytest.raises(GateError, match=figure):
        run(tmp_path, gates)
    assert list(tmp_path.iterdir()) == []


def test_graphs_that_disagree_are_not_published(tmp_path: Path) -> None:
    graphs = Graphs(tiny.image_graph(), tiny.image_graph(50.0), QUANTIZATION, "abc")
    config = CONFIG.model_copy(update={"gates": GateConfig(
        max_latency_ratio=1e6, max_accuracy_loss=1, min_agreement=0.9
    )})  # fmt: skip
    with pytest.raises(GateError, match="agrees with fp32"):
        assemble(config, FACTS, graphs, splits(), {"pixels": tiny.golden_pixels()}, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_processor_has_a_name_of_one_line() -> None:
    assert re.fullmatch(r"\S.*\S|\S", processor_name())


def test_golden_examples_that_int8_itself_moves_too_far_are_left_out() -> None:
    sure, close = [5.0, -5.0], [0.0, 0.0]
    fp32 = np.array([sure, close, sure, close], np.float32)
    int8 = np.array([sure, [0.02, -0.02], sure, [0.03, -0.03]], np.float32)  # by .01 and .015
    golden = Golden({"x": np.arange(4)}, {"int8": int8, "fp32": fp32})
    kept = keep_steady(golden, {"int8": 1.0, "fp32": 1.0})
    assert kept.inputs["x"].tolist() == [0, 1, 2]
    np.testing.assert_array_equal(kept.logits["int8"], int8[:3])
    assert len(keep_steady(golden, {"int8": 2.0, "fp32": 2.0})) == 4
    with pytest.raises(GateError, match="int8 moves 4 of 4 golden examples too far"):
        keep_steady(golden, {"int8": 0.001, "fp32": 5.0})
