"""Checks of shapes and values: whether they are ones that a model takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np

from bundle.bfloat16 import LARGEST as LARGEST_BF16
from bundle.bfloat16 import floats_from_bits
from bundle.datatypes import DTYPES, Array, Datatype
from bundle.decoding import Limits
from bundle.errors import InputError
from bundle.manifest import Manifest, TensorSpec
from bundle.media import AudioDecoding

_BYTE = np.dtype(np.uint8)


def check_row_shape(manifest: Manifest, tensor: TensorSpec, shape: tuple[int, ...], limits: Limits) -> None:
    """Check the shape of one row, and the length of a sound.

    Raises:
        InputError: it is not what the model takes, or too long.
    """
    if not fits(tensor.row_shape, shape, smallest=int(manifest.task == "classification")):
        raise InputError(
            f"{tensor.name}: a row has the shape {text_of(shape)}, expected {text_of(tensor.row_shape)}"
        )
    decoding = manifest.decoding
    if isinstance(decoding, AudioDecoding) and shape[0] > limits.max_audio_s * decoding.sample_rate_hz:
        raise InputError(f"the sound is longer than the allowed {limits.max_audio_s:g} s")


def check_values(tensor: TensorSpec, array: Array) -> None:
    """Check that the values of one or more rows are finite and in range, before they are cast.

    Raises:
        InputError: one is not.
    """
    if array.dtype.kind in "bO":
        return
    if tensor.datatype == "BF16" and array.dtype == np.uint16:
        array = floats_from_bits(array)
    low, high = _bounds(tensor.datatype, tensor.allowed_range)
    if array.dtype is _BYTE and low <= 0 and high >= 255:
        return  # every one is in range
    smallest, largest = array.min(), array.max()
    if low <= smallest and largest <= high:  # never true of NaN
        return
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(f"{tensor.name}: holds values that are not finite numbers")
    raise InputError(
        f"{tensor.name}: holds values from {smallest} to {largest}; {low:g} to {high:g} are allowed"
    )


def fits(expected: tuple[int | str, ...], found: tuple[int, ...], smallest: int) -> bool:
    """Whether a shape is the expected one; a free size may be anything from `smallest`."""
    if expected == found:
        return True
    return len(expected) == len(found) and all(
        size == actual if isinstance(size, int) else actual >= smallest
        for size, actual in zip(expected, found, strict=True)
    )


@cache
def _bounds(datatype: Datatype, allowed_range: tuple[float, float] | None) -> tuple[float, float]:
    dtype = DTYPES[datatype]
    low, high = allowed_range or (-math.inf, math.inf)
    if datatype == "BF16":
        return max(low, -LARGEST_BF16), min(high, LARGEST_BF16)
    if dtype.kind == "f":
        return max(low, float(np.finfo(dtype).min)), min(high, float(np.finfo(dtype).max))
    limits = np.iinfo(dtype)  # kept as integers: as a float, the largest INT64 would be one too many
    return max(low, limits.min), min(high, limits.max)


def text_of(shape: Sequence[int | str]) -> str:
    """Return a shape as messages have it."""
    return "[" + ", ".join(str(size) for size in shape) + "]"
