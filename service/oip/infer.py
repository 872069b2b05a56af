"""Inference: from the tensors of a request to rows, and from the rows' answers to tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bundle.answer import Answer
from bundle.datatypes import Array, Datatype
from bundle.decoding import Limits
from bundle.errors import InputError
from bundle.manifest import Manifest
from bundle.rows import Row, rows_from_tensors
from service.oip.messages import InferRequest, InferResponse, OutputTensor, RequestedOutput

# Of a classification: its calibrated probabilities, which are no output of the graph.
PROBABILITIES = "probabilities"


def output_types(manifest: Manifest) -> dict[str, Datatype]:
    """Return the outputs that callers may ask for, and their types."""
    types: dict[str, Datatype] = {tensor.name: tensor.datatype for tensor in manifest.outputs}
    return {PROBABILITIES: "FP32", **types} if manifest.task == "classification" else types


def read_rows(manifest: Manifest, request: InferRequest, limits: Limits) -> list[Row]:
    """Check a request whole and return its rows.

    Raises:
        InputError: anything in it does not fit the model.
    """
    inputs = {tensor.name: tensor for tensor in manifest.inputs}
    for name, datatype in request.datatypes.items():
        if name in inputs and datatype != inputs[name].datatype:
            raise InputError(f"the input {name!r} is {inputs[name].datatype}, not {datatype}")
    known = output_types(manifest)
    names = [output.name for output in request.outputs]
    if len(set(names)) < len(names):
        raise InputError("an output is asked for twice")
    for output in request.outputs:
        if output.name not in known:
            raise InputError(f"there is no output {output.name!r}; there are {', '.join(known)}")
        if output.classification < 0 or (output.classification and known[output.name] == "BYTES"):
            raise InputError(f"no classification can be made of the output {output.name!r}")
    return rows_from_tensors(manifest, request.tensors, limits)


def respond(manifest: Manifest, request: InferRequest, answers: Sequence[Answer]) -> InferResponse:
    """Return the outputs that a request asks for.

    Args:
        answers: of its rows, in their order.
    """
    types = output_types(manifest)
    wanted = request.outputs or tuple(map(RequestedOutput, types))
    outputs = []
    for output in wanted:
        array = _tensor(manifest, output.name, answers)
        if output.classification:
            text = _classify(array, output.classification, manifest.labels)
            outputs.append(OutputTensor(output.name, "BYTES", text))
        else:
            outputs.append(OutputTensor(output.name, types[output.name], array))
    return InferResponse(manifest.name, str(manifest.version), request.id, outputs)


def _tensor(manifest: Manifest, name: str, answers: Sequence[Answer]) -> Array:
    if name == PROBABILITIES and manifest.task == "classification":
        return np.array([answer.confidence.probabilities for answer in answers], np.float32)
    first, last = answers[0], answers[-1]
    if first.index is None:
        return first.tensor(name)
    if last.run is first.run and last.index is not None:  # the rows of one request lie beside one another
        return first.run.outputs.arrays[name][first.index : last.index + 1]
    return np.stack([answer.tensor(name) for answer in answers])


def _classify(array: Array, count: int, labels: Sequence[str]) -> Array:
    """Return (rows, count) texts "value:index" or "value:index:label" of the largest elements of each row."""
    rows = array.reshape(len(array), -1) if array.ndim else array.reshape(1, 1)
    order = np.argsort(-rows.astype(np.float64), axis=1, kind="stable")[:, :count]
    texts = np.empty(order.shape, object)
    for i, indices in enumerate(order):
        for j, index in enumerate(indices.tolist()):
            label = f":{labels[index]}" if index < len(labels) else ""
            texts[i, j] = f"{rows[i, index]:f}:{index}{label}"
    return texts
