"""Read an ONNX file from somewhere else: whole, of operators that this runtime has, and of tensors only.

What cannot be served is refused here, each for its own reason, before anything is run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import onnx
import onnxruntime as ort
from google.protobuf.message import DecodeError, EncodeError
from onnx import TensorProto, external_data_helper, helper

from bundle.errors import GraphError
from bundle.manifest import SessionConfig
from bundle.session import ORT_ERRORS, create_session
from training.data.files import digest_of, sha256_of
from training.errors import ExportError, ImportModelError
from training.onnx_model import clean

_ELEMENT_TYPES = frozenset(
    {
        TensorProto.BOOL, TensorProto.STRING, TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16,
        TensorProto.DOUBLE, TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64,
        TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64,
    }
)  # fmt: skip
# Those of ONNX itself, and the operators that every ONNX Runtime has beside them.
DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})


@dataclass(frozen=True)
class Source:
    """A model that can be loaded.

    Attributes:
        model: with all tensors inside.
        session: of the model, not optimized.
        sha256: of the file; with external data, of the list of all files.
    """

    model: onnx.ModelProto
    session: ort.InferenceSession
    sha256: str


def read_source(path: Path) -> Source:
    """Read an ONNX file and the tensors that it keeps beside itself.

    Raises:
        ImportModelError: it cannot be served; the message says why in one sentence.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else "this is no ONNX file"
        raise ImportModelError(f"it cannot be read: {reason}") from error
    if not model.graph.node and not model.graph.output:
        raise ImportModelError("it is no ONNX file, or an empty one")
    check_operators(model)
    _check_types(model)
    sha256 = _take_in_external_data(model, path)
    _complete_shapes(model)
    try:
        clean(model, max_opset=_check_opset(model))
        content = model.SerializeToString()
        session = load_session(content)
    except (ExportError, GraphError) as error:
        raise ImportModelError(f"it cannot be used: {_first_line(error)}") from error
    except (EncodeError, ValueError) as error:
        raise ImportModelError("it is larger than 2 GiB, which one ONNX file cannot hold") from error
    return Source(model, session, sha256)


def load_session(content: bytes) -> ort.InferenceSession:
    """Load a graph as the service would, only faster.

    Raises:
        GraphError: ONNX Runtime cannot load it.
    """
    return create_session(content, SessionConfig(graph_optimization_level="basic"), "cpu", lengths_vary=True)


def check_operators(model: onnx.ModelProto) -> None:
    """Check that every operator is one of ONNX, of ONNX Runtime, or a function in the file itself.

    Raises:
        ImportModelError: one is not.
    """
    functions = {(function.domain, function.name) for function in model.functions}
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    for node in _walk(nodes):
        if node.domain not in DOMAINS and (node.domain, node.op_type) not in functions:
            raise ImportModelError(
                f"it uses the custom operator {node.domain}:{node.op_type}; "
                "only those of ONNX and ONNX Runtime can be served"
            )


@cache
def runtime_opset() -> int:
    """Return the newest opset that the installed ONNX Runtime and onnx package both know."""
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "probe", [value], [result])
    for opset in range(onnx.defs.onnx_opset_version(), 0, -1):
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        try:
            ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        except ORT_ERRORS:
            continue
        return opset
    raise AssertionError("it knows no opset at all")


def _check_opset(model: onnx.ModelProto) -> int:
    newest = runtime_opset()
    versions = {entry.domain: entry.version for entry in model.opset_import}
    opset = versions.get("", versions.get("ai.onnx", 0))
    if opset > newest:
        raise ImportModelError(
            f"it uses opset {opset}; the installed ONNX Runtime {ort.__version__} knows those up to {newest}"
        )
    return newest


def _take_in_external_data(model: onnx.ModelProto, path: Path) -> str:
    """Read the tensors that lie in other files into the model; return the digest of all files."""
    folder = path.resolve().parent
    digests = {path.name: sha256_of(path)}
    for tensor in _tensors(model):
        if not external_data_helper.uses_external_data(tensor):
            continue
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        file = (folder / location).resolve()
        if not location or not file.is_relative_to(folder):
            raise ImportModelError(
                f"its tensor {tensor.name!r} lies in {location!r}, outside the folder of the model"
            )
        if not file.is_file():
            raise ImportModelError(f"its tensor {tensor.name!r} lies in {location!r}, which is not there")
        if location not in digests:
            digests[location] = sha256_of(file)
        try:
            external_data_helper.load_external_data_for_tensor(tensor, str(folder))
        except (OSError, ValueError, onnx.checker.ValidationError) as error:
            raise ImportModelError(
                f"its tensor {tensor.name!r} cannot be read from {location!r}: {_first_line(error)}"
            ) from error
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]
    return digests[path.name] if len(digests) == 1 else digest_of(digests)


def _check_types(model: onnx.ModelProto) -> None:
    """Check that all inputs and outputs are tensors of a type that callers can name."""
    has_zipmap = any(node.op_type == "ZipMap" for node in model.graph.node)
    hint = "; export it without ZipMap (skl2onnx: options={'zipmap': False})" if has_zipmap else ""
    for side, values in (("input", model.graph.input), ("output", model.graph.output)):
        for value in values:
            form = str(value.type.WhichOneof("value")).removesuffix("_type")
            if form != "tensor":
                raise ImportModelError(
                    f"its {side} {value.name!r} is a {form}, and only tensors can be served{hint}"
                )
            if (kind := value.type.tensor_type.elem_type) not in _ELEMENT_TYPES:
                name = TensorProto.DataType.Name(kind)
                raise ImportModelError(
                    f"its {side} {value.name!r} is of {name}, for which no protocol has a name"
                )


def _complete_shapes(model: onnx.ModelProto) -> None:
    """Infer the shapes of outputs that have none: a manifest must say how many dimensions there are."""
    if any(not value.type.tensor_type.HasField("shape") for value in model.graph.output):
        inferred = onnx.shape_inference.infer_shapes(model)
        for value, known in zip(model.graph.output, inferred.graph.output, strict=True):
            value.CopyFrom(known)
    for side, values in (("input", model.graph.input), ("output", model.graph.output)):
        for value in values:
            if not value.type.tensor_type.HasField("shape"):
                raise ImportModelError(
                    f"its {side} {value.name!r} has no shape, so not even its number of dimensions is known"
                )


def _walk(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Yield nodes and those of the graphs inside them."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _walk(graph.node)


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor of a model, wherever it stands."""
    yield from _initializers(model.graph)
    functions = [node for function in model.functions for node in function.node]
    for node in _walk([*model.graph.node, *functions]):
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            for graph in (attribute.g, *attribute.graphs):
                yield from _initializers(graph)


def _initializers(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
