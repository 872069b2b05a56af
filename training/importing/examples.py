"""Golden examples of an imported model: seeded inputs, and what each graph makes of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import numpy_helper

from bundle.datatypes import Array
from bundle.errors import GoldenError
from bundle.golden import Golden, compute_logits, load_golden
from bundle.manifest import Precision
from bundle.predictor import Predictor
from bundle.session import ORT_ERRORS
from bundle.tensor_golden import TensorExample, TensorGolden, load_tensor_golden
from training.errors import ImportModelError
from training.golden import keep_steady, keep_steady_tensors
from training.importing.preparation import Prepared
from training.importing.sampling import Feeds

EXAMPLES = 8

Predictors = Mapping[Precision, Predictor]


def make_golden(prepared: Prepared, predictors: Predictors) -> bytes:
    """Return the content of `golden.npz`.

    Args:
        predictors: of the graphs that are to be published.

    Raises:
        GateError: int8 is too far from fp32 on more than half of the inputs.
        ImportModelError: a graph does not answer the same inputs in the same way twice.
    """
    is_classification = predictors["fp32"].bundle.manifest.task == "classification"
    made = _classified(prepared, predictors) if is_classification else _examples(prepared, predictors)
    content = made.save()
    read = load_golden(content) if is_classification else load_tensor_golden(content)
    for predictor in predictors.values():
        try:
            predictor.check_self(read)
        except GoldenError as error:
            raise ImportModelError(
                f"it does not answer the same twice, as a check needs it: {error}"
            ) from error
    return content


def _classified(prepared: Prepared, predictors: Predictors) -> Golden:
    inputs = prepared.sampler.draw(seed=0, rows=2 * EXAMPLES)
    logits = {
        precision: compute_logits(predictor.logits, inputs) for precision, predictor in predictors.items()
    }
    golden = Golden(inputs, logits)
    return keep_steady(golden, {"int8": 1.0, "fp32": 1.0}) if "int8" in predictors else golden


def _examples(prepared: Prepared, predictors: Predictors) -> TensorGolden:
    examples = [
        TensorExample(
            inputs, {precision: each.run_feeds(inputs).arrays for precision, each in predictors.items()}
        )
        for inputs in _draw(prepared, predictors["fp32"])
    ]
    if "int8" not in predictors:
        return TensorGolden(tuple(examples))
    return TensorGolden(keep_steady_tensors(examples, prepared.signature.outputs))


def _draw(prepared: Prepared, predictor: Predictor) -> list[Feeds]:
    """Draw inputs; every other one has another size where sizes are free, and names what is optional."""
    defaults = _defaults(prepared)
    drawn = []
    for seed in range(EXAMPLES):
        feeds = prepared.sampler.draw(seed)
        if seed % 2:
            other = {**prepared.sampler.draw(seed, length=prepared.sampler.length + 1), **defaults}
            feeds = other if _runs(predictor, other) else {**feeds, **defaults}
        drawn.append(feeds)
    return drawn


def _defaults(prepared: Prepared) -> dict[str, Array]:
    """Return the optional inputs at the values that they have anyway: what else they may be is not known."""
    optional = {spec.name: spec for spec in prepared.signature.inputs if spec.optional}
    return {
        tensor.name: _as_held(optional[tensor.name].datatype, tensor)
        for tensor in prepared.model.graph.initializer
        if tensor.name in optional
    }


def _as_held(datatype: str, tensor: onnx.TensorProto) -> Array:
    array = numpy_helper.to_array(tensor)
    if datatype == "BYTES":
        return np.array([_text(element) for element in array.flat], object).reshape(array.shape)
    return array.view(np.uint16) if datatype == "BF16" else array


def _text(element: bytes | str) -> str:
    return element.decode() if isinstance(element, bytes) else element


def _runs(predictor: Predictor, feeds: Feeds) -> bool:
    try:
        predictor.run_feeds(feeds)
    except ORT_ERRORS:
        return False
    return True
