"""Inference: from the tensors of a request to rows, and from the rows' answers to tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from bundle.answer import Answer, Run
from bundle.bfloat16 import floats_from_bits
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
    for tensor in manifest.inputs:
        if request.datatypes.get(tensor.name, tensor.datatype) != tensor.datatype:
            found = request.datatypes[tensor.name]
            raise InputError(f"the input {tensor.name!r} is {tensor.datatype}, not {found}")
    if request.outputs:
        _check_outputs(output_types(manifest), request.outputs)
    return rows_from_tensors(manifest, request.tensors, limits)


def _check_outputs(known: dict[str, Datatype], outputs: Sequence[RequestedOutput]) -> None:
    asked: set[str] = set()
    for output in outputs:
        if output.name not in known:
            raise InputError(f"there is no output {output.name[:80]!r}; there are {', '.join(known)}")
        if output.name in asked:
            raise InputError(f"the output {output.name!r} is asked for twice")
        if output.classification and known[output.name] in ("BYTES", "BOOL"):
            raise InputError(
                f"the output {output.name!r} is {known[output.name]}: it has no largest elements"
            )
        asked.add(output.name)


def respond(manifest: Manifest, request: InferRequest, answers: Sequence[Answer]) -> InferResponse:
    """Return the outputs that a request asks for.

    Args:
        answers: of its rows, in their order.
    """
    types = output_types(manifest)
    pick = _picker(answers)
    if not request.outputs:
        outputs = [OutputTensor(name, datatype, pick(name)) for name, datatype in types.items()]
    else:
        outputs = [
            OutputTensor(name, "BYTES", _classify(types[name], pick(name), count, manifest))
            if count
            else OutputTensor(name, types[name], pick(name))
            for name, count in request.outputs
        ]
    return InferResponse(manifest.name, str(manifest.version), request.id, outputs)


def _picker(answers: Sequence[Answer]) -> Callable[[str], Array]:
    """Return what gives an output, by its name, with the rows of all answers."""
    run, index = answers[0].run, answers[0].index
    if index is None:
        return partial(_output, run)
    if answers[-1].run is run:  # the rows of one request lie beside one another
        rows = slice(index, index + len(answers))
        return lambda name: _output(run, name)[rows]
    return partial(_stack, answers)


def _stack(answers: Sequence[Answer], name: str) -> Array:
    """Put rows together that ran apart.

    Raises:
        InputError: their shapes differ.
    """
    rows = [_output(answer.run, name)[answer.index] for answer in answers]
    if len({row.shape for row in rows}) > 1:
        raise InputError(f"the output {name!r} differs in shape from row to row: ask for fewer rows at once")
    return np.stack(rows)


def _output(run: Run, name: str) -> Array:
    array = run.outputs.arrays.get(name)
    return run.probabilities if array is None else array


def _classify(datatype: Datatype, array: Array, count: int, manifest: Manifest) -> Array:
    """Return texts "value:index" or "value:index:label" of the largest elements of each row.

    Returns:
        (rows, count) where there is a batch dimension, (count,) where there is none; fewer where a row
        has no more elements.
    """
    if datatype == "BF16":
        array = floats_from_bits(array)
    rows = array.reshape(len(array) if manifest.batched else 1, -1)
    # Both turn the order round; of equal elements the first stays first.
    keys = -rows if rows.dtype.kind == "f" else ~rows
    order = np.argsort(keys, axis=1, kind="stable")[:, :count]
    texts = np.empty(order.shape, object)
    for i, indices in enumerate(order):
        for j, index in enumerate(indices.tolist()):
            value = rows[i, index]
            number = f"{value:f}" if rows.dtype.kind == "f" else str(value)
            label = f":{manifest.labels[index]}" if index < len(manifest.labels) else ""
            texts[i, j] = f"{number}:{index}{label}"
    return texts if manifest.batched else texts[0]
