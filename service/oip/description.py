"""What the Open Inference Protocol tells of the server and of each model. The forms are those of its JSON."""

from __future__ import annotations

from typing import Any

from bundle.datatypes import Datatype
from bundle.manifest import Manifest, TensorSpec
from service import __version__
from service.oip.infer import PROBABILITIES
from service.registry import Served

NAME = "octet"
EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "schedule_policy",
    "statistics",
)
# Triton's name for ONNX files that ONNX Runtime runs; its clients know it.
PLATFORM = "onnxruntime_onnx"
BACKEND = "onnxruntime"


def server_metadata() -> dict[str, Any]:
    """Return the server's name, version and extensions."""
    return {"name": NAME, "version": __version__, "extensions": list(EXTENSIONS)}


def model_metadata(served: Served, versions: list[str]) -> dict[str, Any]:
    """Return what a caller must know of a model's tensors. The size -1 is free.

    Lengths are left out: a caller that sends none is taken to mean the whole tensor.

    Args:
        versions: all of the model that are served.
    """
    manifest = served.predictor.bundle.manifest
    return {
        "name": manifest.name,
        "versions": versions,
        "platform": PLATFORM,
        "inputs": [_tensor(tensor) for tensor in manifest.data_inputs],
        "outputs": [
            {"name": name, "datatype": datatype, "shape": shape}
            for name, datatype, shape in _outputs(manifest)
        ],
        "properties": {
            "task": manifest.task,
            "precision": served.predictor.precision,
            "provider": served.predictor.provider,
            "bundle_sha256": served.predictor.bundle.manifest_sha256,
        },
    }


def model_config(served: Served) -> dict[str, Any]:
    """Return the configuration of a model as far as ours has what Triton's has.

    Its dimensions leave out the batch, as there: `max_batch_size` is 0 where there is none.
    """
    manifest = served.predictor.bundle.manifest
    config: dict[str, Any] = {
        "name": manifest.name,
        "platform": PLATFORM,
        "backend": BACKEND,
        "version_policy": {"specific": {"versions": [manifest.version]}},
        "max_batch_size": manifest.max_batch_size if manifest.batched else 0,
        "input": [
            {
                "name": tensor.name,
                "data_type": _config_type(tensor.datatype),
                "dims": _sizes(tensor.row_shape),
                "optional": tensor.optional or tensor.lengths_of is not None,
            }
            for tensor in manifest.inputs
        ],
        "output": [
            {
                "name": name,
                "data_type": _config_type(datatype),
                "dims": shape[1:] if manifest.batched else shape,
            }
            for name, datatype, shape in _outputs(manifest)
        ],
        "default_model_filename": manifest.graphs[served.predictor.precision].file,
    }
    if manifest.max_batch_size > 1:
        config["dynamic_batching"] = {"max_queue_delay_microseconds": 0}
    return config


def _outputs(manifest: Manifest) -> list[tuple[str, Datatype, list[int]]]:
    outputs = [(tensor.name, tensor.datatype, _sizes(tensor.shape)) for tensor in manifest.outputs]
    if manifest.task == "classification":
        outputs.insert(0, (PROBABILITIES, "FP32", [-1, len(manifest.labels)]))
    return outputs


def _tensor(tensor: TensorSpec) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": _sizes(tensor.shape)}


def _sizes(shape: tuple[int | str, ...]) -> list[int]:
    return [size if isinstance(size, int) else -1 for size in shape]


def _config_type(datatype: Datatype) -> str:
    return "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"
