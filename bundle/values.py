"""Values: the elements of a tensor as nested lists, as JSON has them, and the array that they make."""

from __future__ import annotations

from contextlib import suppress

import numpy as np

from bundle.bfloat16 import bits_from_floats
from bundle.datatypes import DTYPES, Array, Datatype, json_name, leaf_types
from bundle.errors import InputError
from bundle.manifest import TensorSpec


def array_of(tensor: TensorSpec, values: object, dimensions: int, *, only_numbers: bool = False) -> Array:
    """Convert nested lists to an array in a type of numpy's choice; shape and range are not checked yet.

    Args:
        dimensions: that the array should have.
        only_numbers: the caller knows that nothing but numbers and lists stands in `values`.

    Raises:
        InputError: something in it is no element of the tensor's type, or the lists have no regular shape.
    """
    array = _convert_quickly(tensor, values, dimensions) if only_numbers else None
    return _convert(tensor, values, dimensions) if array is None else array


def cast(datatype: Datatype, array: Array) -> Array:
    """Return an array of numbers within the range of a datatype, or of anything else, as that datatype.

    Fractions are rounded to the nearest.
    """
    if datatype == "BF16":
        return bits_from_floats(array)
    return array.astype(DTYPES[datatype], copy=False)


def _convert_quickly(tensor: TensorSpec, values: object, dimensions: int) -> Array | None:
    """Convert the two kinds of lists that are sent most, or return None and leave it to `_convert`.

    These are matrices of bytes and vectors of fractions; it takes a third to a half of the time.
    """
    if not isinstance(values, list):
        return None
    try:
        if tensor.datatype == "UINT8" and dimensions == 2:
            (width,) = set(map(len, values))  # bytes(7) would be seven zeros, but a number has no length
            return np.frombuffer(b"".join(map(bytes, values)), np.uint8).reshape(len(values), width)
        if tensor.datatype == "FP32" and dimensions == 1:
            return np.fromiter(values, np.float64, len(values))
    except (TypeError, ValueError):  # what is wrong with it is found out by `_convert`
        pass
    return None


def _convert(tensor: TensorSpec, values: object, dimensions: int) -> Array:
    """Convert nested lists, or say what is wrong with them."""
    allowed, expected = _allowed(tensor.datatype)
    # Before numpy takes true for 1 or makes room for a long text everywhere.
    if odd := leaf_types(values, dimensions) - allowed:
        found = ", ".join(sorted(json_name(kind) for kind in odd))
        raise InputError(f"{tensor.name}: expected {expected} ({tensor.datatype}), got {found}")
    try:
        array = np.array(values, object if tensor.datatype == "BYTES" else None)
    except ValueError as error:
        raise InputError(f"{tensor.name}: the nested lists have no regular shape") from error
    if tensor.datatype == "BYTES" and any(isinstance(element, list) for element in array.flat):
        raise InputError(f"{tensor.name}: the nested lists have no regular shape")  # numpy would keep them
    numeric = "iu" if allowed == {int} else "iuf"
    if not array.size or int not in allowed or array.dtype.kind in numeric:
        return array
    if tensor.datatype == "UINT64":  # numpy makes fractions of integers on both sides of 2**63
        with suppress(OverflowError):
            return np.array(values, np.uint64)
    raise InputError(f"{tensor.name}: holds integers that are too large for any {tensor.datatype}")


def _allowed(datatype: Datatype) -> tuple[set[type], str]:
    """What elements of a type may be, and what that is called."""
    if datatype == "BYTES":
        return {str}, "texts"
    if datatype == "BOOL":
        return {bool}, "true or false"
    if datatype != "BF16" and DTYPES[datatype].kind in "iu":
        return {int}, "integers"
    return {int, float}, "numbers"
