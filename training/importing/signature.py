"""What a graph takes and gives, in the terms of the manifest; and the names that its dimensions get."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx
import onnxruntime as ort

from bundle.datatypes import ORT_TYPES, Datatype
from bundle.manifest import TensorSpec
from training.errors import ImportModelError

BATCH = "batch"
_DATATYPES: dict[str, Datatype] = {kind: datatype for datatype, kind in ORT_TYPES.items()}  # type: ignore[misc]


@dataclass(frozen=True)
class Signature:
    """The tensors of a graph; the first dimension is "batch" in all of them or in none."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def batched(self) -> bool:
        """Whether rows run together."""
        return self.inputs[0].batched


def read_signature(session: ort.InferenceSession, ranges: dict[str, tuple[float, float]]) -> Signature:
    """Return the signature of a loaded graph.

    Args:
        ranges: input -> values that are allowed.

    Raises:
        ImportModelError: it takes nothing, gives nothing, or a dimension can only be empty.
    """
    defaults = {node.name for node in session.get_overridable_initializers()}
    taken = [*session.get_inputs(), *session.get_overridable_initializers()]
    if not session.get_inputs() or not session.get_outputs():
        raise ImportModelError("it has no inputs or no outputs, so there is nothing to call")
    sides = [taken, session.get_outputs()]
    batched = all(node.shape[:1] == [BATCH] for nodes in sides for node in nodes if node.name not in defaults)
    inputs, outputs = (
        tuple(_spec(node, batched, node.name in defaults, ranges.get(node.name)) for node in nodes)
        for nodes in sides
    )
    return Signature(inputs, outputs)


def name_batch(model: onnx.ModelProto) -> bool:
    """Call the first dimension of all inputs and outputs "batch", if it is free in all of them.

    Args:
        model: is changed, if so; initializers among its inputs become constants then, because rows that run
            together cannot each bring their own.

    Returns:
        Whether it was done.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    given = [value for value in model.graph.input if value.name not in constants]
    if any(_first_dimension(value) is None for value in (*given, *model.graph.output)):
        return False
    freeze_defaults(model)
    firsts = [value.type.tensor_type.shape.dim[0] for value in (*model.graph.input, *model.graph.output)]
    old = {first.dim_param for first in firsts} - {""}
    for value in model.graph.value_info:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in old:
                dim.dim_param = BATCH
    for first in firsts:
        first.dim_param = BATCH
    return True


def unname_batch(model: onnx.ModelProto) -> None:
    """Undo `name_batch`: the first dimension stays free, but counts no rows."""
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == BATCH:
                dim.dim_param = "rows"


def freeze_defaults(model: onnx.ModelProto) -> list[str]:
    """Make constants of the initializers that callers could override; return their names."""
    constants = {tensor.name for tensor in model.graph.initializer}
    kept = [value for value in model.graph.input if value.name not in constants]
    frozen = [value.name for value in model.graph.input if value.name in constants]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    return frozen


def _first_dimension(value: onnx.ValueInfoProto) -> Any | None:
    """Return the first dimension, if it is free."""
    dims = value.type.tensor_type.shape.dim
    return dims[0] if dims and dims[0].dim_value < 1 and not _is_empty(dims[0]) else None


def _is_empty(dim: Any) -> bool:
    """Whether a dimension is fixed at 0, which is another thing than not fixed."""
    return bool(dim.WhichOneof("value") == "dim_value" and dim.dim_value == 0)


def _spec(node: Any, batched: bool, optional: bool, allowed: tuple[float, float] | None) -> TensorSpec:
    if 0 in node.shape:
        raise ImportModelError(f"the shape of {node.name!r} is {node.shape}, which has no elements")
    return TensorSpec(
        name=node.name,
        datatype=_DATATYPES[node.type],
        shape=_name_dimensions(node.name, node.shape, batched),
        allowed_range=allowed,
        optional=optional,
    )


def _name_dimensions(name: str, shape: Sequence[int | str | None], batched: bool) -> tuple[int | str, ...]:
    """Name every free dimension; "batch" is only the first one, of tensors that have rows."""
    named: list[int | str] = []
    for axis, size in enumerate(shape):
        is_rows = size == BATCH and batched and axis == 0
        nameless = size in (None, "", BATCH) or (isinstance(size, int) and size < 1)
        named.append(f"{name}_{axis}" if size is None or (nameless and not is_rows) else size)
    return tuple(named)
