"""Golden examples of a classification: inputs with known logits that a graph must reproduce before it serves.

A processor without VNNI, another runtime or a broken file shows here, before the first caller sees it.
The inputs are made by the project; none is an item of a data set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bundle.archive import load_arrays, save_arrays
from bundle.confidence import softmax
from bundle.datatypes import Array
from bundle.errors import GoldenError
from bundle.manifest import GOLDEN_FILE, Precision
from bundle.session import ORT_ERRORS

MAX_LOGIT_ERROR_FP32 = 1e-3
MAX_PROBABILITY_ERROR_INT8 = 0.02


@dataclass(frozen=True)
class Golden:
    """Golden inputs and what each graph made of them on the machine that published the bundle.

    Attributes:
        inputs: graph input -> array whose first dimension is the n examples (padded, with lengths).
        logits: precision -> (n, labels) float32, each row computed alone.
    """

    inputs: dict[str, Array]
    logits: dict[Precision, NDArray[np.float32]]

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def save(self) -> bytes:
        """Return the content of `golden.npz`."""
        arrays = {f"input.{name}": array for name, array in self.inputs.items()}
        arrays |= {f"logits.{precision}": array for precision, array in self.logits.items()}
        return save_arrays(arrays)


def load_golden(content: bytes) -> Golden:
    """Read `golden.npz`.

    Raises:
        GoldenError: it is no such file, holds pickled objects, or its arrays differ in number.
    """
    inputs: dict[str, Array] = {}
    logits: dict[Precision, NDArray[np.float32]] = {}
    try:
        arrays = load_arrays(content)
    except ValueError as error:
        raise GoldenError(f"{GOLDEN_FILE}: {error}") from error
    for key, array in arrays.items():
        if not array.ndim:
            raise GoldenError(f"{GOLDEN_FILE}: {key!r} has no dimension of examples")
        match key.split(".", 1):
            case ["input", name]:
                inputs[name] = array
            case ["logits", ("int8" | "fp32") as precision] if array.dtype.kind == "f":
                logits[precision] = array
            case _:
                raise GoldenError(f"{GOLDEN_FILE}: unknown array {key!r}")
    counts = {len(array) for array in (*inputs.values(), *logits.values())}
    if not inputs or not logits or len(counts) != 1 or counts == {0}:
        raise GoldenError(f"{GOLDEN_FILE}: needs inputs and logits of one and the same number of examples")
    return Golden(inputs, logits)


def compute_logits(run: Callable[[dict[str, Array]], Array], inputs: dict[str, Array]) -> NDArray[np.float32]:
    """Run each example alone, so that no example's result depends on another.

    Args:
        run: maps graph inputs of one row to logits of the shape (1, labels).
        inputs: as `Golden.inputs`.

    Returns:
        (n, labels) float32.
    """
    n = len(next(iter(inputs.values())))
    rows = [run({name: array[i : i + 1] for name, array in inputs.items()}) for i in range(n)]
    return np.concatenate(rows).astype(np.float32)


def check_golden(
    golden: Golden, precision: Precision, run: Callable[[dict[str, Array]], Array], temperature: float
) -> None:
    """Check that a graph reproduces its golden outputs on this machine.

    fp32: no logit differs by more than 1e-3. int8, whose kernels differ from processor to processor:
    every label is the same and no probability differs by more than 0.02.

    Raises:
        GoldenError: it does not; the message gives the figure.
    """
    if precision not in golden.logits:
        raise GoldenError(f"{GOLDEN_FILE}: holds no logits for {precision}")
    try:
        expected, found = golden.logits[precision], compute_logits(run, golden.inputs)
    except ORT_ERRORS as failure:
        message = " ".join(str(failure).split())[:200]
        raise GoldenError(f"{precision}: the graph cannot run the golden examples: {message}") from failure
    if expected.shape != found.shape:
        raise GoldenError(
            f"{GOLDEN_FILE}: {precision} logits {expected.shape}, the graph gives {found.shape}"
        )
    if precision == "fp32":
        error = float(np.abs(expected - found).max())
        if not error <= MAX_LOGIT_ERROR_FP32:
            raise GoldenError(
                f"fp32: a golden logit differs by {error:.2g}, allowed is {MAX_LOGIT_ERROR_FP32:g}"
            )
        return
    if flips := int((expected.argmax(1) != found.argmax(1)).sum()):
        raise GoldenError(f"int8: {flips} of {len(golden)} golden labels differ")
    error = float(np.abs(softmax(expected, temperature) - softmax(found, temperature)).max())
    if not error <= MAX_PROBABILITY_ERROR_INT8:
        raise GoldenError(
            f"int8: a golden probability differs by {error:.2g}, allowed is {MAX_PROBABILITY_ERROR_INT8:g}"
        )
