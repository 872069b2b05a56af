"""Bundles of which nothing is known but their tensors, made with onnx.helper; their answers are plain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bundle.bfloat16 import bits_from_floats
from bundle.datatypes import Datatype
from bundle.manifest import Graph, Manifest, Provenance, SessionConfig, TensorSpec
from bundle.media import TensorDecoding
from bundle.tensor_golden import TensorExample, TensorGolden
from training.publish import digests, publish

ONNX_TYPES: dict[Datatype, int] = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "BF16": TensorProto.BFLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}


def make_roots(repository: Path) -> Path:
    """Publish "roots": one input x, FP32 (batch, n), and one output, the square roots."""
    spec = TensorSpec(name="x", datatype="FP32", shape=("batch", "n"))
    output = TensorSpec(name="roots", datatype="FP32", shape=("batch", "n"))
    example = TensorExample({"x": np.float32([[4, 9]])}, {"fp32": {"roots": np.float32([[2, 3]])}})
    return publish_tensors(
        repository, "roots", [helper.make_node("Sqrt", ["x"], ["roots"])], (spec,), (output,), example
    )


def make_mirror(repository: Path) -> Path:
    """Publish "mirror": an input of each kind, and each comes out again under another name."""
    kinds: dict[str, tuple[Datatype, Any]] = {
        "flag": ("BOOL", np.array([[True, False]])),
        "count": ("INT64", np.array([7])),
        "half": ("FP16", np.float16([[0.5]])),
        "word": ("BYTES", np.array([["ä", ""]], object)),
        "blob_bytes": ("BYTES", np.array(["b"], object)),
    }
    inputs, outputs, nodes = [], [], []
    for name, (datatype, array) in kinds.items():
        shape = ("batch", *array.shape[1:])
        inputs.append(TensorSpec(name=name, datatype=datatype, shape=shape))
        outputs.append(TensorSpec(name=f"same_{name}", datatype=datatype, shape=shape))
        nodes.append(helper.make_node("Identity", [name], [f"same_{name}"]))
    example = TensorExample(
        {name: array for name, (_, array) in kinds.items()},
        {"fp32": {f"same_{name}": array for name, (_, array) in kinds.items()}},
    )
    return publish_tensors(repository, "mirror", nodes, inputs, outputs, example)


def make_brains(repository: Path) -> Path:
    """Publish "brains": one input and output of BF16, apart, because ONNX Runtime takes none beside texts."""
    spec = TensorSpec(name="brain", datatype="BF16", shape=("batch", 2))
    output = TensorSpec(name="same_brain", datatype="BF16", shape=("batch", 2))
    bits = bits_from_floats(np.float32([[1.5, 2]]))
    node = helper.make_node("Identity", ["brain"], ["same_brain"])
    example = TensorExample({"brain": bits}, {"fp32": {"same_brain": bits}})
    return publish_tensors(repository, "brains", [node], (spec,), (output,), example)


def make_scalars(repository: Path) -> Path:
    """Publish "scalars", without a batch dimension: y = a + b, of a scalar and a vector of any length."""
    inputs = (
        TensorSpec(name="a", datatype="FP32", shape=()),
        TensorSpec(name="b", datatype="FP32", shape=("n",)),
    )
    output = TensorSpec(name="y", datatype="FP32", shape=("n",))
    example = TensorExample(
        {"a": np.array(1, np.float32), "b": np.float32([1, 2])}, {"fp32": {"y": np.float32([2, 3])}}
    )
    nodes = [helper.make_node("Add", ["a", "b"], ["y"])]
    return publish_tensors(repository, "scalars", nodes, inputs, (output,), example, max_batch_size=1)


def publish_tensors(
    repository: Path,
    name: str,
    nodes: list[Any],
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    example: TensorExample,
    max_batch_size: int = 4,
    constants: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """Publish a bundle of the task "tensors", version 1.

    Args:
        constants: held by the graph; one that has the name of an input is its default.
    """
    graph = helper.make_graph(
        nodes,
        name,
        [_value(each) for each in inputs],
        [_value(each) for each in outputs],
        [numpy_helper.from_array(array, key) for key, array in (constants or {}).items()],
    )
    model: onnx.ModelProto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    )
    files = {
        "model.fp32.onnx": model.SerializeToString(),
        "golden.npz": TensorGolden((example,)).save(),
        "README.md": b"# Tensors\n",
    }
    manifest = Manifest(
        schema_version=1,
        name=name,
        version=1,
        task="tensors",
        description="A model of tensors.",
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        decoding=TensorDecoding(),
        labels=(),
        graphs={"fp32": Graph(file="model.fp32.onnx")},
        session=SessionConfig(),
        max_batch_size=max_batch_size,
        files=digests(files),
        provenance=Provenance(
            recipe="tensors",
            config_sha256="0" * 64,
            data_sha256="0" * 64,
            tool_versions={},
            git_commit="unknown",
            weights_commit="unknown",
            measured_on="nothing",
            created_at=datetime(2026, 1, 1, tzinfo=UTC),
        ),
    )
    return publish(manifest, files, repository)


def _value(spec: TensorSpec) -> Any:
    return helper.make_tensor_value_info(spec.name, ONNX_TYPES[spec.datatype], list(spec.shape))
