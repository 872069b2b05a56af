"""What is read out of a graph, against PyTorch and plain arithmetic."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from bundle.manifest import TensorSpec
from bundle.media import ImageDecoding
from tests import small, tiny
from training.data import fsdd
from training.report.answers import Subject
from training.report.inside import (
    read_filters,
    read_gate_weights,
    read_graph,
    read_head,
    read_maps,
    read_states,
    watch,
)

SAMPLES = TensorSpec(name="samples", datatype="FP32", shape=("batch", "time"), allowed_range=(-1, 1))
LENGTHS = TensorSpec(name="lengths", datatype="INT64", shape=("batch",), lengths_of="samples")
PIXELS = TensorSpec(name="pixels", datatype="UINT8", shape=("batch", 28, 28), allowed_range=(0, 255))


def subject_with(inputs: tuple[TensorSpec, ...], decoding: Any, graphs: dict[str, onnx.ModelProto]) -> Any:
    """As much of a subject as looking into its graphs needs."""
    files = {name: SimpleNamespace(file=f"model.{name}.onnx") for name in graphs}
    manifest = SimpleNamespace(
        batched=True,
        inputs=inputs,
        data_inputs=tuple(each for each in inputs if each.lengths_of is None),
        decoding=decoding,
        graphs=files,
    )
    contents = {f"model.{name}.onnx": graph.SerializeToString() for name, graph in graphs.items()}
    predictor = SimpleNamespace(bundle=SimpleNamespace(manifest=manifest, files=contents))
    return SimpleNamespace(predictors={"fp32": predictor}, manifest=manifest)


@pytest.fixture(scope="module")
def lstm_subject() -> Any:
    graphs = {"fp32": small.lstm()[1], "int8": small.lstm_int8()[0]}
    return subject_with((SAMPLES, LENGTHS), fsdd.DECODING, graphs)


@pytest.fixture(scope="module")
def cnn_subject() -> Any:
    decoding = ImageDecoding(height=28, width=28, channels=1, background=0)
    return subject_with((PIXELS,), decoding, {"fp32": small.cnn()[1], "int8": small.cnn_int8()[0]})


def test_the_head_of_a_network_is_its_last_layer() -> None:
    network, graph = small.cnn()
    head = read_head(graph)
    assert head is not None
    np.testing.assert_allclose(head.weights, network.head.weight.detach().numpy())
    np.testing.assert_allclose(head.bias, network.head.bias.detach().numpy())


def test_a_head_with_weights_the_other_way_round_is_read_too(subject: Subject) -> None:
    head = read_head(read_graph(subject))
    assert head is not None
    np.testing.assert_allclose(head.weights, tiny.WEIGHTS.T, rtol=1e-6)


def test_a_graph_whose_logits_are_no_product_of_features_has_no_head() -> None:
    graph = tiny.image_graph()
    graph.graph.node[-1].op_type = "Concat"
    assert read_head(graph) is None


def test_kernels_are_those_of_the_first_convolution() -> None:
    filters = read_filters(small.cnn()[1])
    assert filters is not None
    assert filters.shape == (small.WIDTHS[0], 3, 3)
    stem = small.cnn()[0].stem[0].weight.detach().numpy()[:, 0]  # type: ignore[union-attr, operator]
    norms = (np.linalg.norm(filters, axis=(1, 2)), np.linalg.norm(stem, axis=(1, 2)))
    cosines = (filters * stem).sum(axis=(1, 2)) / norms[0] / norms[1]
    np.testing.assert_allclose(
        np.abs(cosines), 1, atol=1e-5
    )  # scaled by the normalisation that was folded in
    assert read_filters(tiny.image_graph()) is None


def test_gate_weights_are_means_over_the_units() -> None:
    found = read_gate_weights(small.lstm()[1])
    assert found is not None
    weights = small.lstm()[0].lstm.weight_ih_l0.detach().numpy()
    i, f, g, o = np.abs(weights).reshape(4, small.HIDDEN, -1).mean(axis=1)
    np.testing.assert_allclose(found, [i, o, f, g], rtol=1e-5)
    assert read_gate_weights(tiny.image_graph()) is None


def test_maps_are_of_several_layers_and_hold_what_pytorch_computes(cnn_subject: Any) -> None:
    item = small.digit_splits().test.items[0]
    maps = read_maps(cnn_subject, item)
    assert [layer.shape[0] for layer in maps] == [small.WIDTHS[0], *small.WIDTHS]
    assert [layer.shape[1] for layer in maps] == [28, 28, 14, 7]
    network = small.cnn()[0]
    with torch.no_grad():
        x = (torch.from_numpy(item.copy())[None, None].float() / 255 - network.mean) / network.std
        stem = network.stem(x)[0].numpy()
        last = network.stages(network.stem(x))[0].numpy()
    np.testing.assert_allclose(maps[0], stem, atol=1e-4)
    np.testing.assert_allclose(maps[-1], last, atol=1e-4)


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("int8", 0.1)])
def test_states_over_time_are_those_of_pytorch(lstm_subject: Any, precision: str, tolerance: float) -> None:
    item = small.vowel_splits().test.items[0]
    states = read_states(lstm_subject, item, precision)
    assert states is not None
    network = small.lstm()[0]
    with torch.no_grad():
        frames, counts = network.front_end(torch.from_numpy(item)[None], torch.tensor([len(item)]))
        expected = network.recur(frames, counts)[0].numpy()
    steps, units = expected.shape
    np.testing.assert_allclose(states.hidden[:steps, :units], expected, atol=tolerance)
    np.testing.assert_allclose(states.frames[:steps, : frames.shape[2]], frames[0].numpy(), atol=1e-4)


def test_a_graph_without_an_lstm_has_no_states(cnn_subject: Any) -> None:
    assert read_states(cnn_subject, small.digit_splits().test.items[0]) is None


def test_inner_tensors_are_watched_while_a_graph_runs(subject: Subject, tmp_path: Path) -> None:
    assert subject.items is not None
    (floats,) = watch(subject, read_graph(subject), ["floats"], subject.items[:3])
    np.testing.assert_array_equal(floats, np.stack(subject.items[:3]).astype(np.float32))
    assert watch(subject, read_graph(subject), [], subject.items[:3]) == []
