"""What a call of the Open Inference Protocol says, and what its answer says, whatever carries them."""

from __future__ import annotations

from typing import NamedTuple

from bundle.datatypes import Array, Datatype


class RequestedOutput(NamedTuple):
    """An output that a caller names.

    Attributes:
        classification: give the so many largest as text instead, "value:index:label"; 0 for the tensor.
    """

    name: str
    classification: int = 0


class InferRequest(NamedTuple):
    """Tensors to run.

    Attributes:
        tensors: input -> the whole tensor, with the batch dimension where the model has one.
        outputs: those wanted; empty for all.
        id: given back as it is.
        priority: 1 goes first; 0 is where one goes that says nothing.
        timeout_s: how long the caller waits, if it says so.
    """

    tensors: dict[str, Array]
    datatypes: dict[str, Datatype]
    outputs: tuple[RequestedOutput, ...] = ()
    id: str = ""
    priority: int = 0
    timeout_s: float | None = None


class OutputTensor(NamedTuple):
    """One output of a model, or the text of its largest elements."""

    name: str
    datatype: Datatype
    array: Array


class InferResponse(NamedTuple):
    """What came of the tensors."""

    model: str
    version: str
    id: str
    outputs: list[OutputTensor]
