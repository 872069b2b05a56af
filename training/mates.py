"""Items that could stand beside another caller's: whatever the service admits, from extremes to variations.

A pattern is drawn in -1..1 whatever the tensor; its ends become the lowest and the highest value allowed.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from bundle.datatypes import DTYPES, Array
from bundle.decoding import Limits
from bundle.manifest import Manifest, TensorSpec
from bundle.media import AudioDecoding, TextDecoding

TONES = 48

Values = NDArray[np.float64]
# Number of elements -> values in -1..1.
Pattern = Callable[[int], Values]


def steady_patterns(random: Generator) -> list[Pattern]:
    """Constants and noise, which are alike at any length."""
    return [
        lambda n: np.full(n, -1.0),
        np.zeros,
        lambda n: np.full(n, 1.0),
        lambda n: random.uniform(-1e-3, 1e-3, n),
        lambda n: random.uniform(-1, 1, n),
        lambda n: random.choice([-1.0, 1.0], n),
    ]


def passing_patterns(random: Generator) -> list[Pattern]:
    """Clicks, a burst, a sweep, and tones of all frequencies, round and square."""
    patterns: list[Pattern] = [
        lambda n: np.where(np.arange(n) == n // 2, 1.0, 0.0),
        lambda n: np.where(np.arange(n) == n // 2, 1.0, -1.0),
        lambda n: np.where(np.arange(n) < n // 2, random.choice([-1.0, 1.0], n), 0.0),
        lambda n: np.sin(np.pi / 2 * np.arange(n) ** 2 / n),
    ]
    for frequency in np.geomspace(1e-3, 1, TONES):  # of half the sample rate
        patterns += [_tone(frequency, square=False), _tone(frequency, square=True)]
    return patterns


def draw_item(tensor: TensorSpec, pattern: Pattern, length: int) -> Array:
    """Draw an item with a pattern; its free dimension gets the given length."""
    shape = [size if isinstance(size, int) else length for size in tensor.row_shape]
    low, high = _bounds(tensor)
    return _admit(tensor, low + (pattern(math.prod(shape)) + 1) / 2 * (high - low)).reshape(shape)


def vary_item(tensor: TensorSpec, item: Array, other: Array, max_length: int, random: Generator) -> Array:
    """Change the scale, the noise, the direction or the length of an item, or take a part of another."""
    low, high = _bounds(tensor)
    middle = (low + high) / 2
    values = item.astype(np.float64)
    match random.integers(5):
        case 0:
            values = middle + (values - middle) * random.uniform(0, 3)
        case 1:
            values += (high - low) * 10 ** random.uniform(-3, 0) * random.uniform(-1, 1, values.shape)
        case 2:
            values = np.flip(values)
        case 3 if (axis := free_axis(tensor)) is not None:
            length = min(max_length, 1 + int(values.shape[axis] * random.uniform(0.3, 2)))
            values = values.take(np.arange(length), axis, mode="wrap")
        case _:
            start, end = np.sort(random.integers(values.size + 1, size=2))
            values.flat[start:end] = np.resize(other, end - start)
    return _admit(tensor, values)


def mix_items(tensor: TensorSpec, item: Array, other: Array, share: float) -> Array:
    """Add two items, the other one by its share of 0..1; the shorter one is followed by zeros."""
    mixed = np.zeros(np.maximum(item.shape, other.shape))
    for part, weight in ((item, 1 - share), (other, share)):
        mixed[tuple(slice(size) for size in part.shape)] += weight * part
    return _admit(tensor, mixed)


def free_axis(tensor: TensorSpec) -> int | None:
    """Return which axis of an item has no fixed size, or None."""
    return next((axis for axis, size in enumerate(tensor.row_shape) if isinstance(size, str)), None)


def longest_admitted(manifest: Manifest, usual: int) -> int:
    """Return the largest free dimension that the service admits; if nothing limits it, 8 times the usual."""
    match manifest.decoding:
        case AudioDecoding(sample_rate_hz=rate_hz):
            return int(Limits().max_audio_s * rate_hz)
        case TextDecoding(max_characters=most):
            return most
        case _:
            return 8 * usual


def _tone(frequency: float, *, square: bool) -> Pattern:
    def draw(n: int) -> Values:
        wave = np.cos(np.pi * frequency * np.arange(n))
        return np.where(wave < 0, -1.0, 1.0) if square else wave

    return draw


def _admit(tensor: TensorSpec, values: Values) -> Array:
    """Bring values into the tensor's range and type."""
    dtype = DTYPES[tensor.datatype]
    clipped = values.clip(*_bounds(tensor))
    return (clipped.round() if dtype.kind in "iu" else clipped).astype(dtype)


def _bounds(tensor: TensorSpec) -> tuple[float, float]:
    if tensor.allowed_range is not None:
        return tensor.allowed_range
    dtype = DTYPES[tensor.datatype]
    limits = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
    return float(limits.min), float(limits.max)
