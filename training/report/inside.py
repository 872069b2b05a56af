"""Look into a bundle's graphs: their weights, and what their inner tensors hold while they run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from bundle.datatypes import Array
from bundle.manifest import SessionConfig
from bundle.rows import Row, collate
from bundle.session import create_session
from training.report.answers import Floats, Subject

RECURRENT = ("LSTM", "DynamicQuantizeLSTM")
# The most layers whose maps are shown.
_LEVELS = 4


@dataclass(frozen=True)
class Head:
    """The last layer: logits = features @ weights.T + bias.

    Attributes:
        weights: (labels, size).
        bias: (labels,).
    """

    weights: Floats
    bias: Floats


def read_graph(subject: Subject, precision: str = "fp32") -> onnx.ModelProto:
    """Return one of the bundle's graphs."""
    bundle = next(iter(subject.predictors.values())).bundle
    return onnx.load_model_from_string(bundle.files[bundle.manifest.graphs[precision].file])  # type: ignore[index]


def read_head(model: onnx.ModelProto) -> Head | None:
    """Return the last layer, where it is one product of the features with constant weights."""
    constants = _constants(model)
    for node in model.graph.node:
        if list(node.output) != ["logits"] or node.op_type != "Gemm" or node.input[0] != "features":
            continue
        attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
        if attributes.get("transA", 0) or not set(node.input[1:]) <= set(constants):
            return None
        weights = constants[node.input[1]].astype(np.float64) * attributes.get("alpha", 1.0)
        weights = weights if attributes.get("transB", 0) else weights.T
        bias = np.zeros(len(weights))
        if len(node.input) > 2:
            bias = bias + constants[node.input[2]].astype(np.float64) * attributes.get("beta", 1.0)
        return Head(weights, bias)
    return None


def read_filters(model: onnx.ModelProto) -> Floats | None:
    """Return (n, height, width) the kernels of the first convolution, averaged over its input channels."""
    constants = _constants(model)
    for node in model.graph.node:
        if node.op_type == "Conv":
            kernels = constants.get(node.input[1])
            if kernels is None or kernels.ndim != 4 or max(kernels.shape[2:]) < 2:
                return None
            return np.asarray(kernels.mean(axis=1), np.float64)
    return None


def read_gate_weights(model: onnx.ModelProto) -> Floats | None:
    """Return (4, inputs): how strongly each input drives the gates input, output, forget and cell.

    Of the first LSTM; the mean over its units of the absolute weights.
    """
    constants = _constants(model)
    for node in model.graph.node:
        if node.op_type == "LSTM" and node.input[1] in constants:
            weights = constants[node.input[1]][0]  # (4 hidden, inputs), one direction
            return np.asarray(np.abs(weights).reshape(4, -1, weights.shape[1]).mean(axis=1), np.float64)
    return None


def read_maps(subject: Subject, item: Array) -> list[Floats]:
    """Return (channels, height, width) of a few layers of a convolutional network, the first layer first."""
    model = read_graph(subject)
    names = [node.output[0] for node in model.graph.node if node.op_type in ("Relu", "Conv")]
    kinds = {node.output[0]: node.op_type for node in model.graph.node}
    rectified = [name for name in names if kinds[name] == "Relu"] or names
    found = [array[0] for array in watch(subject, model, rectified, [item]) if array.ndim == 4]
    last = {maps.shape[1:]: place for place, maps in enumerate(found)}  # the last of each size
    chosen = sorted({0, *last.values()} if found else set())[:_LEVELS]
    return [np.asarray(found[place], np.float64) for place in chosen]


@dataclass(frozen=True)
class States:
    """What an LSTM did with one item, step by step.

    Attributes:
        frames: (steps, inputs) that it was given.
        hidden: (steps, units) its states.
    """

    frames: Floats
    hidden: Floats


def read_states(subject: Subject, item: Array, precision: str = "fp32") -> States | None:
    """Return the states of the first LSTM over time; None where there is none, or it is of another form."""
    model = read_graph(subject, precision)
    node = next((node for node in model.graph.node if node.op_type in RECURRENT), None)
    if node is None or not node.output[0]:
        return None
    frames, hidden = watch(subject, model, [node.input[0], node.output[0]], [item])
    if frames.ndim != 3 or hidden.ndim != 4 or frames.shape[1] != 1:  # (steps, batch, inputs) is usual
        return None
    return States(np.asarray(frames[:, 0], np.float64), np.asarray(hidden[:, 0, 0], np.float64))


def watch(
    subject: Subject, model: onnx.ModelProto, tensors: Sequence[str], items: Sequence[Array]
) -> list[Array]:
    """Run a graph on items of its only data input; return what its inner tensors hold.

    Args:
        model: is changed: the tensors become outputs.
    """
    if not tensors:
        return []
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors)
    manifest = subject.manifest
    (tensor,) = manifest.data_inputs
    rows: list[Row] = [{tensor.name: item} for item in items]
    session = create_session(model.SerializeToString(), SessionConfig(), "cpu")
    return list(session.run(list(tensors), collate(manifest, rows)))


def _constants(model: onnx.ModelProto) -> dict[str, Array]:
    return {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
