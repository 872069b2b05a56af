"""The types of tensors, by their Open Inference Protocol names, and their elements as bytes and in JSON.

Bytes are little-endian and row-major without padding. An element of BYTES is its length as four bytes and
its content. numpy has no bfloat16, so BF16 is held as the uint16 of its bits everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from bundle.errors import InputError

Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
    "FP16", "BF16", "FP32", "FP64", "BYTES",
]  # fmt: skip
DATATYPES: tuple[Datatype, ...] = get_args(Datatype)
Array = NDArray[Any]

DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype(object),
}
# The names that ONNX Runtime has for them.
ORT_TYPES: dict[str, str] = {
    "BOOL": "tensor(bool)",
    "FP16": "tensor(float16)",
    "BF16": "tensor(bfloat16)",
    "FP32": "tensor(float)",
    "FP64": "tensor(double)",
    "BYTES": "tensor(string)",
    **{name: f"tensor({name.lower()})" for name in DATATYPES if "INT" in name},
}
# They have no form in JSON: a number there would be rounded without anyone asking.
BINARY_ONLY = frozenset({"FP16", "BF16"})
_MOST_DIMENSIONS = 32
_MOST_ELEMENTS = 2**48

_JSON_NAMES = {
    bool: "true or false",
    int: "integers",
    str: "text",
    float: "fractions or integers beyond 64 bits",
    dict: "an object",
    list: "lists nested too deeply",
    type(None): "null",
}


def check_shape(name: str, shape: Sequence[object]) -> None:
    """Check that a caller's shape is one that an array can have, before anything is computed with it.

    Raises:
        InputError: it has too many dimensions or elements, or a size that is no whole number of at least 0.
    """
    if len(shape) > _MOST_DIMENSIONS:
        raise InputError(
            f"{name}: a shape of {len(shape)} dimensions; at most {_MOST_DIMENSIONS} are allowed"
        )
    elements = 1
    for size in shape:
        if type(size) is not int or size < 0:
            raise InputError(f"{name}: the shape must be a list of whole numbers of at least 0")
        elements *= size or 1  # numpy multiplies so, too: another size may be too large beside one of 0
    if elements > _MOST_ELEMENTS:
        raise InputError(f"{name}: the shape has too many elements")


def array_from_bytes(
    name: str, datatype: Datatype, shape: Sequence[int], content: bytes | memoryview
) -> Array:
    """Read a tensor from its bytes; what is not BYTES is a view of them.

    Args:
        name: of the tensor, for the message.
        shape: of the whole tensor, as `check_shape` lets pass.

    Returns:
        An array of `DTYPES[datatype]`; the elements of BYTES are str.

    Raises:
        InputError: there are too few bytes or too many, or an element of BYTES is not UTF-8.
    """
    if datatype == "BYTES":
        return _texts_from_bytes(name, shape, content)
    dtype = DTYPES[datatype]
    expected = math.prod(shape) * dtype.itemsize
    if len(content) != expected:
        raise InputError(
            f"{name}: {len(content)} bytes do not fit {datatype} {list(shape)}, which has {expected}"
        )
    array: Array = np.ndarray(shape, dtype, content)
    if datatype == "BOOL" and array.size and array.view(np.uint8).max() > 1:
        raise InputError(f"{name}: a BOOL must be a byte of 0 or 1")
    return array


def array_to_bytes(datatype: Datatype, array: Array) -> bytes:
    """Return the bytes of a tensor, as `array_from_bytes` reads them."""
    if datatype != "BYTES":
        return array.astype(DTYPES[datatype], copy=False).tobytes()
    elements = [element if isinstance(element, bytes) else str(element).encode() for element in array.flat]
    return b"".join(chain.from_iterable((len(each).to_bytes(4, "little"), each) for each in elements))


def array_from_values(name: str, datatype: Datatype, shape: Sequence[int], values: object) -> Array:
    """Read a tensor from JSON: its elements in a flat list or in nested ones, row-major.

    Args:
        shape: of the whole tensor; an empty one is a scalar, which may also stand alone.

    Raises:
        InputError: wrong type, number or nesting, a number out of the type's range, or a type that has no
            form in JSON.
    """
    if datatype in BINARY_ONLY:
        raise InputError(f"{name}: {datatype} can be sent as bytes only, not as JSON")
    if not isinstance(values, list):
        values = [values]
    dtype = DTYPES[datatype]
    kinds: dict[str, set[type]] = {"b": {bool}, "O": {str}, "f": {int, float}}
    allowed = kinds.get(dtype.kind, {int})
    if odd := leaf_types(values, max(1, len(shape))) - allowed:
        found = ", ".join(sorted(json_name(kind) for kind in odd))
        raise InputError(f"{name}: {found} cannot be an element of {datatype}")
    try:
        # The type of fractions is numpy's choice, so that their range can be checked.
        array = np.array(values, None if dtype.kind == "f" else dtype)
    except OverflowError as error:
        raise InputError(f"{name}: holds integers beyond {datatype}") from error
    except ValueError as error:
        raise InputError(f"{name}: the nested lists have no regular shape") from error
    if dtype.kind == "O" and any(isinstance(element, list) for element in array.flat):  # so numpy has them
        raise InputError(f"{name}: the nested lists have no regular shape")
    # Lists cannot tell of the dimensions that come behind one of 0.
    is_nested_otherwise = array.ndim > 1 and array.shape != tuple(shape)[: array.ndim]
    if array.size != math.prod(shape) or is_nested_otherwise:
        raise InputError(f"{name}: data of the shape {list(array.shape)} do not fit {list(shape)}")
    if dtype.kind == "f":
        check_range(name, datatype, array)
    return array.astype(dtype, copy=False).reshape(shape)


def check_range(name: str, datatype: Datatype, array: Array) -> None:
    """Check that numbers of any type can be cast to a datatype, whatever rounding it brings to fractions.

    Raises:
        InputError: one is out of its range, or too large for 64 bits.
    """
    dtype = DTYPES[datatype]
    if not array.size:
        return
    if array.dtype.kind not in ("iu" if dtype.kind in "iu" else "iuf"):
        raise InputError(f"{name}: holds integers that are too large for any {datatype}")
    limits: Any = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    smallest, largest = array.min(), array.max()
    if smallest < limits.min or largest > limits.max:
        raise InputError(f"{name}: holds values from {smallest} to {largest}, beyond {datatype}")


def check_json_form(name: str, datatype: Datatype, array: Array) -> None:
    """Check that the elements of a tensor can be written as JSON.

    Raises:
        InputError: its type has no form there, or a number is not finite.
    """
    if datatype in BINARY_ONLY:
        raise InputError(
            f"{name}: {datatype} can be returned as bytes only, not as JSON: ask for binary data"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(f"{name}: holds NaN or infinity, which JSON does not know: ask for binary data")


def array_to_values(name: str, datatype: Datatype, array: Array) -> list[Any]:
    """Return the elements of a tensor as a flat list for JSON.

    Raises:
        InputError: as `check_json_form`.
    """
    if datatype == "BYTES":
        return [_to_text(element) for element in array.flat]
    check_json_form(name, datatype, array)
    values: list[Any] = array.ravel().tolist()
    return values


def leaf_types(values: object, depth: int) -> set[type]:
    """The types of all that stands in nested lists, down to a depth; beyond, a list is a leaf itself."""
    if not isinstance(values, list):
        return {type(values)}
    kinds = set(map(type, values))
    if depth > 1 and list in kinds:
        kinds.discard(list)
        kinds.update(*(leaf_types(value, depth - 1) for value in values if isinstance(value, list)))
    return kinds


def json_name(kind: type) -> str:
    """What an element of JSON that orjson gave as this type is called."""
    return _JSON_NAMES.get(kind, kind.__name__)


def _texts_from_bytes(name: str, shape: Sequence[int], content: bytes | memoryview) -> Array:
    """ONNX's strings are texts: what is not UTF-8 could not come back as it was."""
    content = bytes(content)
    count = math.prod(shape)
    texts: list[str] = []
    position = 0
    while position < len(content) and len(texts) <= count:
        end = position + 4 + int.from_bytes(content[position : position + 4], "little")
        if position + 4 > len(content) or end > len(content):
            raise InputError(f"{name}: the last element of BYTES is cut off")
        try:
            texts.append(content[position + 4 : end].decode())
        except UnicodeDecodeError as error:
            raise InputError(f"{name}: an element of BYTES is not UTF-8") from error
        position = end
    if len(texts) != count or position != len(content):
        many = "more" if position < len(content) or len(texts) > count else str(len(texts))
        raise InputError(f"{name}: BYTES {list(shape)} has {count} elements, the data have {many}")
    array = np.empty(count, object)
    array[:] = texts
    return array.reshape(shape)


def _to_text(element: object) -> str:
    return element.decode(errors="replace") if isinstance(element, bytes) else str(element)
