"""Weight-only int8: small files, fp32 arithmetic, and an error that is that of rounding alone."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, numpy_helper

from tests import onnx_models as made
from training.weight_only import quantize_weights


def convolution() -> onnx.ModelProto:
    weights = np.random.default_rng(0).normal(size=(32, 16, 3, 3)).astype(np.float32)
    weights *= np.geomspace(0.01, 10, 32, dtype=np.float32)[:, None, None, None]
    return made.model(
        [made.node("Conv", "x w", "y", name="conv")],
        [made.value("x", made.FLOAT, ["N", 16, 8, 8])],
        [made.value("y", made.FLOAT, ["N", 32, 6, 6])],
        {"w": weights},
    )


def transposed() -> onnx.ModelProto:
    weights = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
    weights *= np.geomspace(0.01, 10, 64, dtype=np.float32)[:, None]
    return made.model(
        [made.node("Gemm", "x w", "y", name="gemm", transB=1)],
        [made.value("x", made.FLOAT, ["N", 32])],
        [made.value("y", made.FLOAT, ["N", 64])],
        {"w": weights},
    )


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> np.ndarray:
    options = ort.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feeds)[0])


@pytest.mark.parametrize(
    ("model", "shape", "axis"),
    [(convolution(), (2, 16, 8, 8), 1), (transposed(), (99, 32), 1)],
    ids=["conv", "gemm"],
)
def test_each_output_channel_has_its_own_scale_so_small_ones_stay_exact(
    model: onnx.ModelProto, shape: tuple[int, ...], axis: int
) -> None:
    int8, description = quantize_weights(model)
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    expected, found = run(model, {"x": x}), run(int8, {"x": x})
    channels = tuple(i for i in range(expected.ndim) if i != axis)
    error = np.abs(found - expected).max(axis=channels) / np.abs(expected).max(axis=channels)
    assert 0 < error.max() < 0.02
    assert (description.method, description.excluded_nodes) == ("weight_only", ())


def test_the_rounding_of_a_weight_is_half_a_step_at_most() -> None:
    model = made.perceptron(hidden=128)
    int8, _ = quantize_weights(model)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in int8.graph.initializer}
    original = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    integers, scales = stored["w1_int8"], stored["w1_scale"]
    assert integers.dtype == np.int8
    assert scales.shape == (128,), "one for each output of the layer"
    assert (np.abs(integers * scales - original["w1"]) <= scales / 2 * (1 + 1e-4)).all()
    assert "w2" in stored, "it is too small to be worth it"
    assert "w1" not in stored


def test_the_model_is_left_as_it_was_and_what_cannot_be_quantized_is_named() -> None:
    model = made.perceptron()
    before = model.SerializeToString(deterministic=True)
    _, description = quantize_weights(model)
    assert model.SerializeToString(deterministic=True) == before
    assert description.excluded_nodes == ("node_2",)


def test_a_file_shrinks_to_about_a_quarter() -> None:
    model = made.perceptron(hidden=4096)
    int8, _ = quantize_weights(model)
    large = [tensor for tensor in int8.graph.initializer if tensor.data_type == TensorProto.INT8]
    assert {tensor.name for tensor in large} == {"w1_int8", "w2_int8"}
    assert int8.ByteSize() < 0.45 * model.ByteSize(), "biases and scales stay fp32"


def test_embeddings_are_brought_back_close_to_what_they_were() -> None:
    model = made.mean_of_words()
    int8, _ = quantize_weights(model)
    ids = {"ids": np.arange(8).reshape(2, 4)}
    expected = run(model, ids)
    assert 0 < np.abs(run(int8, ids) - expected).max() < 0.02 * np.abs(expected).max()
