"""No caller's answer depends on who else is in the batch, whoever that may be."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from bundle.confidence import softmax
from bundle.datatypes import Array
from bundle.golden import load_golden
from bundle.manifest import GOLDEN_FILE
from bundle.media import AudioDecoding
from bundle.predictor import Predictor, create_predictor, load_predictor
from bundle.repository import Bundle, list_bundles, read_bundle
from tests.contract.test_parity import SOUND, bundle_of
from tests.small import HIDDEN, LSTM_INPUTS, make_lstm, sounds, vowel_splits
from training.export import export_onnx
from training.isolation import MAX_SHIFT, MAX_SHIFT_DYNAMIC, allowed_shift, find_worst_mates
from training.networks.speech_lstm import AnchoredSpeechLstm, ExportableSpeechLstm
from training.quantize import quantize_lstm

MODELS = Path(__file__).parents[2] / "models"
BATCHED = [
    directory
    for name, versions in list_bundles(MODELS).items()
    for version in versions
    if read_bundle(directory := MODELS / name / str(version)).manifest.max_batch_size > 1
]
IDS = [f"{path.parent.name}/{path.name}" for path in BATCHED]
# A short search, for every run of the tests; the job that publishes looks longer.
SHORT = {"victims": 8, "steps": 50}
BATCH = 8


def golden_items(bundle: Bundle) -> list[Array]:
    """The golden inputs without their padding."""
    inputs = load_golden(bundle.files[GOLDEN_FILE]).inputs
    (tensor,) = bundle.manifest.data_inputs
    items = list(inputs[tensor.name])
    lengths = [inputs[other.name] for other in bundle.manifest.inputs if other.lengths_of == tensor.name]
    return [item[:length] for item, length in zip(items, lengths[0], strict=True)] if lengths else items


@cache
def restless_predictors() -> dict[str, Predictor]:
    """An untrained LSTM whose answers move easily, as int8 with and without anchors of its scales."""
    network = make_lstm()
    with torch.no_grad():
        for weights in network.lstm.parameters():
            weights *= 6
        network.head.weight *= 20
    plain, anchored = (
        export_onnx(form(network), sounds(2000, 1500), LSTM_INPUTS)
        for form in (ExportableSpeechLstm, AnchoredSpeechLstm)
    )
    return {
        name: _int8_predictor(plain, source) for name, source in (("plain", plain), ("anchored", anchored))
    }


def _int8_predictor(fp32: onnx.ModelProto, source: onnx.ModelProto) -> Predictor:
    models = {"fp32": fp32, "int8": quantize_lstm(source)[0]}
    decoding = AudioDecoding(sample_rate_hz=8_000)
    return create_predictor(bundle_of(models, SOUND, HIDDEN, decoding, max_batch_size=BATCH), "int8")


def test_there_are_models_that_run_batches() -> None:
    assert "mnist-cnn" in {path.parent.name for path in BATCHED}


@pytest.mark.parametrize("directory", BATCHED, ids=IDS)
@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_a_committed_model_answers_alike_beside_the_worst_mates(directory: Path, precision: str) -> None:
    predictor = load_predictor(directory, precision=precision)  # type: ignore[arg-type]
    assert predictor.precision == precision
    manifest = predictor.bundle.manifest
    items = golden_items(predictor.bundle)
    found = find_worst_mates(predictor, items, manifest.max_batch_size, predictor.temperature, **SHORT)
    assert found.flips == 0
    assert found.shift <= allowed_shift(manifest.graphs[predictor.precision])


@pytest.mark.parametrize("directory", BATCHED, ids=IDS)
def test_a_published_shift_is_within_its_bound(directory: Path) -> None:
    for graph in read_bundle(directory).manifest.graphs.values():
        assert graph.metrics is not None
        if graph.metrics.mate_shift is not None:  # versions from before the search have none
            assert graph.metrics.mate_shift <= allowed_shift(graph)


def test_the_search_convicts_a_dynamic_lstm_without_anchors() -> None:
    items = vowel_splits().validation.items
    found = find_worst_mates(restless_predictors()["plain"], items, BATCH, **SHORT)
    assert found.flips >= 1
    assert found.shift > 3 * MAX_SHIFT_DYNAMIC


def test_the_search_finds_worse_mates_than_the_next_best() -> None:
    predictor, items = restless_predictors()["plain"], list(vowel_splits().validation.items)
    alone = np.concatenate([predictor.run(predictor.rows([item])).logits for item in items])
    together = predictor.run_all(predictor.rows(items)).logits
    usual = np.abs(softmax(alone) - softmax(together)).max()
    assert 0 < usual < find_worst_mates(predictor, items, BATCH, **SHORT).shift / 2


def test_with_anchors_the_same_network_answers_alike_in_any_company() -> None:
    items = vowel_splits().validation.items
    found = find_worst_mates(restless_predictors()["anchored"], items, BATCH, **SHORT)
    assert found.flips == 0
    assert found.shift <= MAX_SHIFT  # a tighter bound than such a graph must keep


def test_the_bounds_are_those_of_the_contract() -> None:
    assert (MAX_SHIFT, MAX_SHIFT_DYNAMIC) == (1e-5, 1e-2)
