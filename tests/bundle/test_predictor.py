from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from bundle import predictor as predictor_module
from bundle.confidence import softmax
from bundle.errors import BundleError, GoldenError, GraphError, IntegrityError, ProviderError
from bundle.golden import Golden
from bundle.manifest import GOLDEN_FILE, MANIFEST_FILE, Manifest, Precision, SessionConfig, TensorSpec
from bundle.media import TensorDecoding
from bundle.predictor import Predictor, create_predictor, load_predictor
from bundle.repository import read_bundle
from bundle.tensor_golden import TensorExample, TensorGolden
from tests import onnx_models as made
from tests import tiny
from training.publish import digests

SOUNDS = hnp.arrays(np.float32, st.integers(1, 300), elements=st.floats(-1, 1, width=32))


@pytest.fixture(scope="module")
def image(repository: Path) -> Predictor:
    return load_predictor(repository / "tiny-image" / "1")


@pytest.fixture(scope="module")
def audio(repository: Path) -> Predictor:
    return load_predictor(repository / "tiny-audio" / "1")


def publish_with_golden(repository: Path, golden: bytes) -> Path:
    """Publish tiny-image with another `golden.npz`, whose digest is right."""
    directory = tiny.make_image_bundle(repository)
    manifest = read_bundle(directory).manifest
    files = {**manifest.files, GOLDEN_FILE: hashlib.sha256(golden).hexdigest()}
    (directory / GOLDEN_FILE).write_bytes(golden)
    (directory / MANIFEST_FILE).write_text(manifest.model_copy(update={"files": files}).model_dump_json())
    return directory


def refusal(directory: Path, kind: type[BundleError], precision: Precision | None = None) -> str:
    with pytest.raises(kind) as caught:
        load_predictor(directory, precision=precision)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(directory))
    return message


# Answers


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 8), st.just(4), st.just(4))))
def test_images_run_together_give_what_each_gives_alone_and_the_oracle(
    image: Predictor, pixels: np.ndarray
) -> None:
    rows = image.rows(list(pixels))
    together = image.run(rows)
    alone = np.concatenate([image.run([row]).logits for row in rows])
    np.testing.assert_allclose(together.logits, alone, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(together.logits, tiny.image_logits(pixels), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(together.features, pixels.reshape(-1, 16) / 255, rtol=1e-6)
    assert together.logits.dtype == together.features.dtype == np.float32


@given(st.lists(SOUNDS, min_size=1, max_size=8))
@settings(max_examples=50)
def test_sounds_of_any_lengths_give_together_what_each_gives_alone_and_the_oracle(
    audio: Predictor, sounds: list[np.ndarray]
) -> None:
    rows = audio.rows(sounds)
    together = audio.run(rows).logits
    alone = np.concatenate([audio.run([row]).logits for row in rows])
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(together, [tiny.audio_logits(sound) for sound in sounds], atol=1e-4)


@pytest.mark.parametrize("count", [0, 9])
def test_no_rows_and_more_than_the_largest_batch_are_refused(image: Predictor, count: int) -> None:
    with pytest.raises(ValueError, match=f"^{count} rows; 1 to 8 run together$"):
        image.run(image.rows(list(np.zeros((count, 4, 4), np.uint8))))


@pytest.mark.parametrize("count", [1, 7, 8, 9, 16, 20])
def test_any_number_of_rows_is_run_in_batches(image: Predictor, count: int) -> None:
    pixels = np.random.default_rng(count).integers(0, 256, (count, 4, 4), dtype=np.uint8)
    found = image.run_all(image.rows(list(pixels)))
    np.testing.assert_allclose(found.logits, tiny.image_logits(pixels), rtol=1e-4, atol=1e-4)
    assert found.features.shape == (count, 16)


def test_threads_that_share_a_predictor_get_the_same_answers(image: Predictor, audio: Predictor) -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (200, 4, 4), dtype=np.uint8)
    sounds = [random.uniform(-1, 1, length).astype(np.float32) for length in random.integers(1, 200, 200)]
    with ThreadPoolExecutor(8) as threads:
        images = list(threads.map(lambda i: image.run(image.rows([pixels[i]])).logits, range(200)))
        heard = list(threads.map(lambda i: audio.run(audio.rows([sounds[i]])).logits, range(200)))
    np.testing.assert_allclose(np.concatenate(images), tiny.image_logits(pixels), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(np.concatenate(heard), [tiny.audio_logits(s) for s in sounds], atol=1e-4)


def test_warming_up_runs_the_smallest_and_the_largest_batch(
    image: Predictor, audio: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[tuple[int, ...]] = []
    real = Predictor.run_feeds

    def recording(predictor: Predictor, feeds: dict[str, np.ndarray]) -> object:
        sizes.append(next(iter(feeds.values())).shape)
        return real(predictor, feeds)

    monkeypatch.setattr(Predictor, "run_feeds", recording)
    image.warm_up()
    audio.warm_up()
    # The largest once more, with a clock.
    assert sorted(sizes) == [(1, 4, 4), (1, 4000), (8, 4, 4), (8, 4, 4), (8, 4000), (8, 4000)]


def test_a_largest_batch_of_one_warms_up(tmp_path: Path) -> None:
    alone = load_predictor(tiny.make_image_bundle(tmp_path, max_batch_size=1))
    alone.warm_up()
    assert alone.run_all(alone.rows(list(tiny.golden_pixels()))).logits.shape == (4, 3)


def test_the_temperature_is_the_graphs_and_1_where_none_was_fitted(image: Predictor, tmp_path: Path) -> None:
    assert image.temperature == tiny.TEMPERATURE
    assert load_predictor(tiny.make_image_bundle(tmp_path, calibrated=False)).temperature == 1


# Loading


def test_a_whole_bundle_serves_int8_on_the_cpu(image: Predictor, caplog: pytest.LogCaptureFixture) -> None:
    assert (image.precision, image.provider, image.fallback) == ("int8", "cpu", None)
    assert not caplog.records


def test_fp32_serves_where_it_is_asked_for_and_where_there_is_no_int8(
    repository: Path, tmp_path: Path
) -> None:
    asked = load_predictor(repository / "tiny-image" / "1", precision="fp32")
    assert (asked.precision, asked.fallback) == ("fp32", None)

    def without_int8(manifest: Manifest) -> Manifest:
        return manifest.model_copy(update={"graphs": {"fp32": manifest.graphs["fp32"]}})

    only = load_predictor(tiny.make_image_bundle(tmp_path, change=without_int8))
    assert (only.precision, only.fallback) == ("fp32", None)


@pytest.fixture
def configs(monkeypatch: pytest.MonkeyPatch) -> list[SessionConfig]:
    """The options of every session that is created, by the real function."""
    seen: list[SessionConfig] = []
    real = predictor_module.create_session

    def recording(model: bytes, config: SessionConfig, provider: Any, **more: Any) -> ort.InferenceSession:
        seen.append(config)
        return real(model, config, provider, **more)

    monkeypatch.setattr(predictor_module, "create_session", recording)
    return seen


def test_int8_that_fails_its_self_test_is_tried_exactly_and_then_fp32_serves(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, configs: list[SessionConfig]
) -> None:
    directory = tiny.make_image_bundle(tmp_path, int8_error=1.0)
    found = load_predictor(directory)
    *tried, looked_at = configs
    assert [config.x64quantprecision for config in tried] == [False, True, False]
    assert looked_at.graph_optimization_level == "disabled"
    assert found.precision == "fp32"
    assert found.fallback is not None
    assert found.fallback.startswith("int8: ")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == f"{directory}: {found.fallback}; serving fp32 on cpu instead"
    pixels = tiny.golden_pixels()
    np.testing.assert_allclose(
        found.run(found.rows(list(pixels))).logits, tiny.image_logits(pixels), rtol=1e-4, atol=1e-4
    )


def test_exact_int8_serves_where_it_passes_and_the_fast_one_does_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = predictor_module.create_session
    saturating = tiny.image_graph(1.0).SerializeToString()

    def old_processor(
        model: bytes, config: SessionConfig, provider: Any, **more: Any
    ) -> ort.InferenceSession:
        return real(model if config.x64quantprecision else saturating, config, provider, **more)

    monkeypatch.setattr(predictor_module, "create_session", old_processor)
    found = load_predictor(tiny.make_image_bundle(tmp_path))
    entry = found.session.get_session_options().get_session_config_entry("session.x64quantprecision")
    assert (found.precision, entry) == ("int8", "1")
    assert found.fallback is not None
    assert "serving int8 on cpu instead" in caplog.text


def test_a_graph_that_does_not_serve_must_agree_with_the_manifest_too(tmp_path: Path) -> None:
    other = tiny.audio_graph().SerializeToString()
    directory = tiny.make_image_bundle(tmp_path, graphs={"model.fp32.onnx": other})
    assert refusal(directory, GraphError).startswith(f"{directory / 'model.fp32.onnx'}: its inputs are ")


def test_a_bundle_of_which_no_graph_passes_is_refused(tmp_path: Path, configs: list[SessionConfig]) -> None:
    directory = tiny.make_image_bundle(tmp_path, int8_error=1.0, fp32_error=0.01)
    assert refusal(directory, GoldenError) == (
        f"{directory}: fp32: a golden logit differs by 0.01, allowed is 0.001"
    )
    assert len(configs) == 3


def test_an_fp32_graph_that_fails_is_not_tried_again(tmp_path: Path, configs: list[SessionConfig]) -> None:
    directory = tiny.make_image_bundle(tmp_path, fp32_error=0.01)
    assert "fp32: a golden logit differs" in refusal(directory, GoldenError, "fp32")
    assert len(configs) == 1
    assert load_predictor(directory).precision == "int8"


def test_int8_without_golden_logits_falls_back_to_fp32(tmp_path: Path) -> None:
    logits = tiny.image_logits(tiny.golden_pixels())
    golden = Golden({"pixels": tiny.golden_pixels()}, {"fp32": logits}).save()
    directory = publish_with_golden(tmp_path, golden)
    found = load_predictor(directory)
    assert (found.precision, found.fallback) == ("fp32", "golden.npz: holds no logits for int8")


def test_golden_examples_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    directory = publish_with_golden(tmp_path, b"garbage")
    assert refusal(directory, GoldenError).startswith(f"{directory}: golden.npz: cannot be read: ")


@pytest.mark.parametrize(
    "inputs",
    [
        {"image": tiny.golden_pixels()},
        {"pixels": tiny.golden_pixels().astype(np.float32)},
        {"pixels": tiny.golden_pixels()[:, :3]},
        {"pixels": tiny.golden_pixels(), "more": tiny.golden_pixels()},
    ],
    ids=["name", "type", "shape", "more"],
)
def test_golden_inputs_that_the_graph_does_not_take_are_refused(
    tmp_path: Path, inputs: dict[str, np.ndarray]
) -> None:
    logits = tiny.image_logits(tiny.golden_pixels())
    golden = Golden(inputs, {"int8": logits, "fp32": logits}).save()
    directory = publish_with_golden(tmp_path, golden)
    assert "fp32: the graph cannot run the golden examples: " in refusal(directory, GoldenError)


def test_a_changed_graph_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    directory = tiny.make_image_bundle(tmp_path)
    (directory / "model.int8.onnx").write_bytes(tiny.image_graph(0.5).SerializeToString())
    assert "model.int8.onnx: it was changed" in refusal(directory, IntegrityError)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"garbage", "it is not an ONNX file"),
        (b"", "ONNX Runtime cannot load it: "),
        (tiny.audio_graph().SerializeToString(), "its inputs are ['lengths', 'samples'], the manifest says"),
    ],
)
@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_a_graph_that_is_none_or_another_is_named(
    tmp_path: Path, content: bytes, reason: str, precision: Precision
) -> None:
    name = f"model.{precision}.onnx"
    directory = tiny.make_image_bundle(tmp_path, graphs={name: content})
    assert refusal(directory, GraphError, precision).startswith(f"{directory / name}: {reason}")


def test_a_job_may_create_a_predictor_without_the_self_test(tmp_path: Path) -> None:
    bundle = read_bundle(tiny.make_image_bundle(tmp_path, int8_error=1.0))
    found = create_predictor(bundle, "int8", config=SessionConfig(intra_op_threads=2))
    assert found.session.get_session_options().intra_op_num_threads == 2
    expected = tiny.image_logits(tiny.golden_pixels()) + np.array([1, 0, 0], np.float32)
    np.testing.assert_allclose(found.logits({"pixels": tiny.golden_pixels()}), expected, rtol=1e-4, atol=1e-4)


# Providers


@pytest.mark.skipif("CUDAExecutionProvider" in ort.get_available_providers(), reason="this machine has CUDA")
def test_cuda_is_preferred_in_vain_and_required_with_an_error(repository: Path) -> None:
    directory = repository / "tiny-image" / "1"
    preferring = load_predictor(directory, "prefer-cuda")
    assert (preferring.provider, preferring.precision, preferring.fallback) == ("cpu", "int8", None)
    with pytest.raises(ProviderError, match=r"^the provider 'cuda' is required, [^\n]+$"):
        load_predictor(directory, "require-cuda")


def test_a_provider_that_cannot_start_is_left_or_an_error(
    repository: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = ort.InferenceSession

    def without_gpu(
        model: bytes, options: object, providers: list[tuple[str, object]], **more: object
    ) -> object:
        if providers[0][0] == "CUDAExecutionProvider":
            raise ort_state.RuntimeException("CUDA failure 100:\nno CUDA-capable device is detected")
        return real(model, options, providers=providers, **more)

    offered = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(ort, "get_available_providers", lambda: offered)
    monkeypatch.setattr(ort, "InferenceSession", without_gpu)
    directory = repository / "tiny-image" / "1"
    preferring = load_predictor(directory, "prefer-cuda")
    assert (preferring.provider, preferring.precision) == ("cpu", "int8")
    assert preferring.fallback is not None
    assert "no CUDA-capable device is detected" in preferring.fallback
    assert "no CUDA-capable device is detected; serving int8 on cpu instead" in caplog.text
    with pytest.raises(ProviderError, match=r"^CUDAExecutionProvider cannot load it: [^\n]+ is detected$"):
        load_predictor(directory, "require-cuda")


@pytest.mark.skipif("OpenVINOExecutionProvider" in ort.get_available_providers(), reason="it would work")
def test_an_installed_provider_that_does_not_work_is_left_or_an_error(
    repository: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    offered = ["OpenVINOExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(ort, "get_available_providers", lambda: offered)
    directory = repository / "tiny-image" / "1"
    with pytest.warns(UserWarning, match="OpenVINOExecutionProvider"):
        preferring = load_predictor(directory, "prefer-openvino")
    assert (preferring.provider, preferring.precision) == ("cpu", "int8")
    assert "ONNX Runtime fell back from OpenVINOExecutionProvider" in caplog.text
    with (
        pytest.warns(UserWarning, match="OpenVINOExecutionProvider"),
        pytest.raises(ProviderError, match="fell back"),
    ):
        load_predictor(directory, "require-openvino")


def test_dynamic_int8_stays_on_the_cpu_where_openvino_is_wanted_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    offered = ["OpenVINOExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(ort, "get_available_providers", lambda: offered)
    directory = tiny.make_audio_bundle(tmp_path)
    manifest = json.loads((directory / "manifest.json").read_text())
    manifest["graphs"]["int8"]["quantization"] = {
        "method": "dynamic",
        "per_channel": True,
        "excluded_nodes": [],
    }
    (directory / "manifest.json").write_text(json.dumps(manifest))
    for policy in ("prefer-openvino", "require-openvino"):
        found = load_predictor(directory, policy)  # type: ignore[arg-type]
        assert (found.provider, found.precision) == ("cpu", "int8")
        assert found.fallback is not None
        assert "stays on the CPU" in found.fallback
        assert found.fallback in caplog.text


def test_a_row_is_assessed_as_it_runs(image: Predictor) -> None:
    pixels = tiny.golden_pixels()
    found = [answer.confidence for answer in image.answer(image.rows(list(pixels)))]
    probabilities = softmax(tiny.image_logits(pixels), image.temperature)
    np.testing.assert_allclose([row.probabilities for row in found], probabilities, atol=1e-4)
    assert [row.order[0] for row in found] == probabilities.argmax(1).tolist()


def test_warming_up_tells_how_long_an_element_takes(image: Predictor) -> None:
    rows = image.rows([np.zeros((4, 4), np.uint8)] * 8)
    began_s = time.perf_counter()
    for _ in range(20):
        image.run(rows)
    mean_s = (time.perf_counter() - began_s) / 20
    assert 0 < image.warm_up() * 8 * 16 < 1000 * mean_s


# Tensors of which nothing else is known


def make_tensors(repository: Path, *, int8_factor: float = 2.0, rows: bool = True) -> Path:
    """Publish y = 2 x as tensors; the "int8" graph multiplies by another factor."""
    shape: tuple[int | str, ...] = ("batch", 2) if rows else ("n",)
    spec = {name: TensorSpec(name=name, datatype="FP32", shape=shape) for name in "xy"}

    def change(manifest: Manifest) -> Manifest:
        return manifest.model_copy(
            update={
                "task": "tensors",
                "inputs": (spec["x"],),
                "outputs": (spec["y"],),
                "decoding": TensorDecoding(),
                "labels": (),
                "max_batch_size": 4 if rows else 1,
                "files": digests(files),
            }
        )

    x = np.array([[0.5, -1]] if rows else [0.5, -1, 3], np.float32)
    example = TensorExample({"x": x}, {"int8": {"y": 2 * x}, "fp32": {"y": 2 * x}})
    files = {
        **{f"model.{p}.onnx": scaling(f, shape) for p, f in (("int8", int8_factor), ("fp32", 2.0))},
        GOLDEN_FILE: TensorGolden((example,)).save(),
        "README.md": b"# Twice\n",
    }
    directory = tiny.make_image_bundle(repository, name="twice")
    manifest = change(read_bundle(directory).manifest)
    for name, content in files.items():
        (directory / name).write_bytes(content)
    (directory / MANIFEST_FILE).write_text(manifest.model_dump_json())
    return directory


def scaling(factor: float, shape: tuple[int | str, ...]) -> bytes:
    return made.model(
        [made.node("Mul", "x factor", "y")],
        [made.value("x", made.FLOAT, shape)],
        [made.value("y", made.FLOAT, shape)],
        {"factor": np.array(factor, np.float32)},
    ).SerializeToString()


@pytest.mark.parametrize("rows", [True, False])
@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_tensors_load_in_both_precisions_and_warm_up_on_their_golden_inputs(
    tmp_path: Path, precision: Precision, rows: bool
) -> None:
    predictor = load_predictor(make_tensors(tmp_path, rows=rows), precision=precision)
    assert (predictor.precision, predictor.fallback) == (precision, None)
    seconds = predictor.warm_up()
    assert 0 < seconds < math.inf if rows else seconds == math.inf
    row = {"x": np.array([3, 4], np.float32)}
    answers = predictor.answer([row, row] if rows else [row])
    assert [answer.tensor("y").tolist() for answer in answers] == [[6, 8]] * len(answers)


def test_an_int8_graph_of_tensors_that_does_not_reproduce_its_outputs_gives_way_to_fp32(
    tmp_path: Path,
) -> None:
    predictor = load_predictor(make_tensors(tmp_path, int8_factor=2.5))
    assert predictor.precision == "fp32"
    assert predictor.fallback is not None
    assert "int8: the golden output 'y' differs by 0.25 of its largest value" in predictor.fallback


def test_a_graph_of_tensors_that_cannot_run_its_golden_inputs_in_batches_is_refused(tmp_path: Path) -> None:
    directory = make_tensors(tmp_path)
    predictor = load_predictor(directory)
    broken = {**predictor.bundle.files, GOLDEN_FILE: TensorGolden(
        (TensorExample({"x": np.zeros((1, 5), np.float32)}, {"fp32": {"y": np.zeros((1, 5), np.float32)}}),)
    ).save()}  # fmt: skip
    changed = dataclasses.replace(predictor, bundle=dataclasses.replace(predictor.bundle, files=broken))
    with pytest.raises(GraphError, match=r"it cannot be run: .*[Gg]ot invalid dimensions"):
        changed.warm_up()
