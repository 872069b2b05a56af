"""Rows: one caller's input, validated and ready to run beside the rows of others.

A row is checked whole before it is queued (shape, type, finite, in range), so that a row that reaches
a graph can neither make a run fail nor, by its scale, change the answer of its neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle.decoding import Limits, decode_media
from bundle.errors import InputError
from bundle.manifest import AudioDecoding, Datatype, Manifest, TensorSpec

_JSON_NAMES = {
    bool: "true or false",
    str: "text",
    float: "fractions or integers beyond 64 bits",
    dict: "an object",
    list: "lists nested too deeply",
    type(None): "null",
}

Array = NDArray[Any]
# Data input -> array without the batch dimension.
Row = dict[str, Array]

DTYPES: dict[str, np.dtype[Any]] = {
    "UINT8": np.dtype("uint8"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP32": np.dtype("<f4"),
}


def row_from_media(manifest: Manifest, body: bytes, limits: Limits, *, invert: bool = False) -> Row:
    """Decode one media item; its values are clipped into the allowed range.

    Raises:
        InputError: the body is not usable, or this model takes no media.
    """
    array: Array = decode_media(body, manifest.decoding, limits, invert=invert)
    tensor = manifest.data_inputs[0]
    if tensor.allowed_range is not None:
        array = array.clip(*tensor.allowed_range).astype(array.dtype)
    return {tensor.name: array}


def row_from_values(manifest: Manifest, values: object, limits: Limits, *, only_numbers: bool = False) -> Row:
    """Turn one JSON instance (nested lists of numbers) into a row.

    Args:
        only_numbers: the caller knows that nothing but numbers and lists stands in `values`, neither
            text nor true, false or null. It saves looking at the type of each, which takes longest.

    Raises:
        InputError: wrong shape or type, a value that is not finite or not in range, or this model
            has several data inputs.
    """
    tensor = _only_input(manifest)
    array = _convert_quickly(tensor, values) if only_numbers else None
    if array is None:
        array = _convert(tensor, values)
    _check_shape(manifest, tensor, array.shape, limits)
    _check_values(tensor, array)
    return {tensor.name: array.astype(DTYPES[tensor.datatype], copy=False)}


def rows_from_bytes(
    manifest: Manifest, body: bytes, shape: tuple[int, ...] | None, limits: Limits
) -> list[Row]:
    """Turn a little-endian tensor of one or more rows into rows; all are checked at once.

    Args:
        body: the elements, row-major, in the datatype of the model's data input.
        shape: with the batch dimension. May be None where only that dimension is free.

    Raises:
        InputError: the size does not fit the shape or datatype, or as `row_from_values`.
    """
    tensor = _only_input(manifest)
    dtype = DTYPES[tensor.datatype]
    if shape is None:
        shape = _infer_shape(tensor, len(body))
    if not shape or min(shape) < 1 or len(body) != dtype.itemsize * math.prod(shape):
        raise InputError(f"{tensor.name}: {len(body)} bytes do not fit {tensor.datatype} {_text(shape)}")
    check_count(shape[0], limits)
    rows = np.frombuffer(body, dtype=dtype).reshape(shape)
    _check_shape(manifest, tensor, rows.shape[1:], limits)
    _check_values(tensor, rows)
    return [{tensor.name: row} for row in rows]


def check_count(rows: int, limits: Limits) -> None:
    """Refuse a request of too many rows.

    Raises:
        InputError: there are more than `limits.max_rows`.
    """
    if rows > limits.max_rows:
        raise InputError(f"the request has {rows} rows; at most {limits.max_rows} are allowed")


def size_of(row: Row) -> int:
    """Return how many elements a row has."""
    return sum(array.size for array in row.values())


def collate(manifest: Manifest, rows: Sequence[Row]) -> dict[str, Array]:
    """Stack rows to graph inputs: pad the free dimension with zeros and give the true lengths.

    Returns:
        Graph input -> array whose first dimension is the number of rows.
    """
    feeds: dict[str, Array] = {}
    for tensor in manifest.inputs:
        if tensor.lengths_of is not None:
            axis = _free_axis(manifest, tensor.lengths_of)
            feeds[tensor.name] = np.array([row[tensor.lengths_of].shape[axis] for row in rows], np.int64)
        elif tensor.free_dimensions == 0 or len(rows) == 1:
            feeds[tensor.name] = np.stack([row[tensor.name] for row in rows])
        else:
            feeds[tensor.name] = _pad([row[tensor.name] for row in rows])
    return feeds


def _pad(arrays: list[Array]) -> Array:
    longest = [max(sizes) for sizes in zip(*(array.shape for array in arrays), strict=True)]
    padded = np.zeros((len(arrays), *longest), dtype=arrays[0].dtype)
    for i, array in enumerate(arrays):
        region = tuple(slice(size) for size in array.shape)
        padded[i][region] = array
    return padded


def _free_axis(manifest: Manifest, name: str) -> int:
    tensor = next(tensor for tensor in manifest.inputs if tensor.name == name)
    return next(axis for axis, size in enumerate(tensor.row_shape) if isinstance(size, str))


def _only_input(manifest: Manifest) -> TensorSpec:
    if len(manifest.data_inputs) != 1:
        raise InputError("this model has several inputs; it cannot be called with a single tensor")
    return manifest.data_inputs[0]


def _infer_shape(tensor: TensorSpec, size_bytes: int) -> tuple[int, ...]:
    fixed = tuple(size for size in tensor.row_shape if isinstance(size, int))
    if len(fixed) != len(tensor.row_shape):
        raise InputError(f"{tensor.name} has the shape {_text(tensor.shape)}: its shape must be given")
    row_bytes = DTYPES[tensor.datatype].itemsize * math.prod(fixed)
    if size_bytes == 0 or size_bytes % row_bytes:
        raise InputError(
            f"{tensor.name}: {size_bytes} bytes are no whole number of rows of {row_bytes} bytes "
            f"({tensor.datatype} {_text(tensor.shape)})"
        )
    return (size_bytes // row_bytes, *fixed)


def _check_shape(manifest: Manifest, tensor: TensorSpec, shape: tuple[int, ...], limits: Limits) -> None:
    """Check the shape of one row, and the length of a sound."""
    if not _fits(tensor.row_shape, shape):
        raise InputError(
            f"{tensor.name}: a row has the shape {_text(shape)}, expected {_text(tensor.row_shape)}"
        )
    decoding = manifest.decoding
    if isinstance(decoding, AudioDecoding) and shape[0] > limits.max_audio_s * decoding.sample_rate_hz:
        raise InputError(f"the sound is longer than the allowed {limits.max_audio_s:g} s")


def _check_values(tensor: TensorSpec, array: Array) -> None:
    """Check that the values of one or more rows are finite and in range, before they are cast."""
    low, high = _bounds(tensor.datatype, tensor.allowed_range)
    if array.dtype == np.uint8 and low <= 0 and high >= 255:
        return  # every byte is in range
    smallest, largest = array.min(), array.max()
    if low <= smallest and largest <= high:  # never true of NaN
        return
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(f"{tensor.name}: holds values that are not finite numbers")
    raise InputError(
        f"{tensor.name}: holds values from {smallest} to {largest}; {low:g} to {high:g} are allowed"
    )


def _fits(expected: tuple[int | str, ...], found: tuple[int, ...]) -> bool:
    if expected == found:
        return True
    return len(expected) == len(found) and all(
        size == actual if isinstance(size, int) else actual > 0
        for size, actual in zip(expected, found, strict=True)
    )


def _convert_quickly(tensor: TensorSpec, values: object) -> Array | None:
    """Convert the two kinds of lists that are sent most, or return None and leave it to `_convert`.

    These are matrices of bytes and vectors of fractions; it takes a third to a half of the time.
    """
    if not isinstance(values, list):
        return None
    try:
        if tensor.datatype == "UINT8" and len(tensor.row_shape) == 2:
            (width,) = set(map(len, values))  # bytes(7) would be seven zeros, but a number has no length
            return np.frombuffer(b"".join(map(bytes, values)), np.uint8).reshape(len(values), width)
        if tensor.datatype == "FP32" and len(tensor.row_shape) == 1:
            return np.fromiter(values, np.float64, len(values))
    except (TypeError, ValueError):  # what is wrong with it is found out by `_convert`
        pass
    return None


def _convert(tensor: TensorSpec, values: object) -> Array:
    """Convert nested lists to an array in a type of numpy's choice, or say what is wrong with them."""
    _check_types(tensor, values)
    try:
        array = np.array(values)
    except ValueError as error:
        raise InputError(f"{tensor.name}: the nested lists have no regular shape") from error
    if array.size and array.dtype.kind not in ("iu" if DTYPES[tensor.datatype].kind in "iu" else "iuf"):
        raise InputError(f"{tensor.name}: holds integers that are too large for any {tensor.datatype}")
    return array


def _check_types(tensor: TensorSpec, values: object) -> None:
    """Refuse what is no number, before numpy takes true for 1 or makes room for a long text everywhere."""
    allowed = {int} if DTYPES[tensor.datatype].kind in "iu" else {int, float}
    if odd := _leaf_types(values, len(tensor.row_shape)) - allowed:
        expected = "integers" if allowed == {int} else "numbers"
        found = ", ".join(sorted(_JSON_NAMES.get(kind, kind.__name__) for kind in odd))
        raise InputError(f"{tensor.name}: expected {expected} ({tensor.datatype}), got {found}")


def _leaf_types(values: object, depth: int) -> set[type]:
    """The types of all that stands in nested lists, down to a depth; beyond, a list is a leaf itself."""
    if not isinstance(values, list):
        return {type(values)}
    kinds = set(map(type, values))
    if depth > 1 and list in kinds:
        kinds.discard(list)
        kinds.update(*(_leaf_types(value, depth - 1) for value in values if isinstance(value, list)))
    return kinds


@cache
def _bounds(datatype: Datatype, allowed_range: tuple[float, float] | None) -> tuple[float, float]:
    dtype = DTYPES[datatype]
    low, high = allowed_range or (-math.inf, math.inf)
    if dtype.kind == "f":
        return max(low, float(np.finfo(dtype).min)), min(high, float(np.finfo(dtype).max))
    limits = np.iinfo(dtype)  # kept as integers: as a float, the largest INT64 would be one too many
    return max(low, limits.min), min(high, limits.max)


def _text(shape: Sequence[int | str]) -> str:
    return "[" + ", ".join(str(size) for size in shape) + "]"
