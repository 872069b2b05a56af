"""Which golden examples are fit to judge a machine by: those on which no rounding of int8 decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bundle.confidence import softmax
from bundle.deviation import deviation
from bundle.golden import MAX_PROBABILITY_ERROR_INT8, Golden
from bundle.manifest import Precision, TensorSpec
from bundle.tensor_golden import TensorExample, max_error
from training.errors import GateError


def keep_steady(golden: Golden, temperatures: Mapping[Precision, float]) -> Golden:
    """Leave out the golden examples on which int8 itself moves a probability by half of what is allowed.

    There the rounding of int8 decides, which other runtimes do at other places: such an example would fail
    on a machine that computes right. (OpenVINO fuses additions that ONNX Runtime rounds.)

    Raises:
        GateError: fewer than half are left.
    """
    int8, fp32 = (softmax(golden.logits[p], temperatures[p]) for p in ("int8", "fp32"))
    steady = np.abs(int8 - fp32).max(axis=1) <= MAX_PROBABILITY_ERROR_INT8 / 2
    if steady.sum() * 2 < len(golden):
        raise GateError(f"int8 moves {(~steady).sum()} of {len(golden)} golden examples too far from fp32")
    return Golden(
        inputs={name: array[steady] for name, array in golden.inputs.items()},
        logits={precision: logits[steady] for precision, logits in golden.logits.items()},
    )


def keep_steady_tensors(
    examples: Sequence[TensorExample], outputs: Sequence[TensorSpec]
) -> tuple[TensorExample, ...]:
    """Do the same for examples of any tensors: int8 moves no output by more than half of what is allowed.

    Args:
        examples: with the outputs of both precisions.

    Raises:
        GateError: fewer than half are left.
    """
    kept = tuple(
        example
        for example in examples
        if all(
            deviation(spec.datatype, example.outputs["fp32"][spec.name], example.outputs["int8"][spec.name])
            <= max_error(spec.datatype, "int8") / 2
            for spec in outputs
        )
    )
    if 2 * len(kept) < len(examples):
        lost = len(examples) - len(kept)
        raise GateError(f"int8 moves {lost} of {len(examples)} golden examples too far from fp32")
    return kept
