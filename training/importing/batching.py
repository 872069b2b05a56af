"""Whether rows can run together: the first dimension is free, and no row's answer depends on the others'.

What a graph says of its dimensions is only a claim; rows are run alone and together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from bundle.datatypes import Array
from bundle.deviation import FRACTIONAL, deviation
from bundle.manifest import Precision, TensorSpec
from bundle.session import ORT_ERRORS
from bundle.tensor_golden import max_error
from training.importing.sampling import Feeds, Run, Sampler

ROWS = 3
# Only the order of sums may differ; in int8 it can move a value across the edge of a step.
MAX_SHIFT_FP32 = 1e-4
MAX_SHIFT_INT8 = 0.02


def find_dependence(
    run: Run, outputs: Iterable[TensorSpec], sampler: Sampler, precision: Precision = "fp32"
) -> str | None:
    """Return in what way rows that run together change each other's answers, or None if they do not.

    Seeded rows stand beside each other and beside rows of the lowest and the highest values.

    Args:
        run: runs the graph; may raise what ONNX Runtime raises.
        outputs: with a batch dimension each.
        sampler: whose rows the graph can run.
    """
    rows = [sampler.draw(seed) for seed in range(ROWS)]
    mates = [mate for mate in sampler.extremes(seed=ROWS) if _can_run(run, mate)]
    specs = tuple(outputs)
    try:
        shifts = shift_by_mates(run, specs, rows, mates)
    except ORT_ERRORS as error:
        return f"rows cannot run together: {' '.join(str(error).split())[-160:]}"
    for spec in specs:
        if not shifts[spec.name] <= _allowed(spec, precision):
            return (
                f"rows that run together move each other's {spec.name!r} by {shifts[spec.name]:.2g} "
                f"of its largest value, allowed is {_allowed(spec, precision):g}"
            )
    return None


def shift_by_mates(
    run: Run, outputs: Iterable[TensorSpec], rows: Sequence[Feeds], mates: Iterable[Feeds]
) -> dict[str, float]:
    """Run rows alone, together, and beside each mate.

    Args:
        rows, mates: calls of a single row each, in equal shapes.

    Returns:
        Output -> largest deviation of a row's part from what the row gives alone; infinite where an output
        does not have one row for each row of the inputs.
    """
    specs = tuple(outputs)
    alone = [run(row) for row in rows]
    shifts = {spec.name: 0.0 for spec in specs}
    for company in ([*rows], *([*rows, mate] for mate in mates)):
        together = run(stack(company))
        for spec in specs:
            found = together[spec.name]
            for i, expected in enumerate(alone):
                moved = _shift(spec, expected[spec.name], found, i, len(company))
                shifts[spec.name] = max(shifts[spec.name], moved)
    return shifts


def stack(rows: Sequence[Feeds]) -> Feeds:
    """Put calls of single rows together to one."""
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def _shift(spec: TensorSpec, expected: Array, found: Array, row: int, count: int) -> float:
    if len(expected.shape) == 0 or len(expected) != 1 or found.shape[:1] != (count,):
        return math.inf
    return deviation(spec.datatype, expected, found[row : row + 1])


def _allowed(spec: TensorSpec, precision: Precision) -> float:
    if spec.datatype not in FRACTIONAL:
        return 0.0
    if precision == "int8":
        return MAX_SHIFT_INT8
    return MAX_SHIFT_FP32 if spec.datatype in ("FP32", "FP64") else max_error(spec.datatype, precision)


def _can_run(run: Run, feeds: Feeds) -> bool:
    try:
        run(feeds)
    except ORT_ERRORS:
        return False
    return True
