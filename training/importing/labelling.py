"""Make a classification of a graph that gives a score for each label: one of its outputs becomes "logits"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bundle.datatypes import Array
from bundle.deviation import as_numbers
from bundle.manifest import TensorSpec
from training.errors import ImportModelError

LOGITS = "logits"
# The smallest normal float32: its logarithm is -87.3, and what is smaller has no probability that matters.
_SMALLEST = float(np.finfo(np.float32).tiny)
_SUM_TOLERANCE = {"FP32": 1e-4, "FP64": 1e-4, "FP16": 1e-2}

Kind = Literal["logits", "probabilities"]


def choose_scores(outputs: Sequence[TensorSpec], labels: int, wanted: str | None = None) -> TensorSpec:
    """Return the output that holds a score for each label.

    Args:
        wanted: its name, where somebody said so.

    Raises:
        ImportModelError: there is none, or which one is meant cannot be told.
    """
    fitting = [
        spec
        for spec in outputs
        if spec.datatype in _SUM_TOLERANCE
        and len(spec.shape) == 2
        and (isinstance(spec.shape[1], str) or spec.shape[1] == labels)
    ]
    if wanted is not None:
        fitting = [spec for spec in fitting if spec.name == wanted]
    elif any(spec.name == LOGITS for spec in fitting):
        fitting = [spec for spec in fitting if spec.name == LOGITS]
    if len(fitting) == 1:
        return fitting[0]
    shapes = ", ".join(f"{spec.name} {spec.datatype} {list(spec.shape)}" for spec in outputs)
    if not fitting:
        meant = f"no output {wanted!r}" if wanted else "no output"
        raise ImportModelError(
            f"{meant} of fractions has the shape [batch, {labels}] of {labels} labels: {shapes}"
        )
    raise ImportModelError(
        f"several outputs could be the scores of the labels; name one with --output: {shapes}"
    )


def kind_of(scores: TensorSpec, values: Array) -> Kind:
    """Tell from seeded outputs whether scores are probabilities: none is negative, and each row sums to 1.

    Args:
        values: (n, labels).
    """
    numbers = as_numbers(scores.datatype, values)
    sums_to_one = np.abs(numbers.sum(axis=1) - 1) <= _SUM_TOLERANCE[scores.datatype]
    return "probabilities" if bool((numbers >= 0).all() and sums_to_one.all()) else "logits"


def add_logits(model: onnx.ModelProto, scores: TensorSpec, labels: int, kind: Kind) -> None:
    """Add the output "logits", float32 [batch, labels]: the scores, or the logarithms of probabilities.

    The model's own outputs keep their names and what they give.

    Args:
        model: is changed.

    Raises:
        ImportModelError: the name is taken by something else.
    """
    graph = model.graph
    if scores.name == LOGITS and kind == "logits" and scores.datatype == "FP32":
        (value,) = [value for value in graph.output if value.name == LOGITS]
        value.CopyFrom(helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, ["batch", labels]))
        return
    names = {name for node in graph.node for name in (*node.input, *node.output)}
    if taken := {LOGITS, "octet_scores", "octet_clipped", "octet_smallest"} & names:
        what = "holds probabilities or another type than FP32" if scores.name == LOGITS else "is taken"
        raise ImportModelError(f"the name {min(taken)!r} {what} in the graph; rename it when you export")
    if not any(entry.domain in ("", "ai.onnx") for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid("", 17))
    last = LOGITS if kind == "logits" else "octet_scores"
    cast = scores.datatype != "FP32"
    operator: dict[str, Any] = {"to": TensorProto.FLOAT} if cast else {}
    graph.node.append(helper.make_node("Cast" if cast else "Identity", [scores.name], [last], **operator))
    if kind == "probabilities":
        smallest = numpy_helper.from_array(np.array(_SMALLEST, np.float32), "octet_smallest")
        graph.initializer.append(smallest)
        graph.node.append(helper.make_node("Max", [last, "octet_smallest"], ["octet_clipped"]))
        graph.node.append(helper.make_node("Log", ["octet_clipped"], [LOGITS]))
    graph.output.append(helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, ["batch", labels]))
