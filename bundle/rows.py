"""Rows: one caller's input, validated and ready to run beside the rows of others.

A row is checked whole before it is queued (shape, type, finite, in range), so that a row that reaches
a graph can neither make a run fail nor, by its scale, change the answer of its neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from bundle.checks import check_row_shape, check_values, fits, text_of
from bundle.datatypes import DTYPES, Array
from bundle.decoding import Limits, decode_media
from bundle.errors import InputError
from bundle.manifest import Manifest, TensorSpec
from bundle.values import array_of, cast

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
    """Turn one JSON instance (nested lists of numbers, of true and false, or of texts) into a row.

    Args:
        only_numbers: the caller knows that nothing but numbers and lists stands in `values`, neither
            text nor true, false or null. It saves looking at the type of each, which takes longest.

    Raises:
        InputError: wrong shape or type, a value that is not finite or not in range, or this model
            has several data inputs.
    """
    tensor = _only_input(manifest)
    return {tensor.name: _row_array(manifest, tensor, values, limits, only_numbers)}


def row_from_named_values(manifest: Manifest, values: Mapping[str, object], limits: Limits) -> Row:
    """Turn one JSON instance that names its inputs into a row.

    Raises:
        InputError: an input is unknown or missing, or as `row_from_values`.
    """
    tensors = {tensor.name: tensor for tensor in manifest.data_inputs}
    if not values.keys() <= tensors.keys():
        unknown = min(values.keys() - tensors.keys())
        raise InputError(f"there is no input {unknown[:80]!r}; there are {', '.join(tensors)}")
    if missing := [name for name in tensors if name not in values]:
        raise InputError(f"the input {missing[0]!r} is missing")
    return {
        name: _row_array(manifest, tensor, values[name], limits, False) for name, tensor in tensors.items()
    }


def tensor_from_values(tensor: TensorSpec, values: object) -> Array:
    """Turn nested lists into a whole tensor, which `rows_from_tensors` takes.

    Returns:
        An array of any shape, in the tensor's datatype.

    Raises:
        InputError: wrong type, or a value that is not in range.
    """
    array = array_of(tensor, values, len(tensor.shape))
    if array.size:
        check_values(tensor, array)
    return cast(tensor.datatype, array)


def _row_array(
    manifest: Manifest, tensor: TensorSpec, values: object, limits: Limits, only_numbers: bool
) -> Array:
    array = array_of(tensor, values, len(tensor.row_shape), only_numbers=only_numbers)
    check_row_shape(manifest, tensor, array.shape, limits)
    if array.size:
        check_values(tensor, array)
    return cast(tensor.datatype, array)


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
        raise InputError(f"{tensor.name}: {len(body)} bytes do not fit {tensor.datatype} {text_of(shape)}")
    check_count(shape[0], limits)
    rows = np.frombuffer(body, dtype=dtype).reshape(shape)
    if shape[1:] != tensor.shape[1:]:
        check_row_shape(manifest, tensor, shape[1:], limits)
    check_values(tensor, rows)
    return [{tensor.name: row} for row in rows]


def rows_from_tensors(manifest: Manifest, tensors: Mapping[str, Array], limits: Limits) -> list[Row]:
    """Turn the tensors of one request into rows: of all data inputs, by name, and maybe of lengths.

    A model without a batch dimension takes them as they are, as its one row.

    Raises:
        InputError: an input is unknown or missing, they differ in the number of rows, or as
            `row_from_values`.
    """
    batched = manifest.batched
    data: dict[str, Array] = {}
    counts: dict[str, int] = {}
    for tensor in manifest.inputs:
        name = tensor.name
        if (array := tensors.get(name)) is None:
            continue
        _check_tensor(manifest, tensor, array, limits)
        if batched:
            counts[name] = len(array)
        if tensor.lengths_of is None:
            data[name] = array
    if not len(data) == len(manifest.inputs) == len(tensors):
        _check_names(manifest, tensors)
    if not batched:
        return [data]
    count = next(iter(counts.values()))
    if len(counts) > 1 and len(set(counts.values())) > 1:
        raise InputError(f"the inputs differ in their number of rows: {counts}")
    check_count(count, limits)
    # The ellipsis leaves an array of no dimensions where numpy would give the element itself.
    rows = [{name: array[i, ...] for name, array in data.items()} for i in range(count)]
    if len(data) < len(counts):
        for tensor in manifest.inputs:
            if tensor.lengths_of is not None and tensor.name in tensors:
                _cut(manifest, rows, tensor.lengths_of, tensors[tensor.name])
    return rows


def _check_names(manifest: Manifest, tensors: Mapping[str, Array]) -> None:
    known = {tensor.name: tensor for tensor in manifest.inputs}
    if unknown := sorted(tensors.keys() - known.keys()):
        raise InputError(f"there is no input {unknown[0][:80]!r}; there are {', '.join(known)}")
    for name, tensor in known.items():
        if name not in tensors and tensor.lengths_of is None and not tensor.optional:
            raise InputError(f"the input {name!r} is missing")


def _check_tensor(manifest: Manifest, tensor: TensorSpec, array: Array, limits: Limits) -> None:
    """Check a tensor as it stands in a request: with its batch dimension, where it has one."""
    if not manifest.batched:
        if not fits(tensor.shape, array.shape, smallest=0):
            raise InputError(
                f"{tensor.name}: the shape {text_of(array.shape)} is not {text_of(tensor.shape)}"
            )
    elif not array.ndim or not len(array):
        raise InputError(f"{tensor.name}: needs one row or more in its first dimension")
    elif array.shape[1:] != tensor.shape[1:]:
        check_row_shape(manifest, tensor, array.shape[1:], limits)
    if array.size and (manifest.task == "classification" or tensor.allowed_range is not None):
        check_values(tensor, array)


def _cut(manifest: Manifest, rows: list[Row], name: str, lengths: Array) -> None:
    """Leave of every row what its length says."""
    axis = _free_axis(manifest, name)
    for row, length in zip(rows, lengths.tolist(), strict=True):
        if not 1 <= length <= row[name].shape[axis]:
            raise InputError(f"{name}: a length of {length} is not within 1 to {row[name].shape[axis]}")
        row[name] = row[name][(slice(None),) * axis + (slice(length),)]


def bucket_of(manifest: Manifest, row: Row) -> Hashable:
    """Return what rows must have in common to run together without much padding, or any where none is right.

    Lengths in one bucket differ by a factor of at most the square root of two.
    """
    measured = manifest.measured_inputs
    if not measured and len(row) == 1:  # the usual case, in short
        return next(iter(row.values())).shape
    return tuple(_bucket_of(array.size) if name in measured else array.shape for name, array in row.items())


def check_count(rows: int, limits: Limits) -> None:
    """Refuse a request of too many rows.

    Raises:
        InputError: there are more than `limits.max_rows`.
    """
    if rows > limits.max_rows:
        raise InputError(f"the request has {rows} rows; at most {limits.max_rows} are allowed")


def _bucket_of(elements: int) -> int:
    return math.ceil(2 * math.log2(max(1, elements)))


def check_alike(manifest: Manifest, rows: Sequence[Row]) -> None:
    """Refuse rows of one request that could not be stacked.

    Raises:
        InputError: they differ in a free dimension, and the model takes no lengths to tell padding by.
    """
    if len(rows) == 1:
        return
    for tensor in manifest.data_inputs:
        if tensor.free_dimensions and tensor.name not in manifest.measured_inputs:
            shapes = sorted({row[tensor.name].shape for row in rows})
            if len(shapes) > 1:
                first, second = map(text_of, shapes[:2])
                raise InputError(
                    f"{tensor.name}: the rows differ in shape, as {first} and {second}; "
                    "this model takes rows of one shape together"
                )


def size_of(row: Row) -> int:
    """Return how many elements a row has."""
    if len(row) == 1:
        return next(iter(row.values())).size
    return sum(array.size for array in row.values())


def collate(manifest: Manifest, rows: Sequence[Row]) -> dict[str, Array]:
    """Stack rows of one bucket to graph inputs: pad what has lengths with zeros, and give the true ones.

    Returns:
        Graph input -> array whose first dimension is the number of rows.
    """
    if not manifest.batched:  # behind the JSON of a request, tensors begin at any byte
        return {name: np.require(array, requirements=["C", "A"]) for name, array in rows[0].items()}
    feeds: dict[str, Array] = {}
    for tensor in manifest.inputs:
        if tensor.lengths_of is not None:
            axis = _free_axis(manifest, tensor.lengths_of)
            feeds[tensor.name] = np.array([row[tensor.lengths_of].shape[axis] for row in rows], np.int64)
        elif tensor.free_dimensions == 0 or len(rows) == 1 or tensor.name not in manifest.measured_inputs:
            feeds[tensor.name] = _stack([row[tensor.name] for row in rows])
        else:
            feeds[tensor.name] = _pad([row[tensor.name] for row in rows])
    return feeds


def _stack(arrays: list[Array]) -> Array:
    """As `np.stack`, in half its time."""
    return np.concatenate([array[None] for array in arrays])


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
        raise InputError(f"{tensor.name} has the shape {text_of(tensor.shape)}: its shape must be given")
    row_bytes = DTYPES[tensor.datatype].itemsize * math.prod(fixed)
    if size_bytes == 0 or size_bytes % row_bytes:
        raise InputError(
            f"{tensor.name}: {size_bytes} bytes are no whole number of rows of {row_bytes} bytes "
            f"({tensor.datatype} {text_of(tensor.shape)})"
        )
    return (size_bytes // row_bytes, *fixed)
