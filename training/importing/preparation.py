"""Bring a model from somewhere else into a bundle's form: named dimensions, rows if it has them, logits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import onnx
import onnxruntime as ort

from bundle.datatypes import Array
from bundle.errors import GraphError
from bundle.manifest import TensorSpec
from bundle.session import run_session
from training.errors import ImportModelError
from training.importing.batching import find_dependence
from training.importing.labelling import add_logits, choose_scores, kind_of
from training.importing.sampling import Feeds, Run, Sampler, find_sampler
from training.importing.signature import Signature, name_batch, read_signature, unname_batch
from training.importing.source import Source, load_session

# Input -> values that are allowed; "" is for every input of numbers.
Ranges = Mapping[str, tuple[float, float]]
_SEEDED_ROWS = 8


@dataclass(frozen=True)
class Prepared:
    """A model in a bundle's form.

    Attributes:
        model: with all that was added.
        signature: of the model.
        sampler: of inputs that it can run.
        notes: what was found out and done, a sentence each, for the one who imports it.
    """

    model: onnx.ModelProto
    signature: Signature
    sampler: Sampler
    notes: tuple[str, ...] = ()


def prepare(source: Source, ranges: Ranges, labels: int = 0, scores: str | None = None) -> Prepared:
    """Prepare a model.

    Args:
        labels: of a classification; 0 where nothing is known but tensors.
        scores: the output that holds a score for each label, where somebody said so.

    Raises:
        ImportModelError: it cannot be run, or cannot be a classification.
    """
    allowed = _allowed_ranges(source.session, ranges)
    prepared = _prepare_rows(source.model, allowed)
    return _prepare_logits(prepared, labels, scores, allowed) if labels else prepared


def runner(session: ort.InferenceSession, signature: Signature) -> Run:
    """Return what runs a loaded graph."""

    def run(feeds: Feeds) -> dict[str, Array]:
        return run_session(session, signature.inputs, signature.outputs, feeds)

    return run


def _allowed_ranges(session: ort.InferenceSession, ranges: Ranges) -> dict[str, tuple[float, float]]:
    names = {node.name: node.type for node in session.get_inputs()}
    if unknown := sorted(set(ranges) - set(names) - {""}):
        raise ImportModelError(f"it has no input {unknown[0]!r}; there are {', '.join(names)}")
    for name in set(ranges) & set(names):
        if names[name] in ("tensor(string)", "tensor(bool)"):
            raise ImportModelError(f"its input {name!r} is a {names[name]}, which has no range")
    every = {"": ranges[""]} if "" in ranges else {}
    numbers = [name for name, kind in names.items() if kind not in ("tensor(string)", "tensor(bool)")]
    return {name: ranges.get(name, every.get("", (0.0, 0.0))) for name in numbers if name in ranges or every}


def _prepare_rows(original: onnx.ModelProto, allowed: dict[str, tuple[float, float]]) -> Prepared:
    """Let rows run together if that changes no answer."""
    model = onnx.ModelProto()
    model.CopyFrom(original)
    why = "the first dimension is not free in all inputs and outputs"
    if name_batch(model):
        frozen = len(original.graph.input) - len(model.graph.input)
        notes = (f"{frozen} of its inputs have defaults and became constants.",) if frozen else ()
        session, signature = _load(model, allowed)
        run = runner(session, signature)
        sampler = find_sampler(signature.inputs, run)
        dependence = find_dependence(run, signature.outputs, sampler)
        if dependence is None:
            return Prepared(model, signature, sampler, notes)
        why = dependence
        model.CopyFrom(original)
        unname_batch(model)
    session, signature = _load(model, allowed)
    sampler = find_sampler(_required(signature), runner(session, signature))
    return Prepared(model, signature, sampler, (f"Each request runs alone, as it is: {why}.",))


def _prepare_logits(
    prepared: Prepared, labels: int, wanted: str | None, allowed: dict[str, tuple[float, float]]
) -> Prepared:
    signature = prepared.signature
    if not signature.batched:
        reason = prepared.notes[-1].partition(": ")[2].rstrip(".")
        raise ImportModelError(f"labels need rows in the first dimension, and this model has none: {reason}")
    scores = choose_scores(signature.outputs, labels, wanted)
    session, _ = _load(prepared.model, allowed)
    values = runner(session, signature)(prepared.sampler.draw(seed=0, rows=_SEEDED_ROWS))[scores.name]
    if values.shape != (_SEEDED_ROWS, labels):
        raise ImportModelError(
            f"its output {scores.name!r} gives {values.shape[1]} scores a row, not {labels}"
        )
    kind = kind_of(scores, values)
    add_logits(prepared.model, scores, labels, kind)
    _, extended = _load(prepared.model, allowed)
    made = "their logarithms" if kind == "probabilities" else "the same"
    note = f"Its output {scores.name!r} holds {kind}; 'logits' are {made}."
    return replace(prepared, signature=extended, notes=(*prepared.notes, note))


def _load(
    model: onnx.ModelProto, allowed: dict[str, tuple[float, float]]
) -> tuple[ort.InferenceSession, Signature]:
    try:
        session = load_session(model.SerializeToString())
    except GraphError as error:
        raise ImportModelError(f"with named dimensions it cannot be loaded any more: {error}") from error
    return session, read_signature(session, allowed)


def _required(signature: Signature) -> tuple[TensorSpec, ...]:
    return tuple(spec for spec in signature.inputs if not spec.optional)
