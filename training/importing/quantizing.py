"""Quantize a graph of which nothing is known but its operators, in one of three ways."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import onnx
from onnx import TensorProto

from bundle.datatypes import Array
from bundle.manifest import Quantization, SessionConfig
from training.errors import ImportModelError
from training.importing.source import runtime_opset
from training.quantize import quantize_dynamically, quantize_statically
from training.weight_only import quantize_weights

Method = Literal["static", "dynamic", "weight-only"]
# Older ones know no scales of their own for each channel.
MIN_OPSET = 13
_HEAVY = ("Conv", "Gemm", "MatMul")
_DYNAMIC = ("LSTM", "MatMul", "Gemm")
_Made = tuple[onnx.ModelProto, Quantization]


def quantize(
    model: onnx.ModelProto, method: Method, batches: Iterable[dict[str, Array]]
) -> tuple[onnx.ModelProto, Quantization, SessionConfig]:
    """Quantize a model.

    Args:
        model: fp32; it is left as it is.
        batches: graph inputs, which give the ranges of a static quantization; the others ignore them.

    Returns:
        The int8 graph, what was done, and how both graphs are run.

    Raises:
        ImportModelError: its opset is too old, there is nothing to quantize, or the tools cannot do it.
    """
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if method != "dynamic" and opset < MIN_OPSET:
        raise ImportModelError(
            f"it uses opset {opset}; {method} quantization needs {MIN_OPSET} or newer, so export it anew"
        )
    newest = runtime_opset()
    ways: dict[Method, Callable[[onnx.ModelProto], _Made]] = {
        "static": lambda copy: quantize_statically(copy, batches, choose_excluded, max_opset=newest),
        "dynamic": lambda copy: quantize_dynamically(copy, _DYNAMIC, max_opset=newest),
        "weight-only": lambda copy: quantize_weights(copy, max_opset=newest),
    }
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    try:
        int8, description = ways[method](copy)
    except Exception as error:  # ONNX Runtime's tools raise Exception itself
        reason = " ".join(str(error).split())[:200]
        raise ImportModelError(f"it cannot be quantized ({method}): {reason}") from error
    if not any(tensor.data_type == TensorProto.INT8 for tensor in int8.graph.initializer):
        operators = ", ".join(sorted({node.op_type for node in model.graph.node}))
        raise ImportModelError(f"nothing in it can be quantized ({method}); its operators are {operators}")
    return int8, description, SessionConfig(disable_quant_qdq=method == "weight-only")


def choose_excluded(nodes: Sequence[onnx.NodeProto]) -> list[str]:
    """Return the nodes that a static quantization leaves in fp32, as in our own convolutional networks.

    The first Conv sees few channels, and costs more than it gains. The last heavy node and all that comes of
    it, such as a Softmax, would have the values of the outputs clipped. One that is alone is not left out.
    """
    heavy = [node for node in nodes if node.op_type in _HEAVY]
    excluded: list[str] = []
    if len(heavy) > 1 and heavy[0].op_type == "Conv":
        excluded.append(heavy[0].name)
    if not heavy:
        return excluded
    made = set(heavy[-1].output)
    if len(heavy) > 1:
        excluded.append(heavy[-1].name)
    for node in nodes:  # in the order of their computation
        if made & set(node.input):
            made |= set(node.output)
            excluded.append(node.name)
    return excluded
