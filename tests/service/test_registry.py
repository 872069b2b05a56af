import logging
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bundle.confidence import assess
from bundle.errors import BundleError, IntegrityError, ProviderError, ServingError, TrustError
from bundle.serving import Serving, write_serving
from bundle.trusted import list_digests
from service.errors import ModelNotReadyError, UnknownModelError
from service.metrics import Metrics
from service.registry import Registry, ServedModel, Which, load_registry, runner_of
from service.settings import Settings
from tests import tiny
from tests.service.calls import pixels


def load(folder: Path, **settings: object) -> tuple[Registry, Callable[..., float | None]]:
    """Return the registry, and what its metrics say."""
    metrics = Metrics()
    registry = load_registry(Settings(models=folder, threads=2, **settings), metrics)  # type: ignore[arg-type]
    return registry, lambda name, **labels: metrics.registry.get_sample_value(name, labels)


def test_names_are_sorted_and_versions_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for version in (2, 9, 10):
        tiny.make_image_bundle(tmp_path, version=version)
    tiny.make_audio_bundle(tmp_path)
    registry, _ = load(tmp_path)
    assert registry.names() == ["tiny-audio", "tiny-image"]
    assert [served.version for served in registry.versions("tiny-image")] == ["2", "9", "10"]
    assert registry.get("tiny-image").version == "10"
    assert registry.get("tiny-image", "9").version == "9"
    assert registry.get("tiny-audio").name == "tiny-audio"


@pytest.mark.parametrize("version", ["3", "0", "01", "abc", "", " 1", "1.0", "-1", "１"])
def test_a_version_that_is_not_served_is_unknown_and_the_message_lists_those_that_are(
    repository: Path, version: str
) -> None:
    registry, _ = load(repository)
    with pytest.raises(UnknownModelError, match=r"no version .*; it has 1, 2$"):
        registry.get("tiny-image", version)


def test_a_name_that_is_not_served_is_unknown_and_the_message_lists_those_that_are(repository: Path) -> None:
    registry, _ = load(repository)
    with pytest.raises(UnknownModelError, match="no model 'tiny'; there are tiny-audio, tiny-image"):
        registry.get("tiny")


def test_what_is_loaded_is_reported_as_metrics_and_logged(
    repository: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "service.loader"):
        registry, sample = load(repository)
    assert "tiny-image/2 is ready: int8 on cpu, 4 nodes on CPUExecutionProvider" in caplog.messages
    label = {"model": "tiny-image", "version": "2"}
    sha256 = registry.get("tiny-image", "2").predictor.bundle.manifest_sha256
    info = {**label, "precision": "int8", "provider": "cpu", "bundle_sha256": sha256}
    assert sample("octet_threads") == 2
    assert sample("octet_model_ready", **label) == 1
    assert sample("octet_model_fallback", **label) == 0
    assert sample("octet_model_info", **info) == 1


def test_a_fallback_to_another_graph_is_reported(tmp_path: Path) -> None:
    tiny.make_image_bundle(tmp_path, int8_error=5)
    registry, sample = load(tmp_path)
    assert registry.get("tiny-image").predictor.precision == "fp32"
    assert sample("octet_model_fallback", model="tiny-image", version="1") == 1


def test_a_missing_repository_and_an_empty_one_prevent_the_start(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is not a directory"):
        load(tmp_path / "nowhere")
    with pytest.raises(BundleError, match="holds no bundle"):
        load(tmp_path)


def test_one_broken_bundle_prevents_the_start_though_others_are_whole(tmp_path: Path) -> None:
    tiny.make_audio_bundle(tmp_path)
    broken = tiny.make_image_bundle(tmp_path)
    (broken / "model.fp32.onnx").write_bytes(b"changed")
    with pytest.raises(IntegrityError, match=r"model\.fp32\.onnx"):
        load(tmp_path)


def test_a_required_provider_that_is_missing_prevents_the_start(repository: Path) -> None:
    with pytest.raises(ProviderError, match="'openvino' is required"):
        load(repository, provider="require-openvino")


@pytest.mark.anyio
async def test_models_run_rows_and_stop_ends_their_threads(repository: Path) -> None:
    registry, _ = load(repository)
    images = pixels(3)
    served = registry.get("tiny-image")
    answers = await served.batcher.submit(served.predictor.rows(list(images)))
    rows = [answer.confidence for answer in answers]
    await registry.stop()
    expected = assess(tiny.image_logits(images), tiny.TEMPERATURE)
    for row, other in zip(rows, expected, strict=True):
        assert row.order == other.order
        np.testing.assert_allclose(row.probabilities, other.probabilities, atol=1e-5)
        np.testing.assert_allclose(row.raw, other.raw, atol=1e-5)
    with pytest.raises(RuntimeError, match="shutdown"):
        registry.resources.pool.executor.submit(print)


def test_a_runner_is_told_what_its_model_is_and_how_long_its_runs_take(repository: Path) -> None:
    registry, _ = load(repository)
    predictor = registry.get("tiny-image", "1").predictor
    runner = runner_of(predictor, 1e-6)
    assert (runner.name, runner.version, runner.max_batch_size) == ("tiny-image", "1", 8)
    assert runner.seconds_per_element == 1e-6
    assert runner_of(predictor).seconds_per_element == math.inf
    rows = predictor.rows(list(pixels(2)))
    confidences = [answer.confidence for answer in runner.run(rows)]
    assert confidences == [answer.confidence for answer in predictor.answer(rows)]
    measured = registry.get("tiny-image").batcher._runner.seconds_per_element
    assert 0 < measured < 1


def test_what_is_put_takes_the_place_of_what_was_there_and_what_was_chosen_stays(repository: Path) -> None:
    registry, _ = load(repository)
    old = registry.get("tiny-image")
    one = registry.get("tiny-image", "1")
    registry.put(ServedModel("tiny-image", [one], Serving(aliases={"only": 1})))
    assert registry.get("tiny-image") is one
    assert registry.choose(Which("tiny-image", alias="only")) is one
    assert registry.versions("tiny-image") == [one]
    assert old.predictor.answer(old.predictor.rows(list(pixels(1))))
    assert registry.names() == ["tiny-audio", "tiny-image"]


def test_what_is_dropped_is_not_ready_or_unknown(repository: Path) -> None:
    registry, _ = load(repository)
    registry.drop("tiny-image", "unloaded")
    for ask in (lambda: registry.get("tiny-image"), lambda: registry.versions("tiny-image")):
        with pytest.raises(ModelNotReadyError, match="the model 'tiny-image' is not ready: unloaded"):
            ask()
    with pytest.raises(ModelNotReadyError):
        registry.choose(Which("tiny-image", "1"))
    assert registry.names() == ["tiny-audio"]
    registry.drop("tiny-image", None)
    with pytest.raises(UnknownModelError, match="there is no model 'tiny-image'; there are tiny-audio"):
        registry.get("tiny-image")
    registry.drop("tiny-audio", None)
    with pytest.raises(UnknownModelError, match="there are none"):
        registry.get("tiny-audio")


def test_at_the_start_the_setting_and_the_alias_files_say_what_is_loaded(tmp_path: Path) -> None:
    for version in (1, 2, 3):
        tiny.make_image_bundle(tmp_path, version=version)
    tiny.make_audio_bundle(tmp_path)
    registry, _ = load(tmp_path, versions="latest:1")
    assert [each.version for each in registry.versions("tiny-image")] == ["3"]
    write_serving(tmp_path, "tiny-image", Serving(versions=(2,), aliases={"stable": 1}))
    registry, sample = load(tmp_path, versions="latest:1")
    assert [each.version for each in registry.versions("tiny-image")] == ["1", "2"]
    assert registry.get("tiny-image").version == "1"
    assert sample("octet_model_ready", model="tiny-image", version="3") is None


def test_at_the_start_an_alias_file_that_cannot_be_kept_to_prevents_it(tmp_path: Path) -> None:
    tiny.make_image_bundle(tmp_path)
    (tmp_path / "tiny-image" / "serving.json").write_text('{"aliases": {"stable": 2}}')
    with pytest.raises(ServingError, match="there is no version 2; there are: 1"):
        load(tmp_path)
    (tmp_path / "tiny-image" / "serving.json").write_text("{")
    with pytest.raises(ServingError, match=r"serving\.json: the document: Invalid JSON"):
        load(tmp_path)


def test_at_the_start_a_bundle_that_nobody_vouches_for_prevents_it(tmp_path: Path) -> None:
    models = tmp_path / "models"
    tiny.make_image_bundle(models)
    trusted = tmp_path / "trusted"
    trusted.write_text("".join(f"{sha}  {name}\n" for name, sha in list_digests(models).items()))
    load(models, trusted_digests=trusted)
    tiny.make_image_bundle(models, version=2)
    with pytest.raises(TrustError, match="trusted does not list tiny-image/2"):
        load(models, trusted_digests=trusted)
    with pytest.raises(TrustError, match="it cannot be read"):
        load(models, trusted_digests=tmp_path / "nowhere")
