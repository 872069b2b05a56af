"""Tiny bundles made with onnx.helper, without torch: small enough that their answers are plain arithmetic.

The image model: features = the 16 pixels / 255, logits = features @ WEIGHTS. The audio model: features =
(mean, mean of squares) of the real samples, logits = features @ AUDIO_WEIGHTS. The "int8" graph is the same
arithmetic, unless `int8_error` moves its logits.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bundle.golden import Golden
from bundle.manifest import Graph, Manifest, Metrics, Provenance, SessionConfig, Temperature, TensorSpec
from bundle.media import AudioDecoding, ImageDecoding
from training.publish import digests, publish

LABELS = ("zero", "one", "two")
WEIGHTS = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32) * 3
AUDIO_WEIGHTS = np.array([[4.0, 0.0, -4.0], [-2.0, 6.0, 1.0]], dtype=np.float32)
TEMPERATURE = 2.0


def image_logits(pixels: np.ndarray) -> np.ndarray:
    """The oracle: (n, 4, 4) uint8 -> (n, 3) float32."""
    return (pixels.reshape(-1, 16).astype(np.float32) / 255) @ WEIGHTS


def audio_logits(sound: np.ndarray) -> np.ndarray:
    """The oracle for one sound: (time,) float32 -> (3,) float32."""
    return np.array([sound.mean(), (sound**2).mean()], dtype=np.float32) @ AUDIO_WEIGHTS


def image_graph(error: float = 0.0) -> onnx.ModelProto:
    """The image model; `error` is added to the first label's logit."""
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["floats"], ["flat"]),
        helper.make_node("Div", ["flat", "scale"], ["features"]),
        helper.make_node("Gemm", ["features", "weights", "bias"], ["logits"]),
    ]
    constants = {
        "scale": np.array(255, np.float32),
        "weights": WEIGHTS,
        "bias": np.array([error, 0, 0], np.float32),
    }
    inputs = [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", 4, 4])]
    return _model(nodes, constants, inputs, features=16)


def audio_graph(error: float = 0.0) -> onnx.ModelProto:
    """The audio model: samples beyond a row's length count nothing."""
    nodes = [
        helper.make_node("Shape", ["samples"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["time"]),
        helper.make_node("Range", ["zero", "time", "one"], ["positions"]),
        helper.make_node("Unsqueeze", ["lengths", "one_axis"], ["column"]),
        helper.make_node("Less", ["positions", "column"], ["inside"]),
        helper.make_node("Cast", ["inside"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["samples", "mask"], ["real"]),
        helper.make_node("Mul", ["real", "real"], ["squares"]),
        helper.make_node("ReduceSum", ["real", "one_axis"], ["sum"]),
        helper.make_node("ReduceSum", ["squares", "one_axis"], ["sum2"]),
        helper.make_node("Concat", ["sum", "sum2"], ["sums"], axis=1),
        helper.make_node("Cast", ["column"], ["count"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["sums", "count"], ["features"]),
        helper.make_node("Gemm", ["features", "weights", "bias"], ["logits"]),
    ]
    constants = {
        "zero": np.array(0, np.int64),
        "one": np.array(1, np.int64),
        "one_axis": np.array([1], np.int64),
        "weights": AUDIO_WEIGHTS,
        "bias": np.array([error, 0, 0], np.float32),
    }
    inputs = [
        helper.make_tensor_value_info("samples", TensorProto.FLOAT, ["batch", "time"]),
        helper.make_tensor_value_info("lengths", TensorProto.INT64, ["batch"]),
    ]
    return _model(nodes, constants, inputs, features=2)


def _model(nodes: list[Any], constants: dict[str, np.ndarray], inputs: list[Any], features: int) -> Any:
    outputs = [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3]),
        helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", features]),
    ]
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def golden_pixels() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (4, 4, 4), dtype=np.uint8)


def make_image_bundle(
    repository: Path,
    *,
    name: str = "tiny-image",
    version: int = 1,
    max_batch_size: int = 8,
    int8_error: float = 0.0,
    int8_shift: float = 0.0,
    fp32_error: float = 0.0,
    calibrated: bool = True,
    change: Callable[[Manifest], Manifest] | None = None,
    graphs: dict[str, bytes] | None = None,
) -> Path:
    """Publish a tiny image bundle whose golden outputs are those of the undisturbed arithmetic.

    Args:
        int8_shift: added to the first label's logit by the int8 graph, as its golden outputs have it.
        int8_error, fp32_error: added to a logit of that graph, so that it fails its self-test.
        calibrated: whether the manifest holds temperatures.
        change: applied to the manifest before it is written.
        graphs: file name -> content, instead of the tiny graphs.
    """
    files = {
        "model.int8.onnx": image_graph(int8_error + int8_shift).SerializeToString(),
        "model.fp32.onnx": image_graph(fp32_error).SerializeToString(),
        **(graphs or {}),
    }
    expected = image_logits(golden_pixels()).astype(np.float32)
    shifted = expected + np.array([int8_shift, 0, 0], np.float32)
    golden = Golden({"pixels": golden_pixels()}, {"int8": shifted, "fp32": expected})
    return _publish(
        repository,
        name,
        version,
        files,
        golden,
        inputs=(TensorSpec(name="pixels", datatype="UINT8", shape=("batch", 4, 4), allowed_range=(0, 255)),),
        features=16,
        decoding=ImageDecoding(height=4, width=4, channels=1, background=0),
        max_batch_size=max_batch_size,
        calibrated=calibrated,
        change=change,
    )


def make_audio_bundle(
    repository: Path, *, name: str = "tiny-audio", version: int = 1, max_batch_size: int = 8
) -> Path:
    """Publish a tiny audio bundle: 8 kHz, rows of differing lengths."""
    files = {
        "model.int8.onnx": audio_graph().SerializeToString(),
        "model.fp32.onnx": audio_graph().SerializeToString(),
    }
    random = np.random.default_rng(2)
    lengths = np.array([100, 37], np.int64)
    samples = np.zeros((2, 100), np.float32)
    for row, length in zip(samples, lengths, strict=True):
        row[:length] = random.uniform(-1, 1, length)
    expected = np.stack([audio_logits(row[:n]) for row, n in zip(samples, lengths, strict=True)])
    golden = Golden({"samples": samples, "lengths": lengths}, {"int8": expected, "fp32": expected})
    return _publish(
        repository,
        name,
        version,
        files,
        golden,
        inputs=(
            TensorSpec(name="samples", datatype="FP32", shape=("batch", "time"), allowed_range=(-1, 1)),
            TensorSpec(name="lengths", datatype="INT64", shape=("batch",), lengths_of="samples"),
        ),
        features=2,
        decoding=AudioDecoding(sample_rate_hz=8000),
        max_batch_size=max_batch_size,
        calibrated=True,
        change=None,
    )


def _publish(
    repository: Path,
    name: str,
    version: int,
    files: dict[str, bytes],
    golden: Golden,
    *,
    inputs: tuple[TensorSpec, ...],
    features: int,
    decoding: Any,
    max_batch_size: int,
    calibrated: bool,
    change: Callable[[Manifest], Manifest] | None,
) -> Path:
    files = {**files, "golden.npz": golden.save(), "README.md": b"# Tiny\n"}
    temperature = Temperature(
        value=TEMPERATURE, method="temperature_map", n=100, n_errors=5, ece_before=0.05, ece_after=0.02
    )
    metrics = Metrics(
        n=10, accuracy=0.9, nll=0.3, brier=0.2, agreement=1, latency_ms={1: 0.1, 8: 0.2}, size_bytes=1000
    )
    manifest = Manifest(
        schema_version=1,
        name=name,
        version=version,
        task="classification",
        description="A tiny model.",
        inputs=inputs,
        outputs=(
            TensorSpec(name="logits", datatype="FP32", shape=("batch", 3)),
            TensorSpec(name="features", datatype="FP32", shape=("batch", features)),
        ),
        decoding=decoding,
        labels=LABELS,
        graphs={
            precision: Graph(
                file=f"model.{precision}.onnx",
                temperature=temperature if calibrated else None,
                metrics=metrics,
            )
            for precision in ("int8", "fp32")
        },
        session=SessionConfig(),
        max_batch_size=max_batch_size,
        files=digests(files),
        provenance=Provenance(
            recipe="tiny",
            config_sha256="0" * 64,
            data_sha256="0" * 64,
            tool_versions={},
            git_commit="unknown",
            weights_commit="unknown",
            measured_on="nothing",
            created_at=datetime(2026, 1, 1, tzinfo=UTC),
        ),
    )
    return publish(change(manifest) if change else manifest, files, repository)
