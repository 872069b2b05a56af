"""The REST form of the Open Inference Protocol's inference: JSON, and tensors as bytes behind it.

With the binary extension a body is a JSON document, whose length a header tells, and the bytes of those
tensors that have a `binary_data_size` in it, one after the other. A length of 0 means that the body is the
one tensor of a model with one input.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import orjson

from bundle.datatypes import (
    BINARY_ONLY,
    DATATYPES,
    DTYPES,
    array_from_bytes,
    array_from_values,
    array_to_bytes,
    array_to_values,
)
from bundle.errors import InputError
from bundle.manifest import Manifest
from service.oip.infer import output_types
from service.oip.messages import InferRequest, InferResponse, RequestedOutput

HEADER_LENGTH = "inference-header-content-length"
_MOST_DIMENSIONS = 32
_MICROSECONDS = 1e-6


class Document(NamedTuple):
    """A request, and in which form its caller wants each output: as bytes where its name is in `binary`."""

    request: InferRequest
    binary: frozenset[str]


def parse_header_length(text: str | None) -> int | None:
    """Return the bytes of the JSON in front of binary tensors, or None where there is no such header.

    Raises:
        InputError: it is no whole number.
    """
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InputError(f"{HEADER_LENGTH} must be a whole number, not {text[:80]!r}")
    return int(text)


def parse_document(manifest: Manifest, body: bytes, header_length: int | None) -> Document:
    """Read the body of an inference.

    Raises:
        InputError: it is malformed, or its bytes do not fit what its JSON says.
    """
    if header_length == 0:
        return _raw_document(manifest, body)
    if header_length is not None and header_length > len(body):
        raise InputError(f"{HEADER_LENGTH} is {header_length}, but the body has only {len(body)} bytes")
    end = len(body) if header_length is None else header_length
    view = memoryview(body)
    try:
        document = orjson.loads(view[:end])
    except orjson.JSONDecodeError as error:
        raise InputError(f"the body is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise InputError("the body must be a JSON object")
    parameters = _parameters(document)
    return Document(
        _read_request(document, parameters, view[end:]),
        _binary_outputs(manifest, document, parameters),
    )


def write_response(response: InferResponse, binary: frozenset[str]) -> tuple[bytes, int | None]:
    """Return the body of an answer, and the length of its JSON where bytes follow.

    Raises:
        InputError: an output has no form in JSON and was not asked for as bytes.
    """
    outputs: list[dict[str, Any]] = []
    parts: list[bytes] = []
    for tensor in response.outputs:
        head: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.array.shape}
        if tensor.name in binary:
            content = array_to_bytes(tensor.datatype, tensor.array)
            head["parameters"] = {"binary_data_size": len(content)}
            parts.append(content)
        else:
            head["data"] = array_to_values(tensor.datatype, tensor.array)
        outputs.append(head)
    document: dict[str, Any] = {"model_name": response.model, "model_version": response.version}
    if response.id:
        document["id"] = response.id
    text = orjson.dumps(document | {"outputs": outputs})
    return (b"".join((text, *parts)), len(text)) if parts else (text, None)


def _raw_document(manifest: Manifest, body: bytes) -> Document:
    """The body is the one tensor: a batch of one, whose one free dimension follows from its size."""
    inputs = manifest.data_inputs
    if len(inputs) != 1 or inputs[0].free_dimensions > 1:
        raise InputError(f"{manifest.name} does not take a body that is one tensor and nothing else")
    (tensor,) = inputs
    if tensor.datatype == "BYTES":
        body = len(body).to_bytes(4, "little") + body
        row: list[int] = [1] * len(tensor.row_shape)
    else:
        row_bytes = DTYPES[tensor.datatype].itemsize * math.prod(
            size for size in tensor.row_shape if isinstance(size, int)
        )
        row = [size if isinstance(size, int) else len(body) // row_bytes for size in tensor.row_shape]
    shape = [1, *row] if tensor.batched else row
    array = array_from_bytes(tensor.name, tensor.datatype, shape, body)
    request = InferRequest({tensor.name: array}, {tensor.name: tensor.datatype})
    return Document(request, frozenset(output_types(manifest)))


def _read_request(document: dict[str, Any], parameters: dict[str, Any], rest: memoryview) -> InferRequest:
    inputs = document.get("inputs")
    if not isinstance(inputs, list) or not inputs:
        raise InputError('"inputs" must be a list of at least one tensor')
    tensors, datatypes = {}, {}
    for item in inputs:
        if not isinstance(item, dict) or not isinstance(name := item.get("name"), str):
            raise InputError('an input must be an object with a "name"')
        if name in tensors:
            raise InputError(f"the input {name!r} stands twice")
        datatype, shape = item.get("datatype"), item.get("shape")
        if datatype not in DATATYPES:
            raise InputError(f"{name}: the datatype {datatype!r} is none of {', '.join(DATATYPES)}")
        if not isinstance(shape, list) or not _is_shape(shape):
            raise InputError(f"{name}: the shape must be a list of whole numbers of at least 0")
        datatypes[name] = datatype
        size = _parameters(item).get("binary_data_size")
        if size is None:
            if "data" not in item:
                raise InputError(f"{name}: it has neither data nor a binary_data_size")
            tensors[name] = array_from_values(name, datatype, shape, item["data"])
            continue
        if "data" in item:
            raise InputError(f"{name}: it has both data and a binary_data_size")
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(rest):
            raise InputError(f"{name}: a binary_data_size of {size!r}, but {len(rest)} bytes are left")
        tensors[name] = array_from_bytes(name, datatype, shape, rest[:size])
        rest = rest[size:]
    if rest:
        raise InputError(f"the body has {len(rest)} bytes that belong to no tensor")
    identifier = document.get("id", "")
    if not isinstance(identifier, str):
        raise InputError('"id" must be a text')
    return InferRequest(
        tensors,
        datatypes,
        tuple(_requested(item) for item in _outputs(document)),
        identifier,
        _count(parameters, "priority"),
        _count(parameters, "timeout") * _MICROSECONDS or None,
    )


def _binary_outputs(
    manifest: Manifest, document: dict[str, Any], parameters: dict[str, Any]
) -> frozenset[str]:
    """The outputs that go as bytes; those that have no form in JSON do in any case, unless that is asked."""
    default = _flag(parameters, "binary_data_output")
    types = output_types(manifest)
    requested = {item["name"]: _parameters(item) for item in _outputs(document)}
    names = requested or {name: {} for name in types}
    return frozenset(
        name
        for name, own in names.items()
        if (
            _flag(own, "binary_data")
            if "binary_data" in own
            else default or (types.get(name) in BINARY_ONLY and not _count(own, "classification"))
        )
    )


def _outputs(document: dict[str, Any]) -> list[dict[str, Any]]:
    outputs = document.get("outputs", [])
    if not isinstance(outputs, list):
        raise InputError('"outputs" must be a list')
    for item in outputs:
        if not isinstance(item, dict) or not isinstance(item.get("name"), str):
            raise InputError('an output must be an object with a "name"')
    return outputs


def _requested(item: dict[str, Any]) -> RequestedOutput:
    return RequestedOutput(item["name"], _count(_parameters(item), "classification"))


def _parameters(item: dict[str, Any]) -> dict[str, Any]:
    parameters = item.get("parameters", {})
    if not isinstance(parameters, dict):
        raise InputError('"parameters" must be an object')
    return parameters


def _flag(parameters: dict[str, Any], name: str) -> bool:
    value = parameters.get(name, False)
    if not isinstance(value, bool):
        raise InputError(f"the parameter {name!r} must be true or false")
    return value


def _count(parameters: dict[str, Any], name: str) -> int:
    value = parameters.get(name, 0)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise InputError(f"the parameter {name!r} must be a whole number of at least 0")
    return value


def _is_shape(shape: list[Any]) -> bool:
    return len(shape) <= _MOST_DIMENSIONS and all(type(size) is int and 0 <= size < 2**40 for size in shape)
