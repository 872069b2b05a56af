"""Every bundle in the model repository is whole, proves itself on this machine, and keeps its promises."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from bundle.manifest import REPORT_FILE, Manifest, Metrics, Precision
from bundle.predictor import load_predictor
from bundle.repository import list_bundles, read_bundle
from tests.committed import MNIST_CNN, MODELS, SPOKEN_DIGITS_LSTM
from training.card import write_card
from training.recipes import mnist_cnn, spoken_digits_lstm
from training.recipes.mnist_cnn import MnistCnnConfig
from training.recipes.spoken_digits_lstm import SpokenDigitsLstmConfig

BUNDLES = [
    MODELS / name / str(version) for name, versions in list_bundles(MODELS).items() for version in versions
]
IDS = [f"{path.parent.name}/{path.name}" for path in BUNDLES]
# int8 / fp32 of latency at batch 8, and of size: what the models were accepted by when they were published.
ACCEPTED = {"mnist-cnn": (0.45, 0.30), "spoken-digits-lstm": (0.85, 0.60)}
COMMITTED = [MNIST_CNN, SPOKEN_DIGITS_LSTM]
CONFIGS = {"mnist-cnn": MnistCnnConfig(), "spoken-digits-lstm": SpokenDigitsLstmConfig()}


def metrics_of(manifest: Manifest, precision: Precision) -> Metrics:
    metrics = manifest.graphs[precision].metrics
    assert metrics is not None
    return metrics


def test_the_repository_holds_both_models() -> None:
    assert set(ACCEPTED) <= set(list_bundles(MODELS))


@pytest.mark.parametrize("directory", BUNDLES, ids=IDS)
@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_a_bundle_loads_and_reproduces_its_golden_outputs(directory: Path, precision: Precision) -> None:
    predictor = load_predictor(directory, precision=precision)
    predictor.warm_up()
    assert predictor.precision == precision
    assert predictor.fallback is None


@pytest.mark.parametrize("directory", BUNDLES, ids=IDS)
def test_a_bundle_holds_only_the_files_of_its_manifest(directory: Path) -> None:
    manifest = read_bundle(directory).manifest
    assert {path.name for path in directory.iterdir()} == {*manifest.files, "manifest.json"}


@pytest.mark.parametrize("directory", COMMITTED, ids=list(ACCEPTED))
def test_a_committed_model_is_what_its_job_makes(directory: Path) -> None:
    provenance = read_bundle(directory).manifest.provenance
    assert provenance.config_sha256 == CONFIGS[directory.parent.name].sha256()
    for commit in (provenance.git_commit, provenance.weights_commit):
        assert len(commit) == 40  # neither unknown nor with changes on top


@pytest.mark.parametrize("directory", COMMITTED, ids=list(ACCEPTED))
def test_the_card_is_written_from_the_manifest(directory: Path) -> None:
    manifest = read_bundle(directory).manifest
    recipe = mnist_cnn if manifest.name == "mnist-cnn" else spoken_digits_lstm
    facts = recipe.facts(CONFIGS[manifest.name])
    assert (directory / "README.md").read_text(encoding="utf-8") == write_card(manifest, facts.card)


@pytest.mark.parametrize("directory", COMMITTED, ids=list(ACCEPTED))
def test_every_figure_of_a_committed_report_was_measured_and_holds(directory: Path) -> None:
    report = json.loads(read_bundle(directory).read(REPORT_FILE))
    assert report["figures"]
    assert [each for each in report["figures"] if each["held"] is not True] == []
    assert report["held"] is True


@pytest.mark.parametrize("directory", COMMITTED, ids=list(ACCEPTED))
def test_the_measured_figures_are_those_the_model_was_accepted_by(directory: Path) -> None:
    manifest = read_bundle(directory).manifest
    int8, fp32 = metrics_of(manifest, "int8"), metrics_of(manifest, "fp32")
    max_latency, max_size = ACCEPTED[manifest.name]
    assert int8.latency_ms[8] / fp32.latency_ms[8] <= max_latency
    assert int8.size_bytes / fp32.size_bytes <= max_size
    assert int8.size_bytes == (directory / manifest.graphs["int8"].file).stat().st_size


@pytest.mark.parametrize("directory", BUNDLES, ids=IDS)
def test_graphs_are_portable_and_tell_nothing_of_the_machine(directory: Path) -> None:
    for graph in read_bundle(directory).manifest.graphs.values():
        model = onnx.load(directory / graph.file)
        assert model.ir_version <= 10
        assert {entry.version for entry in model.opset_import if entry.domain == ""} == {20}
        assert not model.metadata_props
        assert b"site-packages" not in (directory / graph.file).read_bytes()


def test_the_lstm_is_quantized_and_its_front_end_is_not() -> None:
    directory = SPOKEN_DIGITS_LSTM
    sizes = {}
    for precision in ("int8", "fp32"):
        model = onnx.load(directory / f"model.{precision}.onnx")
        operators = [node.op_type for node in model.graph.node]
        lstm = operators.index("DynamicQuantizeLSTM" if precision == "int8" else "LSTM")
        read_before = {name for node in model.graph.node[:lstm] for name in node.input}
        front_end = [tensor for tensor in model.graph.initializer if tensor.name in read_before]
        assert onnx.TensorProto.INT8 not in {tensor.data_type for tensor in front_end}
        constants = sum(len(tensor.raw_data) for tensor in front_end)
        assert constants > 100_000
        sizes[precision] = (directory / f"model.{precision}.onnx").stat().st_size - constants
    assert sizes["int8"] / sizes["fp32"] <= 0.30


def test_all_model_files_together_are_small() -> None:
    files = [path for directory in COMMITTED for path in directory.iterdir()]
    assert sum(path.stat().st_size for path in files) <= 8_000_000


def test_golden_inputs_differ_from_each_other() -> None:
    for directory in BUNDLES:
        with np.load(directory / "golden.npz", allow_pickle=False) as golden:
            inputs = [golden[key] for key in golden.files if key.startswith("input.")]
            assert all(len(np.unique(array, axis=0)) > 1 for array in inputs)
