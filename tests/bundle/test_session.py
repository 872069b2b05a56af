from __future__ import annotations

from types import SimpleNamespace

import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings

from bundle import session as session_module
from bundle.errors import GraphError, ProviderError
from bundle.manifest import SessionConfig, TensorSpec
from bundle.session import (
    check_signature,
    choose_provider,
    count_nodes,
    create_session,
    default_precision,
)
from tests import tiny
from tests.bundle.damage import damaged

MODEL = tiny.image_graph().SerializeToString()
PIXELS = TensorSpec(name="pixels", datatype="UINT8", shape=("batch", 4, 4))
LOGITS = TensorSpec(name="logits", datatype="FP32", shape=("batch", 3))
FEATURES = TensorSpec(name="features", datatype="FP32", shape=("batch", 16))


@pytest.fixture(scope="module")
def session() -> ort.InferenceSession:
    return create_session(MODEL, SessionConfig(), "cpu")


# Providers


def offer(monkeypatch: pytest.MonkeyPatch, *providers: str) -> None:
    """Let ONNX Runtime name these providers, as on a machine with its other wheels."""
    monkeypatch.setattr(ort, "get_available_providers", lambda: [*providers, "CPUExecutionProvider"])


def test_without_another_provider_everything_preferred_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch)
    assert choose_provider("cpu") == "cpu"
    assert choose_provider("prefer-cuda") == "cpu"
    assert choose_provider("prefer-openvino") == "cpu"


@pytest.mark.parametrize("provider", ["cuda", "openvino"])
def test_a_required_provider_that_is_missing_is_an_error_in_one_line(
    monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    offer(monkeypatch)
    with pytest.raises(ProviderError) as caught:
        choose_provider(f"require-{provider}")  # type: ignore[arg-type]
    assert str(caught.value) == (
        f"the provider '{provider}' is required, but this ONNX Runtime has only CPUExecutionProvider; "
        f"install the extra '{provider}' instead of 'cpu'"
    )


def test_an_installed_provider_is_chosen_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, "CUDAExecutionProvider", "OpenVINOExecutionProvider")
    assert choose_provider("cpu") == "cpu"
    assert choose_provider("prefer-cuda") == choose_provider("require-cuda") == "cuda"
    assert choose_provider("prefer-openvino") == choose_provider("require-openvino") == "openvino"


def test_cuda_runs_fp32_and_the_processors_int8() -> None:
    assert default_precision("cuda") == "fp32"
    assert default_precision("cpu") == default_precision("openvino") == "int8"


def test_a_session_that_would_run_on_another_provider_is_refused() -> None:
    assert "OpenVINOExecutionProvider" not in ort.get_available_providers()
    with (
        pytest.warns(UserWarning, match="OpenVINOExecutionProvider"),
        pytest.raises(ProviderError, match="fell back from OpenVINOExecutionProvider to CPU"),
    ):
        create_session(MODEL, SessionConfig(), "openvino")


# Options


def test_a_session_runs_on_the_cpu_with_the_options_of_its_manifest() -> None:
    config = SessionConfig(
        graph_optimization_level="basic", x64quantprecision=True, disable_quant_qdq=True, intra_op_threads=2
    )
    session = create_session(MODEL, config, "cpu")
    options = session.get_session_options()
    assert session.get_providers() == ["CPUExecutionProvider"]
    assert options.graph_optimization_level == ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)
    assert options.get_session_config_entry("session.x64quantprecision") == "1"
    assert options.get_session_config_entry("session.disable_quant_qdq") == "1"
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_exact_int8_is_off_unless_it_is_asked_for(session: ort.InferenceSession) -> None:
    options = session.get_session_options()
    assert options.get_session_config_entry("session.x64quantprecision") == "0"
    assert options.get_session_config_entry("session.disable_quant_qdq") == "0"
    assert options.intra_op_num_threads == 1


def test_where_lengths_vary_no_memory_is_kept_for_each_shape() -> None:
    for varies in (False, True):
        options = create_session(MODEL, SessionConfig(), "cpu", lengths_vary=varies).get_session_options()
        assert options.enable_cpu_mem_arena is not varies
        assert options.enable_mem_pattern is not varies


def test_the_nodes_are_counted_by_provider(session: ort.InferenceSession) -> None:
    (name,) = count_nodes(session)
    assert name == "CPUExecutionProvider"
    assert count_nodes(session)[name] == len(onnx.load_model_from_string(MODEL).graph.node)


def test_a_provider_that_leaves_heavy_operators_to_the_cpu_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def placement(_: ort.InferenceSession) -> list[SimpleNamespace]:
        nodes = [SimpleNamespace(op_type=kind) for kind in ("Shape", "Gemm", "LSTM")]
        return [SimpleNamespace(ep_name="SomeOtherProvider", get_nodes=lambda: nodes)]

    monkeypatch.setattr(session_module, "_placement", placement)
    with pytest.raises(ProviderError, match=r"^CPUExecutionProvider leaves Gemm, LSTM to the CPU$"):
        create_session(MODEL, SessionConfig(), "cpu")


def test_openvino_has_a_stream_for_each_caller_and_full_precision() -> None:
    assert session_module._provider_options("openvino", 3) == {
        "device_type": "CPU",
        "precision": "FP32",
        "num_of_threads": "3",
        "num_streams": "3",
    }
    assert session_module._provider_options("cuda", 3) == {"use_tf32": "0"}


# Files


@pytest.mark.parametrize("body", [b"", b"garbage", b"\0" * 50, b"\x18\0\0\0ORTM", b"\x0a\x06\0\0ORTM" * 5])
def test_garbage_is_refused_in_one_line(body: bytes) -> None:
    with pytest.raises(GraphError) as caught:
        create_session(body, SessionConfig(), "cpu")
    assert "\n" not in str(caught.value)


def test_a_graph_that_cannot_run_is_refused_with_the_runtimes_reason() -> None:
    model = tiny.image_graph()
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(GraphError, match=r"ONNX Runtime cannot load it: .*NoSuchOperator"):
        create_session(model.SerializeToString(), SessionConfig(), "cpu")


def test_an_operator_whose_name_is_not_utf_8_is_refused_and_nothing_is_printed(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(GraphError, match="cannot load it"):
        create_session(MODEL.replace(b"Gemm", b"Ge\xffm"), SessionConfig(), "cpu")
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("name", "side"), [(b"pixels", "inputs"), (b"batch", "inputs"), (b"logits", "outputs")]
)
def test_a_tensor_whose_name_is_not_utf_8_is_refused(name: bytes, side: str) -> None:
    session = create_session(MODEL.replace(name, b"\xff" * len(name)), SessionConfig(), "cpu")
    with pytest.raises(GraphError, match=f"^a name among its {side} is not UTF-8$"):
        check_signature(session, [PIXELS], [LOGITS, FEATURES])


@given(damaged([MODEL]))
@settings(max_examples=300)
def test_a_damaged_model_is_loaded_or_refused_and_nothing_else(body: bytes) -> None:
    try:
        found = create_session(body, SessionConfig(), "cpu")
    except GraphError:
        return
    assert found.get_providers() == ["CPUExecutionProvider"]


# Signature


def test_a_graph_that_agrees_with_its_manifest_passes(session: ort.InferenceSession) -> None:
    check_signature(session, [PIXELS], [LOGITS, FEATURES])
    check_signature(session, [PIXELS], [FEATURES, LOGITS])


@pytest.mark.parametrize(
    ("inputs", "outputs", "reason"),
    [
        ([], [LOGITS, FEATURES], r"its inputs are \['pixels'\], the manifest says \[\]"),
        ([PIXELS, FEATURES], [LOGITS, FEATURES], r"the manifest says \['features', 'pixels'\]"),
        ([PIXELS], [LOGITS], r"its outputs are \['features', 'logits'\], the manifest says \['logits'\]"),
        ([PIXELS.model_copy(update={"name": "image"})], [LOGITS, FEATURES], r"the manifest says \['image'\]"),
        (
            [PIXELS.model_copy(update={"datatype": "FP32"})],
            [LOGITS, FEATURES],
            r"'pixels' is a tensor\(uint8\), the manifest says FP32",
        ),
        (
            [PIXELS],
            [LOGITS, FEATURES.model_copy(update={"datatype": "INT64"})],
            r"'features' is a tensor\(float\), the manifest says INT64",
        ),
        *(
            (
                [PIXELS.model_copy(update={"shape": shape})],
                [LOGITS, FEATURES],
                r"'pixels' has the shape \['batch', 4, 4\], the manifest says \['batch'",
            )
            for shape in [("batch", 4, 5), ("batch", 4), ("batch", 4, 4, 1), ("batch", 4, "wide")]
        ),
        (
            [PIXELS],
            [LOGITS.model_copy(update={"shape": ("batch", 4)}), FEATURES],
            r"'logits' has the shape \['batch', 3\], the manifest says \['batch', 4\]",
        ),
    ],
)
def test_a_graph_that_disagrees_is_refused_for_its_reason(
    session: ort.InferenceSession, inputs: list[TensorSpec], outputs: list[TensorSpec], reason: str
) -> None:
    with pytest.raises(GraphError, match=reason):
        check_signature(session, inputs, outputs)


def test_a_dimension_that_the_graph_fixes_must_not_be_free_in_the_manifest() -> None:
    model = tiny.image_graph()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    for output in model.graph.output:
        output.type.tensor_type.shape.dim[0].dim_value = 1
    fixed = create_session(model.SerializeToString(), SessionConfig(), "cpu")
    with pytest.raises(GraphError, match=r"'pixels' has the shape \[1, 4, 4\]"):
        check_signature(fixed, [PIXELS], [LOGITS, FEATURES])
