"""bfloat16, which numpy does not know: the upper half of a float32. It is held as the uint16 of its bits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bundle.datatypes import Array

LARGEST = float(np.array(0x7F7F_0000, np.uint32).view(np.float32))


def floats_from_bits(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return the numbers that bits stand for, exactly."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def bits_from_floats(numbers: Array) -> NDArray[np.uint16]:
    """Return the bits of the nearest bfloat16, the even one of two.

    Args:
        numbers: finite, of magnitude `LARGEST` at most.
    """
    bits = np.ascontiguousarray(numbers, np.float32).view(np.uint32)
    odd = (bits >> 16) & 1
    return ((bits + 0x7FFF + odd) >> 16).astype(np.uint16).reshape(np.shape(numbers))
