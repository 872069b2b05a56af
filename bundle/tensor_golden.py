"""Golden examples of a model of which only the tensors are known: every input and every output, by name.

An example is one call, run alone and as it is: with one row where there is a batch dimension, in sizes of its
own where dimensions are free, and maybe without the inputs that are optional.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

from bundle.archive import load_arrays, save_arrays
from bundle.datatypes import Array, Datatype
from bundle.deviation import FRACTIONAL, deviation
from bundle.errors import GoldenError
from bundle.manifest import GOLDEN_FILE, Precision, TensorSpec
from bundle.session import ORT_ERRORS

# Shares of the largest value of a tensor, or of 1. Of the shorter types these are four steps, because another
# order of sums moves the last bit.
MAX_ERROR_FP32: dict[Datatype, float] = {"FP32": 1e-3, "FP64": 1e-3, "FP16": 4e-3, "BF16": 3e-2}
MAX_ERROR_INT8 = 0.1


@dataclass(frozen=True)
class TensorExample:
    """One call.

    Attributes:
        inputs: graph input -> array; an optional one may be missing.
        outputs: precision -> graph output -> array, as computed on the machine that published the bundle.
    """

    inputs: dict[str, Array] = field(default_factory=dict)
    outputs: dict[Precision, dict[str, Array]] = field(default_factory=dict)


@dataclass(frozen=True)
class TensorGolden:
    """All examples of a bundle, at least one."""

    examples: tuple[TensorExample, ...]

    def save(self) -> bytes:
        """Return the content of `golden.npz`."""
        arrays: dict[str, Array] = {}
        for i, example in enumerate(self.examples):
            for name, array in example.inputs.items():
                arrays[f"input.{quote(name, safe='')}.{i}"] = array
            for precision, outputs in example.outputs.items():
                for name, array in outputs.items():
                    arrays[f"output.{precision}.{quote(name, safe='')}.{i}"] = array
        return save_arrays(arrays)


def load_tensor_golden(content: bytes) -> TensorGolden:
    """Read `golden.npz`.

    Raises:
        GoldenError: it is no such file, holds pickled objects, or examples without inputs or outputs.
    """
    try:
        arrays = load_arrays(content)
    except ValueError as error:
        raise GoldenError(f"{GOLDEN_FILE}: {error}") from error
    found: dict[int, TensorExample] = {}
    for key, array in arrays.items():
        front, _, index = key.rpartition(".")
        if not re.fullmatch("[0-9]{1,6}", index):
            raise GoldenError(f"{GOLDEN_FILE}: unknown array {key!r}")
        example = found.setdefault(int(index), TensorExample())
        match front.split(".", 1):
            case ["input", name]:
                example.inputs[unquote(name)] = array
            case ["output", rest] if rest.startswith(("int8.", "fp32.")):
                precision: Precision = "int8" if rest.startswith("int8.") else "fp32"
                example.outputs.setdefault(precision, {})[unquote(rest[5:])] = array
            case _:
                raise GoldenError(f"{GOLDEN_FILE}: unknown array {key!r}")
    if not found or not all(example.outputs for example in found.values()):
        raise GoldenError(f"{GOLDEN_FILE}: needs examples, each of inputs and outputs")
    return TensorGolden(tuple(found[i] for i in sorted(found)))


def check_tensor_golden(
    golden: TensorGolden,
    precision: Precision,
    outputs: Iterable[TensorSpec],
    run: Callable[[dict[str, Array]], dict[str, Array]],
) -> None:
    """Check that a graph reproduces its golden outputs on this machine.

    Integers, booleans and texts must be equal. A number of an fp32 graph may differ by 1e-3 of the largest
    in its tensor (or of 1; FP16 4e-3, BF16 3e-2). One of an int8 graph by 0.1: what its rounding does to the
    committed models' outputs is up to .024 (static) and .08 (dynamic), and another runtime may round at
    other places; products that saturate, as on x86 processors without VNNI, move them much farther.

    Args:
        run: maps graph inputs to graph outputs.

    Raises:
        GoldenError: it does not; the message names the output and gives the figure.
    """
    specs = tuple(outputs)
    for i, example in enumerate(golden.examples):
        try:
            found = run(example.inputs)
        except ORT_ERRORS as failure:
            message = " ".join(str(failure).split())[:200]
            raise GoldenError(
                f"{precision}: the graph cannot run the golden example {i}: {message}"
            ) from failure
        expected = example.outputs.get(precision, {})
        for spec in specs:
            if spec.name not in expected:
                raise GoldenError(f"{GOLDEN_FILE}: example {i} holds no {spec.name!r} for {precision}")
            _check_output(spec, precision, expected[spec.name], found[spec.name])


def max_error(datatype: Datatype, precision: Precision) -> float:
    """Return the largest deviation that an output may show; see `check_tensor_golden`."""
    if datatype not in FRACTIONAL:
        return 0.0
    return MAX_ERROR_FP32[datatype] if precision == "fp32" else MAX_ERROR_INT8


def _check_output(spec: TensorSpec, precision: Precision, expected: Array, found: Array) -> None:
    allowed = max_error(spec.datatype, precision)
    error = deviation(spec.datatype, expected, found)
    if error <= allowed:
        return
    what = f"{precision}: the golden output {spec.name!r}"
    if expected.shape != found.shape:
        raise GoldenError(f"{what} has the shape {list(found.shape)}, expected {list(expected.shape)}")
    if spec.datatype not in FRACTIONAL:
        raise GoldenError(f"{what} differs in {int((expected != found).sum())} of {expected.size} elements")
    raise GoldenError(f"{what} differs by {error:.2g} of its largest value, allowed is {allowed:g}")
