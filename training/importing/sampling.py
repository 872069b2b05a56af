"""Seeded inputs for a graph of which nothing is known but its signature.

What sizes and numbers it takes is found by trying: the first that it can run are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.random import Generator

from bundle.bfloat16 import bits_from_floats
from bundle.datatypes import DTYPES, Array
from bundle.deviation import FRACTIONAL
from bundle.manifest import TensorSpec
from bundle.session import ORT_ERRORS
from training.errors import ImportModelError
from training.importing.signature import BATCH

# Of dimensions that are free; images need some size, and some reshapes a certain one.
LENGTHS = (8, 16, 32, 64, 128, 224, 256, 1, 2, 3, 4, 5)
# Integers are mostly indices into something: of how many entries is not known.
CHOICES = (10, 2, 1)
# What another caller may send of fractions; enough to spread any scale that rows share.
FAR = 1e3

Feeds = dict[str, Array]
Run = Callable[[Feeds], dict[str, Array]]


@dataclass(frozen=True)
class Sampler:
    """Draws inputs.

    Attributes:
        inputs: those that are drawn.
        length: size of free dimensions.
        choices: integers of 16 bits and more are below it, unless a range is given.
    """

    inputs: tuple[TensorSpec, ...]
    length: int = LENGTHS[0]
    choices: int = CHOICES[0]

    def draw(self, seed: int, rows: int = 1, length: int | None = None) -> Feeds:
        """Draw one call: of so many rows, where the model has rows. Equal arguments give equal inputs."""
        random = np.random.default_rng(seed)
        return {
            spec.name: self._values(spec, self._shape(spec, rows, length), random) for spec in self.inputs
        }

    def extremes(self, seed: int) -> Iterator[Feeds]:
        """Yield single rows of the lowest, the highest and mixed values, which other callers could send."""
        random = np.random.default_rng(seed)
        for pick in (lambda low, high, shape: np.full(shape, low),
                     lambda low, high, shape: np.full(shape, high),
                     lambda low, high, shape: random.choice([low, high], shape)):  # fmt: skip
            feeds = {}
            for spec in self.inputs:
                shape = self._shape(spec, 1, None)
                wide = spec.datatype in FRACTIONAL and spec.allowed_range is None
                low, high = (-FAR, FAR) if wide else self._bounds(spec)
                feeds[spec.name] = (
                    _texts(shape, random) if spec.datatype == "BYTES" else _cast(spec, pick(low, high, shape))
                )
            yield feeds

    def _shape(self, spec: TensorSpec, rows: int, length: int | None) -> tuple[int, ...]:
        sizes = {BATCH: rows} if spec.batched else {}
        free = length or self.length
        return tuple(size if isinstance(size, int) else sizes.get(size, free) for size in spec.shape)

    def _bounds(self, spec: TensorSpec) -> tuple[float, float]:
        """Return the lowest and the highest value that is drawn."""
        if spec.allowed_range is not None:
            return spec.allowed_range
        match spec.datatype:
            case "UINT8" | "INT8":
                limits = np.iinfo(DTYPES[spec.datatype])
                return float(limits.min), float(limits.max)
            case "BOOL" | "FP16" | "BF16" | "FP32" | "FP64":
                return 0, 1
            case _:
                return 0, self.choices - 1

    def _values(self, spec: TensorSpec, shape: tuple[int, ...], random: Generator) -> Array:
        if spec.datatype == "BYTES":
            return _texts(shape, random)
        low, high = self._bounds(spec)
        if spec.datatype in FRACTIONAL:
            return _cast(spec, random.uniform(low, high, shape))
        return _cast(spec, random.integers(int(np.ceil(low)), int(np.floor(high)), shape, endpoint=True))


def find_sampler(inputs: Sequence[TensorSpec], run: Run) -> Sampler:
    """Return a sampler whose inputs a graph can run.

    Args:
        inputs: without those that are optional.
        run: runs the graph; may raise what ONNX Runtime raises.

    Raises:
        ImportModelError: none is found.
    """
    free = any(isinstance(size, str) and size != BATCH for spec in inputs for size in spec.shape)
    counted = any(spec.datatype not in (*FRACTIONAL, "BOOL", "BYTES") for spec in inputs)
    reason = ""
    for length, choices in product(LENGTHS if free else LENGTHS[:1], CHOICES if counted else CHOICES[:1]):
        sampler = Sampler(tuple(inputs), length, choices)
        try:
            for seed in range(3):
                run(sampler.draw(seed))
        except ORT_ERRORS as error:
            reason = reason or " ".join(str(error).split())[-200:]
        else:
            return sampler
    raise ImportModelError(
        f"no inputs of plausible sizes and values can be run (--input-range may help): {reason}"
    )


def _texts(shape: tuple[int, ...], random: Generator) -> Array:
    """Numbers as texts, which are words to one graph and can be read as numbers by another."""
    return np.asarray(random.integers(0, 100, shape)).astype(str).astype(object)


def _cast(spec: TensorSpec, values: Array) -> Array:
    return bits_from_floats(values) if spec.datatype == "BF16" else np.asarray(values, DTYPES[spec.datatype])
