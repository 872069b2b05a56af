"""The signatures of a model as TensorFlow Serving's metadata has them: what `:predict` takes and gives."""

from __future__ import annotations

from typing import Any

from bundle.datatypes import Datatype
from bundle.manifest import Manifest
from service.api.instances import DEFAULT_SIGNATURE, RAW_SIGNATURE
from service.api.raw import raw_types
from service.registry import Served

# TensorFlow's names of the types.
DTYPES: dict[Datatype, str] = {
    "BOOL": "DT_BOOL",
    "UINT8": "DT_UINT8",
    "UINT16": "DT_UINT16",
    "UINT32": "DT_UINT32",
    "UINT64": "DT_UINT64",
    "INT8": "DT_INT8",
    "INT16": "DT_INT16",
    "INT32": "DT_INT32",
    "INT64": "DT_INT64",
    "FP16": "DT_HALF",
    "BF16": "DT_BFLOAT16",
    "FP32": "DT_FLOAT",
    "FP64": "DT_DOUBLE",
    "BYTES": "DT_STRING",
}
# The members of each label object, as the columns of a batch.
_LABEL_OUTPUTS: dict[str, Datatype] = {"label": "BYTES", "index": "INT64", "probability": "FP32"}


def describe_signatures(served: Served) -> dict[str, Any]:
    """Return the body of an answer to `/metadata`."""
    manifest = served.predictor.bundle.manifest
    raw = _raw_outputs(manifest)
    default = raw
    if manifest.task == "classification":
        default = {name: _tensor(name, datatype, ("batch",)) for name, datatype in _LABEL_OUTPUTS.items()}
    return {
        "model_spec": {"name": served.name, "signature_name": "", "version": served.version},
        "metadata": {
            "signature_def": {
                "signature_def": {
                    DEFAULT_SIGNATURE: _signature(manifest, default),
                    RAW_SIGNATURE: _signature(manifest, raw),
                }
            }
        },
    }


def _signature(manifest: Manifest, outputs: dict[str, Any]) -> dict[str, Any]:
    return {
        "inputs": {
            tensor.name: _tensor(tensor.name, tensor.datatype, tensor.shape)
            for tensor in manifest.data_inputs
        },
        "outputs": outputs,
        "method_name": "tensorflow/serving/predict",
    }


def _raw_outputs(manifest: Manifest) -> dict[str, Any]:
    shapes: dict[str, tuple[int | str, ...]] = {tensor.name: tensor.shape for tensor in manifest.outputs}
    labels = ("batch", len(manifest.labels))
    return {
        name: _tensor(name, datatype, shapes.get(name, labels))
        for name, datatype in raw_types(manifest).items()
    }


def _tensor(name: str, datatype: Datatype, shape: tuple[int | str, ...]) -> dict[str, Any]:
    """Sizes are texts there, as in all JSON of protocol buffers; -1 is free."""
    sizes = [str(size) if isinstance(size, int) else "-1" for size in shape]
    return {
        "dtype": DTYPES[datatype],
        "tensor_shape": {"dim": [{"size": size, "name": ""} for size in sizes], "unknown_rank": False},
        "name": name,
    }
