"""Rows: one caller's input, validated and ready to run beside the rows of others.

A row is checked whole before it is queued (shape, type, finite, in range), so that a row that reaches
a graph can neither make a run fail nor, by its scale, change the answer of its neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from functools import cache

import numpy as np

from bundle.datatypes import DTYPES, Array, Datatype, json_name, leaf_types
from bundle.decoding import Limits, decode_media
from bundle.errors import InputError
from bundle.manifest import AudioDecoding, Manifest, TensorSpec

# Data input -> array without the batch dimension.
Row = dict[str, Array]


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
    if tensor.datatype == "BYTES":
        raise InputError(f"{tensor.name}: BYTES cannot be sent as a plain tensor; use JSON or /v2")
    if not shape or min(shape) < 1 or len(body) != dtype.itemsize * math.prod(shape):
        raise InputError(f"{tensor.name}: {len(body)} bytes do not fit {tensor.datatype} {_text(shape)}")
    check_count(shape[0], limits)
    rows = np.frombuffer(body, dtype=dtype).reshape(shape)
    _check_shape(manifest, tensor, rows.shape[1:], limits)
    _check_values(tensor, rows)
    return [{tensor.name: row} for row in rows]


def rows_from_tensors(manifest: Manifest, tensors: Mapping[str, Array], limits: Limits) -> list[Row]:
    """Turn the tensors of one request into rows: of all data inputs, by name, and maybe of lengths.

    A model without a batch dimension takes them as they are, as its one row.

    Raises:
        InputError: an input is unknown or missing, they differ in the number of rows, or as
            `row_from_values`.
    """
    specs = {tensor.name: tensor for tensor in manifest.inputs}
    if unknown := sorted(set(tensors) - set(specs)):
        raise InputError(f"there is no input {unknown[0]!r}; there are {', '.join(specs)}")
    for tensor in manifest.data_inputs:
        if tensor.name not in tensors and not tensor.optional:
            raise InputError(f"the input {tensor.name!r} is missing")
    for name, array in tensors.items():
        _check_tensor(manifest, specs[name], array, limits)
    if not manifest.batched:
        return [dict(tensors)]
    counts = {name: len(array) for name, array in tensors.items()}
    if len(set(counts.values())) > 1:
        raise InputError(f"the inputs differ in their number of rows: {counts}")
    check_count(next(iter(counts.values())), limits)
    measured = {
        spec.lengths_of: tensors[spec.name]
        for spec in manifest.inputs
        if spec.lengths_of is not None and spec.name in tensors
    }
    rows = [dict(zip(tensors, values, strict=True)) for values in zip(*tensors.values(), strict=True)]
    for name, lengths in measured.items():
        _cut(manifest, rows, name, lengths)
    return [{tensor.name: row[tensor.name] for tensor in manifest.data_inputs} for row in rows]


def _check_tensor(manifest: Manifest, tensor: TensorSpec, array: Array, limits: Limits) -> None:
    """Check a tensor as it stands in a request: with its batch dimension, where it has one."""
    if not manifest.batched:
        if not _fits(tensor.shape, array.shape, smallest=0):
            raise InputError(f"{tensor.name}: the shape {_text(array.shape)} is not {_text(tensor.shape)}")
    elif not array.ndim or not len(array):
        raise InputError(f"{tensor.name}: needs one row or more in its first dimension")
    else:
        _check_shape(manifest, tensor, array.shape[1:], limits)
    if manifest.task == "classification" or tensor.allowed_range is not None:
        _check_values(tensor, array)


def _cut(manifest: Manifest, rows: list[Row], name: str, lengths: Array) -> None:
    """Leave of every row what its length says."""
    axis = _free_axis(manifest, name)
    for row, length in zip(rows, lengths.tolist(), strict=True):
        if not 1 <= length <= row[name].shape[axis]:
            raise InputError(f"{name}: a length of {length} is not within 1 to {row[name].shape[axis]}")
        row[name] = row[name].take(range(length), axis)


def bucket_of(manifest: Manifest, row: Row) -> Hashable:
    """Return what rows must have in common to run together without much padding, or any where none is right.

    Lengths in one bucket differ by a factor of at most the square root of two.
    """
    if manifest.task == "tensors" and not any(tensor.lengths_of for tensor in manifest.inputs):
        return tuple(array.shape for array in row.values())
    return math.ceil(2 * math.log2(max(1, size_of(row))))


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
    """Stack rows of one bucket to graph inputs: pad what has lengths with zeros, and give the true ones.

    Returns:
        Graph input -> array whose first dimension is the number of rows.
    """
    if not manifest.batched:
        return dict(rows[0])
    feeds: dict[str, Array] = {}
    for tensor in manifest.inputs:
        if tensor.lengths_of is not None:
            axis = _free_axis(manifest, tensor.lengths_of)
            feeds[tensor.name] = np.array([row[tensor.lengths_of].shape[axis] for row in rows], np.int64)
        elif tensor.free_dimensions == 0 or len(rows) == 1 or not _is_measured(manifest, tensor):
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


def _is_measured(manifest: Manifest, tensor: TensorSpec) -> bool:
    return any(other.lengths_of == tensor.name for other in manifest.inputs)


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
    if not _fits(tensor.row_shape, shape, smallest=int(manifest.task == "classification")):
        raise InputError(
            f"{tensor.name}: a row has the shape {_text(shape)}, expected {_text(tensor.row_shape)}"
        )
    decoding = manifest.decoding
    if isinstance(decoding, AudioDecoding) and shape[0] > limits.max_audio_s * decoding.sample_rate_hz:
        raise InputError(f"the sound is longer than the allowed {limits.max_audio_s:g} s")


def _check_values(tensor: TensorSpec, array: Array) -> None:
    """Check that the values of one or more rows are finite and in range, before they are cast."""
    if array.dtype.kind in "bO":
        return
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


def _fits(expected: tuple[int | str, ...], found: tuple[int, ...], smallest: int) -> bool:
    if expected == found:
        return True
    return len(expected) == len(found) and all(
        size == actual if isinstance(size, int) else actual >= smallest
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
    if odd := leaf_types(values, len(tensor.row_shape)) - allowed:
        expected = "integers" if allowed == {int} else "numbers"
        found = ", ".join(sorted(json_name(kind) for kind in odd))
        raise InputError(f"{tensor.name}: expected {expected} ({tensor.datatype}), got {found}")


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
