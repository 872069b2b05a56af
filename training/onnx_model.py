"""The form that every published ONNX model has: valid, and without a trace of the machine that made it."""

from __future__ import annotations

from typing import Any

import onnx

from training.errors import ExportError

OPSET = 20
MAX_IR_VERSION = 10


def clean(model: onnx.ModelProto, max_opset: int = OPSET) -> onnx.ModelProto:
    """Remove what exporters leave behind (stack traces with local paths) and check version and form.

    Args:
        model: is changed.
        max_opset: the newest opset that is let pass; by default the one that our own bundles promise.

    Returns:
        The same model.

    Raises:
        ExportError: the model needs a newer runtime than the bundles promise, or is not valid ONNX.
    """

    def strip(graph: onnx.GraphProto) -> None:
        graph.doc_string = ""
        del graph.metadata_props[:]
        parts: tuple[Any, ...] = (
            *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer
        )  # fmt: skip
        for item in parts:
            item.doc_string = ""
            del item.metadata_props[:]

    strip(model.graph)
    del model.metadata_props[:]
    model.doc_string = ""
    model.ir_version = min(model.ir_version, MAX_IR_VERSION)
    versions = {entry.domain: entry.version for entry in model.opset_import}
    if versions.get("", 0) > max_opset:
        raise ExportError(f"the model uses opset {versions['']}; bundles promise {max_opset}")
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise ExportError(f"the exported model is not valid: {error}") from error
    return model
