"""The CNN's recipe from splits to a bundle that serves, in two steps of training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle.manifest import GOLDEN_FILE
from bundle.predictor import load_predictor
from bundle.repository import read_bundle
from tests.small import FIT, OPEN_GATES, WIDTHS, digit_splits
from training.config import Places
from training.data import mnist
from training.errors import DataError, ExportError, GateError
from training.recipes.mnist_cnn import MnistCnnConfig, build, facts, golden_inputs, train
from training.report.gallery import GALLERY_FILE

CONFIG = MnistCnnConfig(fit=FIT, gates=OPEN_GATES, widths=WIDTHS, max_batch_size=4)
pytestmark = pytest.mark.filterwarnings(
    "ignore:The number of training batches .* is smaller than the logging"
)


def places_in(folder: Path) -> Places:
    return Places(data_dir=folder / "data", models_dir=folder / "models", runs_dir=folder / "runs")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Places]:
    """A published bundle and its places."""
    places = places_in(tmp_path_factory.mktemp("cnn"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mnist, "load_mnist", load_only(places.data_dir))
        return train(CONFIG, places), places


def load_only(expected: Path) -> Callable[[Path], Any]:
    def load(data_dir: Path) -> Any:
        assert data_dir == expected
        return digit_splits()

    return load


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_the_bundle_loads_and_answers(bundle: tuple[Path, Places], precision: Any) -> None:
    predictor = load_predictor(bundle[0], precision=precision)
    assert (predictor.precision, predictor.fallback) == (precision, None)
    predictor.warm_up()
    outputs = predictor.run_all(predictor.rows(digit_splits().test.items))
    assert outputs.logits.shape == (20, 10)
    assert outputs.features.shape == (20, WIDTHS[-1])
    assert np.isfinite(outputs.logits).all()


def test_the_manifest_tells_what_was_made(bundle: tuple[Path, Places]) -> None:
    manifest = read_bundle(bundle[0]).manifest
    assert (manifest.name, manifest.version, manifest.max_batch_size) == ("mnist-cnn", 1, 4)
    assert manifest.provenance.config_sha256 == CONFIG.sha256()
    assert manifest.provenance.data_sha256 == mnist.data_sha256()
    quantization = manifest.graphs["int8"].quantization
    assert quantization is not None
    assert (quantization.method, len(quantization.excluded_nodes)) == ("static_qdq", 2)
    assert mnist.LICENCE in (bundle[0] / "README.md").read_text()
    assert mnist.ATTRIBUTION in (bundle[0] / "README.md").read_text()


def test_the_same_job_again_trains_no_more_and_publishes_the_same_weights(
    bundle: tuple[Path, Places],
) -> None:
    first, places = bundle
    checkpoints = list((places.run_dir(CONFIG) / "checkpoints").iterdir())
    before = {path: path.stat().st_mtime_ns for path in checkpoints}
    second = build(CONFIG, places, digit_splits())
    assert second == first.with_name("2")
    assert {path: path.stat().st_mtime_ns for path in checkpoints} == before
    assert (first / GOLDEN_FILE).read_bytes() == (second / GOLDEN_FILE).read_bytes()


def test_a_gate_that_is_missed_publishes_nothing(bundle: tuple[Path, Places], tmp_path: Path) -> None:
    places = bundle[1].model_copy(update={"models_dir": tmp_path / "models"})
    for change, error, figure in (
        ({"max_latency_ratio": 0}, GateError, "latency at batch 8"),
        ({"max_parity_error": 0}, ExportError, "a logit differs"),
    ):
        config = CONFIG.model_copy(update={"gates": OPEN_GATES.model_copy(update=change)})
        with pytest.raises(error, match=figure):
            build(config, places, digit_splits())
    assert not places.models_dir.exists()


def test_without_data_the_job_stops_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mnist, "URL", "http://127.0.0.1:1")
    places = places_in(tmp_path)
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte\.gz is not there"):
        train(CONFIG, places)
    assert not places.runs_dir.exists()
    assert not places.models_dir.exists()


def test_golden_inputs_are_each_digit_twice_and_no_two_are_equal() -> None:
    pixels = golden_inputs()["pixels"]
    assert (pixels.shape, pixels.dtype) == ((20, 28, 28), np.uint8)
    assert len(np.unique(pixels, axis=0)) == 20


def test_the_facts_agree_with_the_splits_of_the_data_set() -> None:
    card = facts(CONFIG).card.data
    for n in (*mnist.SPLIT_SIZES.values(), sum(mnist.SPLIT_SIZES.values())):
        assert f"{n:,}" in card


def test_the_network_of_a_published_bundle_can_be_taken_instead_of_a_new_one(
    bundle: tuple[Path, Places], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published, _ = bundle
    places = places_in(tmp_path)
    monkeypatch.setattr(mnist, "load_mnist", load_only(places.data_dir))
    again = read_bundle(train(CONFIG, places, weights_from=published))
    assert [path.name for path in places.run_dir(CONFIG).iterdir()] == [GALLERY_FILE]  # nothing was fitted
    first = read_bundle(published)
    assert again.graph("fp32") == first.graph("fp32")
    assert again.graph("int8") == first.graph("int8")
    assert again.manifest.provenance.weights_commit == first.manifest.provenance.weights_commit
    other = CONFIG.model_copy(update={"seed": CONFIG.seed + 1})
    with pytest.raises(ExportError, match="was made with another configuration"):
        train(other, places, weights_from=published)
