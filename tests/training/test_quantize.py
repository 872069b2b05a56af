"""What becomes int8, and what stays fp32."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, numpy_helper

from tests.small import cnn, cnn_int8, lstm, lstm_int8, pixels, sounds
from training.quantize import quantize_lstm


def initializers(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    return {tensor.name: tensor for tensor in model.graph.initializer}


def producers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {name: node for node in model.graph.node for name in node.output}


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def by_type(model: onnx.ModelProto, kind: str) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == kind]


def test_stem_and_head_of_the_cnn_stay_fp32() -> None:
    model, description = cnn_int8()
    stored, made = initializers(model), producers(model)
    stem = by_type(model, "Conv")[0]
    (head,) = by_type(model, "Gemm")
    assert description.excluded_nodes == (stem.name, head.name)
    for node in (stem, head):
        assert stored[node.input[1]].data_type == TensorProto.FLOAT
    assert stored[stem.input[1]].dims[1] == 1
    assert "logits" in head.output
    assert "logits" in {value.name for value in model.graph.output}
    assert made["logits"].op_type == "Gemm"  # nothing quantizes, and so clips, the logits


def test_all_other_convolutions_take_uint8_activations_and_int8_weights_per_channel() -> None:
    model, description = cnn_int8()
    stored, made = initializers(model), producers(model)
    rest = by_type(model, "Conv")[1:]
    assert len(rest) == len(by_type(cnn()[1], "Conv")) - 1 == 8
    for node in rest:
        activation, weight = made[node.input[0]], made[node.input[1]]
        assert activation.op_type == weight.op_type == "DequantizeLinear"
        assert stored[activation.input[2]].data_type == TensorProto.UINT8
        quantized = stored[weight.input[0]]
        assert quantized.data_type == TensorProto.INT8
        scales = numpy_helper.to_array(stored[weight.input[1]])
        assert scales.shape == (quantized.dims[0],)
        assert len(np.unique(scales)) > 1
    assert (description.method, description.per_channel) == ("static_qdq", True)


def test_only_the_lstm_of_the_speech_network_becomes_int8() -> None:
    fp32, (int8, description) = lstm()[1], lstm_int8()
    before, after = operators(fp32), operators(int8)
    assert before["LSTM"] == after["DynamicQuantizeLSTM"] == 1
    assert after["LSTM"] == 0
    assert not {"ConvInteger", "MatMulInteger", "DynamicQuantizeLinear", "QuantizeLinear"} & set(after)
    # Fourier, mel, and the head, whose Gemm ONNX Runtime writes as MatMul and Add.
    assert after["MatMul"] + after["Gemm"] == before["MatMul"] + before["Gemm"] == 3
    excluded = {node.name for kind in ("Conv", "MatMul", "Gemm") for node in by_type(fp32, kind)}
    assert set(description.excluded_nodes) == excluded
    assert (description.method, description.per_channel) == ("dynamic", True)


def test_the_front_end_is_untouched_and_the_lstm_shrinks() -> None:
    fp32, int8 = initializers(lstm()[1]), initializers(lstm_int8()[0])
    kept = [name for name in fp32 if name.startswith("front_end.")]
    assert len(kept) >= 2
    after_arrays = [numpy_helper.to_array(tensor) for tensor in int8.values()]
    for name in kept:
        array = numpy_helper.to_array(fp32[name]).squeeze()  # the Fourier matrix is stored transposed
        assert array.dtype == np.float32
        assert any(np.array_equal(other, array) or np.array_equal(other, array.T) for other in after_arrays)
    (before,) = by_type(lstm()[1], "LSTM")
    (after,) = by_type(lstm_int8()[0], "DynamicQuantizeLSTM")
    for old, new in zip(before.input[1:3], after.input[1:3], strict=True):
        assert fp32[old].data_type == TensorProto.FLOAT
        assert int8[new].data_type == TensorProto.INT8
        assert 4 * len(int8[new].raw_data) == len(fp32[old].raw_data)
    assert lstm_int8()[0].ByteSize() < lstm()[1].ByteSize()


def test_quantization_changes_numbers_a_little_and_only_a_little() -> None:
    for pair, feeds in (
        ((cnn()[1], cnn_int8()[0]), {"pixels": pixels(8).numpy()}),
        (
            (lstm()[1], lstm_int8()[0]),
            dict(zip(("samples", "lengths"), (x.numpy() for x in sounds(4000, 900)), strict=True)),
        ),
    ):
        fp32, int8 = (
            ort.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feeds)[
                0
            ]
            for m in pair
        )
        error = np.abs(fp32 - int8).max()
        assert 0 < error < 0.1 * np.abs(fp32).max() + 0.02


def test_an_int8_graph_keeps_its_signature_and_says_nothing_of_the_machine() -> None:
    for fp32, (int8, _) in ((cnn()[1], cnn_int8()), (lstm()[1], lstm_int8())):
        for side in ("input", "output"):
            names = [[value.name for value in getattr(m.graph, side)] for m in (fp32, int8)]
            assert names[0] == names[1]
        assert not int8.metadata_props
        assert not int8.doc_string
        assert {entry.domain: entry.version for entry in int8.opset_import}[""] == 20
        assert int8.ir_version <= 10
        assert b"/tmp/" not in int8.SerializeToString()
        assert (
            fp32.SerializeToString()
            == onnx.ModelProto.FromString(fp32.SerializeToString()).SerializeToString()
        )


def test_making_an_int8_graph_leaves_the_fp32_graph_as_it_was() -> None:
    model = lstm()[1]
    before = model.SerializeToString(deterministic=True)
    quantize_lstm(model)
    assert model.SerializeToString(deterministic=True) == before
