"""From the answers of a model to the values of its tensors as JSON, in TensorFlow Serving's two forms.

JSON has no NaN and no infinity: both become null. FP16 and BF16 are written as the numbers that they hold.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

from bundle.answer import Answer
from bundle.bfloat16 import floats_from_bits
from bundle.datatypes import Array, Datatype
from bundle.manifest import Manifest
from service.oip.infer import PROBABILITIES, output_types, respond
from service.oip.messages import InferRequest, RequestedOutput


def raw_types(manifest: Manifest) -> dict[str, Datatype]:
    """Return the outputs of a raw answer: all of a model, but of a classification its probabilities alone."""
    if manifest.task == "classification":
        return {PROBABILITIES: "FP32"}
    return output_types(manifest)


def render_rows(manifest: Manifest, answers: Sequence[Answer]) -> dict[str, Any]:
    """Return the body of an answer to instances: of each row its one output, or all of them by name.

    Arrays of numbers are left to `orjson` with `OPT_SERIALIZE_NUMPY`.
    """
    types = raw_types(manifest)
    if manifest.task == "classification":
        return {"predictions": [answer.run.probabilities[answer.index or 0] for answer in answers]}
    rows: list[Any] = [
        {name: _values(name, datatype, answer.tensor(name)) for name, datatype in types.items()}
        for answer in answers
    ]
    if len(types) == 1:
        rows = [value for row in rows for value in row.values()]
    return {"predictions": rows}


def render_columns(manifest: Manifest, answers: Sequence[Answer]) -> dict[str, Any]:
    """Return the body of an answer to whole tensors: the one output, or all of them by name.

    Raises:
        InputError: rows that ran apart gave outputs of different shapes.
    """
    wanted = tuple(RequestedOutput(name) for name in raw_types(manifest))
    response = respond(manifest, InferRequest({}, {}, wanted), answers)
    columns = {each.name: _values(each.name, each.datatype, each.array) for each in response.outputs}
    return {"outputs": next(iter(columns.values())) if len(columns) == 1 else columns}


def _values(name: str, datatype: Datatype, array: Array) -> Any:
    if datatype == "BYTES":
        if name.endswith("_bytes"):
            return _encode_bytes(array.tolist())
        return array.tolist()
    if datatype == "BF16":
        array = floats_from_bits(array)
    return np.ascontiguousarray(array) if array.ndim else array.item()


def _encode_bytes(values: Any) -> Any:
    """TensorFlow Serving's rule: what an output whose name ends so holds is no text."""
    if isinstance(values, list):
        return [_encode_bytes(value) for value in values]
    content = values if isinstance(values, bytes) else str(values).encode()
    return {"b64": base64.b64encode(content).decode()}
