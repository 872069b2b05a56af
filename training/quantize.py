"""Make an int8 graph from an fp32 graph, in the two ways that measured faster than fp32.

Convolutions: static, uint8 activations and per-channel int8 weights in the quantize-dequantize form;
the stem (few input channels) and the last Gemm (whose quantized output would clip logits) stay fp32.
LSTMs: dynamic, and nothing but the LSTM. Imported graphs: the same, as far as they have such nodes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from bundle.datatypes import Array
from bundle.manifest import Quantization
from training.onnx_model import OPSET, clean


class _Batches(CalibrationDataReader):  # type: ignore[misc]  # ONNX Runtime ships no types
    def __init__(self, batches: Iterable[dict[str, Array]]) -> None:
        self._batches: Iterator[dict[str, Array]] = iter(batches)

    def get_next(self) -> dict[str, Array] | None:
        return next(self._batches, None)


def quantize_convolutions(
    model: onnx.ModelProto, batches: Iterable[dict[str, Array]]
) -> tuple[onnx.ModelProto, Quantization]:
    """Quantize a convolutional network statically.

    Args:
        model: fp32; its first Conv and its last Gemm are left in fp32.
        batches: graph inputs of training items, which give the quantization ranges.
    """

    def choose(nodes: Sequence[onnx.NodeProto]) -> list[str]:
        stem = next(node.name for node in nodes if node.op_type == "Conv")
        head = [node.name for node in nodes if node.op_type == "Gemm"][-1]
        return [stem, head]

    return quantize_statically(model, batches, choose)


def quantize_statically(
    model: onnx.ModelProto,
    batches: Iterable[dict[str, Array]],
    choose_excluded: Callable[[Sequence[onnx.NodeProto]], list[str]],
    *,
    max_opset: int = OPSET,
) -> tuple[onnx.ModelProto, Quantization]:
    """Quantize weights and activations, with ranges that are constants.

    Args:
        model: fp32.
        batches: graph inputs, which give the quantization ranges.
        choose_excluded: maps the nodes of the prepared graph to the names of those that stay fp32.
        max_opset: as for `clean`.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "source.onnx", Path(folder) / "target.onnx"
        quant_pre_process(model, source)
        excluded = choose_excluded(list(onnx.load(source).graph.node))
        quantize_static(
            source,
            target,
            _Batches(batches),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            calibrate_method=CalibrationMethod.MinMax,
            nodes_to_exclude=excluded,
        )
        quantized = clean(onnx.load(target), max_opset)
    return quantized, Quantization(method="static_qdq", per_channel=True, excluded_nodes=tuple(excluded))


def quantize_lstm(model: onnx.ModelProto) -> tuple[onnx.ModelProto, Quantization]:
    """Quantize the weights of every LSTM to int8; its activations are quantized as it runs.

    Everything else stays fp32: a dynamically quantized front end is slower than fp32.
    """
    return quantize_dynamically(model, ["LSTM"])


def quantize_dynamically(
    model: onnx.ModelProto, operators: Sequence[str], *, max_opset: int = OPSET
) -> tuple[onnx.ModelProto, Quantization]:
    """Quantize the weights of some operators to int8; their activations are quantized as they run.

    Args:
        operators: of LSTM, MatMul and Gemm; heavy ones of other types stay fp32.
        max_opset: as for `clean`.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "source.onnx", Path(folder) / "target.onnx"
        quant_pre_process(model, source)
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=list(operators),
            weight_type=QuantType.QInt8,
            per_channel=True,
        )
        nodes = onnx.load(source).graph.node
        quantized = clean(onnx.load(target), max_opset)
    heavy = {"Conv", "MatMul", "Gemm"} - set(operators)
    excluded = tuple(node.name for node in nodes if node.op_type in heavy)
    return quantized, Quantization(method="dynamic", per_channel=True, excluded_nodes=excluded)
