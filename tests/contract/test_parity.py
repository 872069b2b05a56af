"""One network, four ways to run it: PyTorch, ONNX fp32, the predictor, and int8 within a budget."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from bundle.confidence import softmax
from bundle.manifest import Graph, Manifest, Precision, Provenance, SessionConfig, TensorSpec
from bundle.media import AudioDecoding, Decoding, ImageDecoding
from bundle.predictor import Predictor, create_predictor
from bundle.repository import Bundle
from tests.small import (
    HIDDEN,
    WIDTHS,
    cnn,
    cnn_int8,
    digit_splits,
    lstm,
    lstm_int8,
    vowel_splits,
)

MAX_ERROR_FP32 = 1e-4
MAX_PROBABILITY_ERROR_INT8 = 0.05
PIXELS = (TensorSpec(name="pixels", datatype="UINT8", shape=("batch", 28, 28), allowed_range=(0, 255)),)
SOUND = (
    TensorSpec(name="samples", datatype="FP32", shape=("batch", "time"), allowed_range=(-1, 1)),
    TensorSpec(name="lengths", datatype="INT64", shape=("batch",), lengths_of="samples"),
)


def bundle_of(
    models: dict[Precision, onnx.ModelProto],
    inputs: tuple[TensorSpec, ...],
    features: int,
    decoding: Decoding,
    max_batch_size: int,
) -> Bundle:
    """An unpublished bundle, as a job has it before anything is measured."""
    files = {f"model.{precision}.onnx": model.SerializeToString() for precision, model in models.items()}
    manifest = Manifest(
        schema_version=1,
        name="small",
        version=1,
        task="classification",
        description="A small untrained network.",
        inputs=inputs,
        outputs=(
            TensorSpec(name="logits", datatype="FP32", shape=("batch", 10)),
            TensorSpec(name="features", datatype="FP32", shape=("batch", features)),
        ),
        decoding=decoding,
        labels=tuple("0123456789"),
        graphs={precision: Graph(file=f"model.{precision}.onnx") for precision in models},
        session=SessionConfig(),
        max_batch_size=max_batch_size,
        files=dict.fromkeys([*files, "golden.npz", "README.md"], "0" * 64),
        provenance=Provenance(
            recipe="small",
            config_sha256="0" * 64,
            data_sha256="0" * 64,
            tool_versions={},
            git_commit="unknown",
            weights_commit="unknown",
            measured_on="nothing",
            created_at=datetime(2026, 1, 1, tzinfo=UTC),
        ),
    )
    return Bundle(Path("small/1"), manifest, files, manifest_sha256="0" * 64)


def image_bundle() -> Bundle:
    models: dict[Precision, onnx.ModelProto] = {"fp32": cnn()[1], "int8": cnn_int8()[0]}
    decoding = ImageDecoding(height=28, width=28, channels=1, background=0)
    return bundle_of(models, PIXELS, WIDTHS[-1], decoding, max_batch_size=8)


def sound_bundle() -> Bundle:
    models: dict[Precision, onnx.ModelProto] = {"fp32": lstm()[1], "int8": lstm_int8()[0]}
    return bundle_of(models, SOUND, HIDDEN, AudioDecoding(sample_rate_hz=8_000), max_batch_size=4)


def torch_logits(bundle: Bundle) -> tuple[list[np.ndarray], np.ndarray]:
    """Twenty items and what PyTorch makes of each alone."""
    with torch.no_grad():
        if bundle.manifest.decoding.kind == "image":
            items = list(digit_splits().test.items)
            rows = [cnn()[0](torch.tensor(item)[None])[0] for item in items]
        else:
            items = list(vowel_splits().test.items)
            rows = [lstm()[0](torch.tensor(item)[None], torch.tensor([len(item)]))[0] for item in items]
    return items, torch.cat(rows).numpy()


BUNDLES = pytest.mark.parametrize("make", [image_bundle, sound_bundle])


@BUNDLES
def test_torch_and_onnx_and_the_predictor_agree(make: object) -> None:
    bundle = make()  # type: ignore[operator]
    items, expected = torch_logits(bundle)
    predictor: Predictor = create_predictor(bundle, "fp32")
    session = ort.InferenceSession(bundle.graph("fp32"), providers=["CPUExecutionProvider"])
    for item, row in zip(items, expected, strict=True):
        feeds = {bundle.manifest.data_inputs[0].name: item[None]}
        if len(bundle.manifest.inputs) == 2:
            feeds["lengths"] = np.array([len(item)], np.int64)
        (raw,) = session.run(["logits"], feeds)
        np.testing.assert_allclose(raw[0], row, atol=MAX_ERROR_FP32)
    together = predictor.run_all(predictor.rows(items)).logits  # in padded batches
    np.testing.assert_allclose(together, expected, atol=MAX_ERROR_FP32)
    assert np.ptp(expected, axis=0).max() > 10 * MAX_ERROR_FP32  # the items are told apart at all


@BUNDLES
def test_int8_stays_within_its_budget(make: object) -> None:
    bundle = make()  # type: ignore[operator]
    items, expected = torch_logits(bundle)
    predictor: Predictor = create_predictor(bundle, "int8")
    alone = np.concatenate([predictor.run(predictor.rows([item])).logits for item in items])
    error = np.abs(softmax(alone, 1) - softmax(expected, 1)).max()
    assert 0 < error <= MAX_PROBABILITY_ERROR_INT8
