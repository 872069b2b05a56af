"""Store the weights of a graph as int8 and compute in fp32: a quarter of the size, and about fp32's speed.

Each heavy operator's constant weights become int8 with a scale for each output channel and a node that brings
them back. No activation is rounded, so no data are needed, and rows stay independent of each other. With the
session's `disable_quant_qdq` ONNX Runtime brings the weights back once, when it loads the graph.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from bundle.datatypes import Array
from bundle.manifest import Quantization
from training.onnx_model import OPSET, clean

# Operator -> position of its weights among the inputs, and the axis of their output channels.
_WEIGHTS = {
    "Conv": (1, 0),
    "MatMul": (1, -1),
    "Gemm": (1, 1),
    "LSTM": (1, 1),
    "GRU": (1, 1),
    "Gather": (0, -1),
}
# Smaller ones are not worth a node.
MIN_ELEMENTS = 1024
_LARGEST = 127


def quantize_weights(
    model: onnx.ModelProto, *, max_opset: int = OPSET
) -> tuple[onnx.ModelProto, Quantization]:
    """Quantize the weights of a graph symmetrically, per channel.

    Args:
        model: fp32, opset 13 or newer; it is left as it is.
        max_opset: as for `clean`.
    """
    quantized = onnx.ModelProto()
    quantized.CopyFrom(model)
    graph = quantized.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    axes, excluded = _choose(graph, weights)
    added: list[onnx.NodeProto] = []
    for name, axis in axes.items():
        array = numpy_helper.to_array(weights[name])
        integers, scales = _round(array, axis)
        graph.initializer.remove(weights[name])
        graph.initializer.extend(
            [
                numpy_helper.from_array(integers, f"{name}_int8"),
                numpy_helper.from_array(scales, f"{name}_scale"),
            ]
        )
        inputs = [f"{name}_int8", f"{name}_scale"]
        added.append(helper.make_node("DequantizeLinear", inputs, [name], f"{name}_dequantize", axis=axis))
    nodes = [*added, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    description = Quantization(method="weight_only", per_channel=True, excluded_nodes=excluded)
    return clean(quantized, max_opset), description


def _choose(
    graph: onnx.GraphProto, weights: dict[str, onnx.TensorProto]
) -> tuple[dict[str, int], tuple[str, ...]]:
    """Return weights -> axis of their channels, and the names of the heavy nodes that keep theirs."""
    given = {value.name for value in (*graph.input, *graph.output)}
    axes: dict[str, int] = {}
    excluded: list[str] = []
    for node in graph.node:
        if node.op_type not in _WEIGHTS:
            continue
        position, axis = _WEIGHTS[node.op_type]
        if node.op_type == "Gemm" and any(item.name == "transB" and item.i for item in node.attribute):
            axis = 0
        names = node.input[1:3] if node.op_type in ("LSTM", "GRU") else [node.input[position]]
        for name in names:
            tensor = weights.get(name)
            if tensor is None or name in given or not _is_worth_it(tensor):
                if node.op_type != "Gather":
                    excluded.append(node.name)
            else:
                axes.setdefault(name, axis % len(tensor.dims))
    return axes, tuple(dict.fromkeys(name for name in excluded if name))


def _is_worth_it(tensor: onnx.TensorProto) -> bool:
    large = int(np.prod(tensor.dims)) >= MIN_ELEMENTS
    return tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) >= 2 and large


def _round(array: Array, axis: int) -> tuple[Array, Array]:
    """Return int8 and float32 scales, one for each index of the axis."""
    others = tuple(i for i in range(array.ndim) if i != axis)
    scales = np.maximum(np.abs(array).max(axis=others, keepdims=True) / _LARGEST, np.finfo(np.float32).tiny)
    integers = np.round(array / scales).clip(-_LARGEST, _LARGEST).astype(np.int8)
    return integers, scales.reshape(-1).astype(np.float32)
