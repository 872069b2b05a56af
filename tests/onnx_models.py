"""ONNX models from somewhere else: small, built with onnx.helper, each with what its answers should be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING
CLASSES = 3
FEATURES = 16


def value(name: str, kind: int, shape: Sequence[int | str | None] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def node(operator: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    """A node whose inputs and outputs are given as words."""
    return helper.make_node(operator, inputs.split(), outputs.split(), **attributes)


def model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: Mapping[str, np.ndarray] | None = None,
    *,
    opset: int = 18,
    domains: Mapping[str, int] | None = None,
    ir_version: int = 8,
) -> onnx.ModelProto:
    initializers = [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, initializers)
    opsets = {"": opset, **(domains or {})}
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in opsets.items()],
        ir_version=ir_version,
    )


def save(folder: Path, what: onnx.ModelProto, name: str = "model.onnx") -> Path:
    path = folder / name
    onnx.save(what, path)
    return path


def same(kind: int, shape: Sequence[int | str | None] | None) -> onnx.ModelProto:
    """y = x."""
    return model([node("Identity", "x", "y")], [value("x", kind, shape)], [value("y", kind, shape)])


def two_inputs() -> onnx.ModelProto:
    """total = a + b; ids pass through; all with rows."""
    return model(
        [node("Add", "a b", "total"), node("Identity", "ids", "same_ids")],
        [value("a", FLOAT, ["N", 4]), value("b", FLOAT, ["N", 4]), value("ids", INT64, ["N"])],
        [value("total", FLOAT, ["N", 4]), value("same_ids", INT64, ["N"])],
    )


def centred() -> onnx.ModelProto:
    """y = x minus the mean of all rows: it claims rows, but they depend on each other."""
    return model(
        [node("ReduceMean", "x zero", "mean", keepdims=1), node("Sub", "x mean", "y")],
        [value("x", FLOAT, ["N", 4])],
        [value("y", FLOAT, ["N", 4])],
        {"zero": np.array([0], np.int64)},
    )


def scaled_by_default() -> onnx.ModelProto:
    """y = x * factor, where factor is 2 unless a caller says otherwise; without rows."""
    return model(
        [node("Mul", "x factor", "y")],
        [value("x", FLOAT, [3]), value("factor", FLOAT, [])],
        [value("y", FLOAT, [3])],
        {"factor": np.array(2, np.float32)},
    )


def bfloat16_sum() -> onnx.ModelProto:
    """y = x in bfloat16, by way of float32."""
    return model(
        [
            node("Cast", "x", "wide", to=FLOAT),
            node("Add", "wide wide", "twice"),
            node("Cast", "twice", "y", to=TensorProto.BFLOAT16),
        ],
        [value("x", TensorProto.BFLOAT16, ["N", 2])],
        [value("y", TensorProto.BFLOAT16, ["N", 2])],
    )


def positives() -> onnx.ModelProto:
    """The indices of what is above zero: how many there are, only the values tell."""
    return model(
        [node("Greater", "x zero", "above"), node("NonZero", "above", "indices")],
        [value("x", FLOAT, ["n"])],
        [value("indices", INT64, [1, "found"])],
        {"zero": np.array(0, np.float32)},
    )


def perceptron(
    *, hidden: int = 128, probabilities: bool = True, opset: int = 18, seed: int = 0
) -> onnx.ModelProto:
    """As scikit-learn's: Gemm, Relu, Gemm, Softmax, and the label's index as a second output."""
    random = np.random.default_rng(seed)
    last = "scores" if probabilities else "z"
    nodes = [
        node("Gemm", "x w1 b1", "h"),
        node("Relu", "h", "r"),
        node("Gemm", "r w2 b2", "z"),
        *([node("Softmax", "z", "scores", axis=1)] if probabilities else []),
        node("ArgMax", last, "label", axis=1, keepdims=0),
    ]
    for i, each in enumerate(nodes):
        each.name = f"node_{i}"
    return model(
        nodes,
        [value("x", FLOAT, [None, FEATURES])],
        [value("label", INT64, [None]), value(last, FLOAT, [None, CLASSES])],
        {
            "w1": random.normal(size=(FEATURES, hidden)).astype(np.float32),
            "b1": random.normal(size=hidden).astype(np.float32),
            "w2": random.normal(size=(hidden, CLASSES)).astype(np.float32),
            "b2": np.zeros(CLASSES, np.float32),
        },
        opset=opset,
    )


def perceptron_data(count: int = 200, seed: int = 1) -> dict[str, np.ndarray]:
    """Inputs of the perceptron and what it says of them itself."""
    x = np.random.default_rng(seed).normal(size=(count, FEATURES)).astype(np.float32)
    return {"x": x, "labels": perceptron_logits(x).argmax(axis=1)}


def perceptron_logits(x: np.ndarray, *, hidden: int = 128, seed: int = 0) -> np.ndarray:
    """The oracle: (n, FEATURES) -> (n, CLASSES)."""
    arrays = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in perceptron(hidden=hidden, seed=seed).graph.initializer
    }
    return np.maximum(x @ arrays["w1"] + arrays["b1"], 0) @ arrays["w2"] + arrays["b2"]


def mean_of_words() -> onnx.ModelProto:
    """Token ids to the mean of their embeddings, times a matrix: (N, time) -> (N, 8)."""
    random = np.random.default_rng(3)
    return model(
        [
            node("Gather", "table ids", "words"),
            node("ReduceMean", "words one", "mean", keepdims=0),
            node("MatMul", "mean matrix", "y"),
        ],
        [value("ids", INT64, ["N", "time"])],
        [value("y", FLOAT, ["N", 8])],
        {
            "table": random.normal(size=(50, 64)).astype(np.float32),
            "matrix": random.normal(size=(64, 8)).astype(np.float32),
            "one": np.array([1], np.int64),
        },
    )
