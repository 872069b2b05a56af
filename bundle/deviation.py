"""How far one array is from another of the same meaning, as one figure for any datatype."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from bundle.bfloat16 import floats_from_bits
from bundle.datatypes import Array, Datatype

FRACTIONAL = frozenset({"FP16", "BF16", "FP32", "FP64"})


def deviation(datatype: Datatype, expected: Array, found: Array) -> float:
    """Return the largest |expected - found| as a share of the largest |expected|, or of 1 if that is larger.

    Integers, booleans and texts have no "nearly": the figure is 0 where all are equal. It is infinite where
    they are not, where the shapes differ, and where one is NaN or infinite and the other is not the same.
    """
    if expected.shape != found.shape:
        return math.inf
    if datatype not in FRACTIONAL:
        return 0.0 if np.array_equal(expected, found) else math.inf
    a, b = as_numbers(datatype, expected), as_numbers(datatype, found)
    finite = np.isfinite(a)
    if not np.array_equal(finite, np.isfinite(b)) or not np.array_equal(
        a[~finite], b[~finite], equal_nan=True
    ):
        return math.inf
    with np.errstate(over="ignore"):  # of the ends of FP64; infinitely far is right
        largest = np.abs(a[finite] - b[finite]).max(initial=0.0)
    return float(largest / max(1.0, np.abs(a[finite]).max(initial=0.0)))


def as_numbers(datatype: Datatype, array: Array) -> NDArray[np.float64]:
    """Return any numbers as float64; those of BF16 are held as their bits."""
    if datatype == "BF16":
        array = floats_from_bits(array)
    return array.astype(np.float64)
