"""ONNX Runtime sessions: which execution provider, with which options, for which graph."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
import onnxruntime as ort
from onnxruntime import OrtValue
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from bundle.datatypes import ORT_TYPES, Array
from bundle.errors import GraphError, ProviderError
from bundle.manifest import Precision, SessionConfig, TensorSpec
from bundle.onnx_file import check_self_contained

Provider = Literal["cpu", "cuda", "openvino"]
ProviderPolicy = Literal["cpu", "prefer-cuda", "require-cuda", "prefer-openvino", "require-openvino"]

_ORT_NAMES: dict[Provider, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
# The operators that take the time. Left to the CPU while another provider was asked for, they make it slower
# than no other provider at all.
_HEAVY = frozenset(
    {
        "Conv", "ConvInteger", "QLinearConv", "Gemm", "QGemm", "MatMul", "MatMulInteger", "QLinearMatMul",
        "LSTM", "DynamicQuantizeLSTM", "GRU", "RNN",
    }
)  # fmt: skip
_LEVELS = {
    "disabled": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
_ONNX_BF16 = 16  # TensorProto.BFLOAT16

# ONNX Runtime's exceptions have no common base of their own. Its Python side adds two: a ValueError for
# inputs that are missing or names that are not UTF-8, a RuntimeError for types that it cannot take.
ORT_ERRORS: tuple[type[Exception], ...] = (
    *(
        value
        for value in vars(ort_state).values()
        if isinstance(value, type) and issubclass(value, Exception)
    ),
    RuntimeError,
    ValueError,
)

ort.disable_telemetry_events()  # it would write a device id to disk, and warn where it cannot


def choose_provider(policy: ProviderPolicy) -> Provider:
    """Choose the execution provider that a policy asks for, among those installed.

    Raises:
        ProviderError: a required provider is not in the installed ONNX Runtime.
    """
    if policy == "cpu":
        return "cpu"
    demand, _, wanted = policy.partition("-")
    provider: Provider = "cuda" if wanted == "cuda" else "openvino"
    if _ORT_NAMES[provider] in ort.get_available_providers():
        return provider
    if demand == "require":
        raise ProviderError(
            f"the provider {provider!r} is required, but this ONNX Runtime has only "
            f"{', '.join(ort.get_available_providers())}; install the extra {provider!r} instead of 'cpu'"
        )
    return "cpu"


def default_precision(provider: Provider) -> Precision:
    """Return the precision that is fast on a provider: CUDA has no kernels for int8 graphs."""
    return "fp32" if provider == "cuda" else "int8"


def create_session(
    model: bytes, config: SessionConfig, provider: Provider, *, callers: int = 1, lengths_vary: bool = False
) -> ort.InferenceSession:
    """Create a session that really runs on the given provider.

    Args:
        callers: threads that will run it at the same time.
        lengths_vary: its inputs have a free dimension beside the batch. ONNX Runtime would keep memory for
            every shape that it has met: 294 MB instead of 127 after 20,000 runs of the committed LSTM in
            batches of 1 to 8.

    Raises:
        GraphError: the file is no ONNX model, is not self-contained, or cannot be loaded.
        ProviderError: another provider than the CPU cannot load it, or leaves heavy operators to the CPU.
    """
    check_self_contained(model)
    options = ort.SessionOptions()
    options.graph_optimization_level = _LEVELS[config.graph_optimization_level]
    options.intra_op_num_threads = config.intra_op_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; what matters is raised
    # A waiting thread that spins steals the processor from the other sessions and from the server.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.x64quantprecision", str(int(config.x64quantprecision)))
    options.add_session_config_entry("session.disable_quant_qdq", str(int(config.disable_quant_qdq)))
    options.enable_cpu_mem_arena = options.enable_mem_pattern = not lengths_vary
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    # Its own format is no protocol buffer, so nothing could be said of where such a file reaches.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    name = _ORT_NAMES[provider]
    try:
        session = ort.InferenceSession(
            model, options, providers=[(name, _provider_options(provider, callers))], enable_fallback=0
        )
    except ORT_ERRORS as error:
        reason = " ".join(str(error).split())[:200]
        if provider != "cpu":  # whose fault it is shows on the CPU
            raise ProviderError(f"{name} cannot load it: {reason}") from error
        raise GraphError(f"ONNX Runtime cannot load it: {reason}") from error
    if session.get_providers()[0] != name:
        raise ProviderError(f"ONNX Runtime fell back from {name} to {session.get_providers()[0]}")
    left = {node.op_type for part in _placement(session) if part.ep_name != name for node in part.get_nodes()}
    if heavy := sorted(left & _HEAVY):
        raise ProviderError(f"{name} leaves {', '.join(heavy)} to the CPU")
    return session


def count_nodes(session: ort.InferenceSession) -> dict[str, int]:
    """Return execution provider -> nodes of the graph that were assigned to it.

    They are counted before the last optimizations, which fuse some.
    """
    counts: dict[str, int] = {}
    for part in _placement(session):
        counts[part.ep_name] = counts.get(part.ep_name, 0) + len(part.get_nodes())
    return counts


def _placement(session: ort.InferenceSession) -> list[Any]:
    return list(session.get_provider_graph_assignment_info())


def _provider_options(provider: Provider, callers: int) -> dict[str, str]:
    """Options that keep the arithmetic of the golden outputs, and let callers run side by side.

    Left alone, CUDA would round to TF32 and OpenVINO, on processors with AMX, to bf16: golden outputs survive
    neither. OpenVINO runs one caller after the other unless it is told to have a stream for each.
    """
    match provider:
        case "cuda":
            return {"use_tf32": "0"}
        case "openvino":
            streams = {"num_of_threads": str(callers), "num_streams": str(callers)}
            return {"device_type": "CPU", "precision": "FP32", **streams}
        case "cpu":
            return {}


def run_session(
    session: ort.InferenceSession,
    inputs: Iterable[TensorSpec],
    outputs: Iterable[TensorSpec],
    feeds: Mapping[str, Array],
) -> dict[str, Array]:
    """Run a graph; return output -> array. Arrays of BF16 hold its bits, as `bundle.datatypes` has them."""
    outputs = tuple(outputs)
    names = [spec.name for spec in outputs]
    half = {spec.name for spec in (*inputs, *outputs) if spec.datatype == "BF16"}
    if not half:
        return dict(zip(names, session.run(names, feeds), strict=True))
    values = {
        name: OrtValue.ortvalue_from_numpy_with_onnx_type(np.ascontiguousarray(array), _ONNX_BF16)
        if name in half
        else OrtValue.ortvalue_from_numpy(array)
        for name, array in feeds.items()
    }
    results = session.run_with_ort_values(names, values)
    return {
        name: _bits(result) if name in half else result.numpy()
        for name, result in zip(names, results, strict=True)
    }


def _bits(value: OrtValue) -> Array:
    """The 16 bits of each element, of which numpy knows no type. Copied: they go with the value."""
    shape = tuple(value.shape())
    content = ctypes.string_at(value.data_ptr(), 2 * math.prod(shape))
    return np.frombuffer(content, np.uint16).reshape(shape)


def check_signature(
    session: ort.InferenceSession, inputs: Iterable[TensorSpec], outputs: Iterable[TensorSpec]
) -> None:
    """Check that a graph takes and gives exactly the tensors that the manifest names.

    Raises:
        GraphError: a tensor is missing or too many, or has another type or shape.
    """
    inputs = tuple(inputs)
    optional = {spec.name for spec in inputs if spec.optional}
    defaults = [node for node in session.get_overridable_initializers() if node.name in optional]
    for side, specs, nodes in (
        ("inputs", inputs, [*session.get_inputs(), *defaults]),
        ("outputs", tuple(outputs), session.get_outputs()),
    ):
        expected = {spec.name for spec in specs}
        try:
            found = {node.name: (node.type, node.shape) for node in nodes}
        except UnicodeDecodeError as error:
            raise GraphError(f"a name among its {side} is not UTF-8") from error
        if expected != set(found):
            raise GraphError(f"its {side} are {sorted(found)}, the manifest says {sorted(expected)}")
        for spec in specs:
            kind, shape = found[spec.name]
            if kind != ORT_TYPES[spec.datatype]:
                raise GraphError(f"{spec.name!r} is a {kind}, the manifest says {spec.datatype}")
            if not _same_shape(spec.shape, shape):
                raise GraphError(f"{spec.name!r} has the shape {shape}, the manifest says {list(spec.shape)}")


def _same_shape(spec: tuple[int | str, ...], found: list[int | str | None]) -> bool:
    """Fixed dimensions must be equal; where the manifest says free, the graph must be free too."""
    return len(spec) == len(found) and all(
        expected == actual if isinstance(expected, int) else not isinstance(actual, int)
        for expected, actual in zip(spec, found, strict=True)
    )
