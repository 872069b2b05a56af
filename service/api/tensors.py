"""The REST form of the Open Inference Protocol's inference: JSON, and tensors as bytes behind it.

With the binary extension a body is a JSON document, whose length a header tells, and the bytes of those
tensors that have a `binary_data_size` in it, one after the other. A length of 0 means that the body is the
one tensor of a model with one input.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from bundle.datatypes import (
    BINARY_ONLY,
    DATATYPES,
    DTYPES,
    Array,
    Datatype,
    array_from_bytes,
    array_from_values,
    array_to_bytes,
    array_to_values,
    check_json_form,
    check_shape,
)
from bundle.errors import InputError
from bundle.manifest import Manifest
from service.oip.messages import InferRequest, InferResponse, OutputTensor, RequestedOutput

HEADER_LENGTH = "inference-header-content-length"
# Clients send the same JSON with other bytes behind it again and again; taking it apart would be a third of
# the time that reading such a request takes.
_LONGEST_KEPT_BYTES = 1024
_MOST_KEPT = 1024
_MICROSECONDS = 1e-6


class Wishes(NamedTuple):
    """In which form a caller wants each output.

    Attributes:
        binary: name -> whether as bytes, for those of which the caller says it.
        default: of the others.
    """

    binary: Mapping[str, bool]
    default: bool

    def is_binary(self, tensor: OutputTensor) -> bool:
        """Whether an output goes as bytes; what has no form in JSON does, unless JSON is asked for."""
        return self.binary.get(tensor.name, self.default or tensor.datatype in BINARY_ONLY)


class Document(NamedTuple):
    """A request and how its answer is to be written."""

    request: InferRequest
    wishes: Wishes


class _Input(NamedTuple):
    """What the JSON says of one input: how many bytes it has behind the JSON, or else its data."""

    name: str
    datatype: Datatype
    shape: list[int]
    size_bytes: int | None
    data: object


# Name, datatype and shape of an output, and how many bytes it has behind the JSON, or else its data.
_Output = tuple[str, Datatype, tuple[int, ...], int | None, object]


class _Head(NamedTuple):
    """All that the JSON says. It is kept, so nothing in it may be changed."""

    inputs: list[_Input]
    datatypes: dict[str, Datatype]
    outputs: tuple[RequestedOutput, ...]
    wishes: Wishes
    id: str
    priority: int
    timeout_s: float | None


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
    if header_length is None:
        head, rest = _parse_head(body), memoryview(b"")
    elif header_length > len(body):
        raise InputError(f"{HEADER_LENGTH} is {header_length}, but the body has only {len(body)} bytes")
    else:
        parse = _recall_head if header_length <= _LONGEST_KEPT_BYTES else _parse_head
        head, rest = parse(body[:header_length]), memoryview(body)[header_length:]
    tensors: dict[str, Array] = {}
    for name, datatype, shape, size, data in head.inputs:
        if size is None:
            tensors[name] = array_from_values(name, datatype, shape, data)
        elif size > len(rest):
            raise InputError(f"{name}: a binary_data_size of {size}, but {len(rest)} bytes are left")
        else:
            tensors[name] = array_from_bytes(name, datatype, shape, rest[:size])
            rest = rest[size:]
    if rest:
        raise InputError(f"the body has {len(rest)} bytes that belong to no tensor")
    request = InferRequest(tensors, head.datatypes, head.outputs, head.id, head.priority, head.timeout_s)
    return Document(request, head.wishes)


def write_response(response: InferResponse, wishes: Wishes) -> tuple[bytes, int | None]:
    """Return the body of an answer, and the length of its JSON where bytes follow.

    Raises:
        InputError: an output has no form in JSON and was not asked for as bytes.
    """
    outputs: list[_Output] = []
    parts: list[bytes] = []
    for tensor in response.outputs:
        name, datatype, array = tensor
        if wishes.is_binary(tensor):
            content = array_to_bytes(datatype, array)
            parts.append(content)
            outputs.append((name, datatype, array.shape, len(content), None))
        else:
            outputs.append((name, datatype, array.shape, None, _json_data(tensor)))
    # Without an id, and with all data behind it, the JSON is the same again and again.
    write = _recall_text if len(parts) == len(outputs) and not response.id else _write_text
    text = write(response.model, response.version, response.id, tuple(outputs))
    return (b"".join((text, *parts)), len(text)) if parts else (text, None)


def _write_text(model: str, version: str, identifier: str, outputs: tuple[_Output, ...]) -> bytes:
    document: dict[str, Any] = {"model_name": model, "model_version": version}
    if identifier:
        document["id"] = identifier
    document["outputs"] = [
        {"name": name, "datatype": datatype, "shape": shape}
        | ({"data": data} if size is None else {"parameters": {"binary_data_size": size}})
        for name, datatype, shape, size, data in outputs
    ]
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


_recall_text = lru_cache(maxsize=_MOST_KEPT)(_write_text)


def _json_data(tensor: OutputTensor) -> object:
    """What orjson writes as a flat list: numbers it takes from an array, faster than one by one."""
    if tensor.datatype == "BYTES":
        return array_to_values(tensor.name, tensor.datatype, tensor.array)
    check_json_form(tensor.name, tensor.datatype, tensor.array)
    return tensor.array.ravel()


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
    return Document(InferRequest({tensor.name: array}, {tensor.name: tensor.datatype}), Wishes({}, True))


def _parse_head(content: bytes) -> _Head:
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise InputError(f"the body is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise InputError("the body must be a JSON object")
    items = document.get("inputs")
    if not isinstance(items, list) or not items:
        raise InputError('"inputs" must be a list of at least one tensor')
    inputs = [_parse_input(item) for item in items]
    datatypes = {each.name: each.datatype for each in inputs}
    if len(datatypes) < len(inputs):
        raise InputError("an input stands twice")
    outputs: list[RequestedOutput] = []
    binary: dict[str, bool] = {}
    for name, parameters in _named_outputs(document):
        outputs.append(RequestedOutput(name, _count(parameters, "classification")))
        if parameters.get("binary_data") is not None:
            binary[name] = _flag(parameters, "binary_data")
    identifier = document.get("id")
    if identifier is not None and not isinstance(identifier, str):
        raise InputError('"id" must be a text')
    parameters = _parameters(document)
    return _Head(
        inputs,
        datatypes,
        tuple(outputs),
        Wishes(binary, _flag(parameters, "binary_data_output")),
        identifier or "",
        _count(parameters, "priority"),
        _count(parameters, "timeout") * _MICROSECONDS or None,
    )


_recall_head = lru_cache(maxsize=_MOST_KEPT)(_parse_head)


def _parse_input(item: object) -> _Input:
    if not isinstance(item, dict) or not isinstance(name := item.get("name"), str):
        raise InputError('an input must be an object with a "name"')
    named = name[:80]
    datatype, shape, data = item.get("datatype"), item.get("shape"), item.get("data")
    if datatype not in DATATYPES:
        raise InputError(f"{named}: the datatype {str(datatype)[:80]!r} is none of {', '.join(DATATYPES)}")
    if not isinstance(shape, list):
        raise InputError(f"{named}: the shape must be a list of whole numbers of at least 0")
    check_shape(named, shape)
    parameters = _parameters(item)
    size = parameters.get("binary_data_size")
    if size is not None and (type(size) is not int or size < 0):
        raise InputError(f"{named}: the binary_data_size must be a whole number of at least 0")
    if size is None and data is None:
        raise InputError(f"{named}: it has neither data nor a binary_data_size")
    if size is not None and data is not None:
        raise InputError(f"{named}: it has both data and a binary_data_size")
    return _Input(name, datatype, shape, size, data)


def _named_outputs(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    outputs = document.get("outputs")
    if outputs is None:
        return []
    if not isinstance(outputs, list):
        raise InputError('"outputs" must be a list')
    named = []
    for item in outputs:
        if not isinstance(item, dict) or not isinstance(name := item.get("name"), str):
            raise InputError('an output must be an object with a "name"')
        named.append((name, _parameters(item)))
    return named


def _parameters(item: dict[str, Any]) -> dict[str, Any]:
    """The parameters of a request, an input or an output; many clients write null for none."""
    parameters = item.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise InputError('"parameters" must be an object')
    if "shared_memory_region" in parameters:
        raise InputError("shared memory is not supported: send and ask for the data themselves")
    return parameters


def _flag(parameters: dict[str, Any], name: str) -> bool:
    value = parameters.get(name, False)
    if not isinstance(value, bool):
        raise InputError(f"the parameter {name!r} must be true or false")
    return value


def _count(parameters: dict[str, Any], name: str) -> int:
    value = parameters.get(name, 0)
    if type(value) is not int or not 0 <= value < 2**63:
        raise InputError(f"the parameter {name!r} must be a whole number of at least 0")
    return value
