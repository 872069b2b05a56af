"""The gRPC form of the Open Inference Protocol's inference: messages to tensors, and tensors to messages.

The elements of a tensor stand either in a field of their datatype or as the bytes that the binary extension
of REST sends; in one message all tensors have the same form.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from bundle.datatypes import (
    BINARY_ONLY,
    DATATYPES,
    DTYPES,
    Array,
    Datatype,
    array_from_bytes,
    array_to_bytes,
    check_range,
    check_shape,
)
from bundle.errors import InputError
from service.oip.messages import InferRequest, InferResponse, RequestedOutput
from service.rpc.open_inference_pb2 import (
    InferParameter,
    InferTensorContents,
    ModelInferRequest,
    ModelInferResponse,
)

_MICROSECONDS = 1e-6
_LARGEST_NUMBER = 2**63 - 1


class _Field(NamedTuple):
    """Where a message holds the elements of a datatype, and the dtype that they have there."""

    name: str
    dtype: Any


_FIELDS: dict[Datatype, _Field] = {
    "BOOL": _Field("bool_contents", np.bool_),
    **dict.fromkeys(("INT8", "INT16", "INT32"), _Field("int_contents", np.int32)),
    "INT64": _Field("int64_contents", np.int64),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), _Field("uint_contents", np.uint32)),
    "UINT64": _Field("uint64_contents", np.uint64),
    "FP32": _Field("fp32_contents", np.float32),
    "FP64": _Field("fp64_contents", np.float64),
    "BYTES": _Field("bytes_contents", object),
}


def parse_request(message: ModelInferRequest) -> InferRequest:
    """Read a request.

    Raises:
        InputError: it is malformed, or its contents do not fit its shapes.
    """
    raw = message.raw_input_contents
    if not message.inputs:
        raise InputError("the request has no inputs")
    if raw and len(raw) != len(message.inputs):
        raise InputError(f"{len(message.inputs)} inputs with {len(raw)} raw_input_contents")
    tensors: dict[str, Array] = {}
    datatypes: dict[str, Datatype] = {}
    for i, tensor in enumerate(message.inputs):
        name, datatype, shape = tensor.name, _datatype(tensor.name, tensor.datatype), list(tensor.shape)
        if name in tensors:
            raise InputError(f"the input {name!r} stands twice")
        check_shape(name, shape)
        if not raw:
            tensors[name] = _array_from_contents(name, datatype, shape, tensor.contents)
        elif tensor.HasField("contents"):
            raise InputError(f"{name}: it has both contents and raw_input_contents")
        else:
            tensors[name] = array_from_bytes(name, datatype, shape, raw[i])
        datatypes[name] = datatype
    outputs = tuple(
        RequestedOutput(output.name, _count(output.parameters, "classification"))
        for output in message.outputs
    )
    priority = _count(message.parameters, "priority")
    return InferRequest(tensors, datatypes, outputs, message.id, priority, timeout_of(message))


def timeout_of(message: ModelInferRequest) -> float | None:
    """Return how many seconds the caller waits, if the request says so.

    Raises:
        InputError: it is no whole number of at least 0.
    """
    return _count(message.parameters, "timeout") * _MICROSECONDS or None


def write_response(response: InferResponse, *, typed: bool) -> ModelInferResponse:
    """Return the message of an answer.

    Args:
        typed: whether its elements should stand in fields of their datatypes. They are bytes all the same
            where one of the outputs has no such field.
    """
    message = ModelInferResponse(model_name=response.model, model_version=response.version, id=response.id)
    typed = typed and BINARY_ONLY.isdisjoint(tensor.datatype for tensor in response.outputs)
    for tensor in response.outputs:
        output = message.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.array.shape)
        if typed:
            _fill_contents(output.contents, tensor.datatype, tensor.array)
        else:
            message.raw_output_contents.append(array_to_bytes(tensor.datatype, tensor.array))
    return message


def _datatype(name: str, text: str) -> Datatype:
    for datatype in DATATYPES:
        if datatype == text:
            return datatype
    raise InputError(f"{name}: the datatype {text[:80]!r} is none of {', '.join(DATATYPES)}")


def _array_from_contents(
    name: str, datatype: Datatype, shape: list[int], contents: InferTensorContents
) -> Array:
    if datatype in BINARY_ONLY:
        raise InputError(f"{name}: {datatype} can be sent in raw_input_contents only")
    field = _FIELDS[datatype]
    for other, _ in contents.ListFields():
        if other.name != field.name:
            raise InputError(f"{name}: {datatype} stands in {field.name}, not in {other.name}")
    elements = getattr(contents, field.name)
    if len(elements) != math.prod(shape):
        raise InputError(
            f"{name}: {len(elements)} {field.name} do not fit {shape}, which has {math.prod(shape)}"
        )
    if datatype == "BYTES":
        array = np.empty(len(elements), object)
        array[:] = _texts(name, elements)
        return array.reshape(shape)
    array = np.array(elements, field.dtype)
    if array.dtype != DTYPES[datatype]:
        check_range(name, datatype, array)
    return array.astype(DTYPES[datatype], copy=False).reshape(shape)


def _texts(name: str, elements: Any) -> list[str]:
    try:
        return [element.decode() for element in elements]
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: an element of BYTES is not UTF-8") from error


def _fill_contents(contents: InferTensorContents, datatype: Datatype, array: Array) -> None:
    elements: list[Any] = array.ravel().tolist()
    if datatype == "BYTES":
        elements = [each if isinstance(each, bytes) else str(each).encode() for each in elements]
    getattr(contents, _FIELDS[datatype].name).extend(elements)


def _count(parameters: Mapping[str, InferParameter], name: str) -> int:
    """Clients send whole numbers as either of two types."""
    if name not in parameters:
        return 0
    parameter = parameters[name]
    kind = parameter.WhichOneof("parameter_choice")
    value = getattr(parameter, kind) if kind in ("int64_param", "uint64_param") else -1
    if not 0 <= value <= _LARGEST_NUMBER:
        raise InputError(f"the parameter {name!r} must be a whole number of at least 0")
    return int(value)
