from __future__ import annotations

import asyncio
import gc
import hashlib
import shutil
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bundle.predictor import Predictor
from bundle.serving import SERVING_FILE, Serving, write_serving
from service.errors import ModelLoadError, ModelNotReadyError, UnknownModelError
from service.lifecycle import Lifecycle
from service.loader import Loader
from service.metrics import Metrics
from service.registry import Registry, Which, load_registry, open_registry
from service.settings import Settings
from service.standing import Standing
from tests import tiny
from tests.service.calls import pixels
from tests.service.fakes import LIMIT_S, until

pytestmark = pytest.mark.anyio

IMAGE, AUDIO = "tiny-image", "tiny-audio"


class Place:
    """A model repository of tiny-image 1 and what serves it in this process."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.models = folder / "models"
        self.settings = Settings(models=self.models, threads=1, **settings)
        self.metrics = Metrics()
        self.told: list[Standing] = []

    def start(self) -> Lifecycle:
        self.registry = load_registry(self.settings, self.metrics)
        self.lifecycle = Lifecycle(self.settings, self.registry, self.metrics)
        self.lifecycle.on_change = self.told.append
        return self.lifecycle

    def sample(self, name: str, version: str, model: str = IMAGE, **labels: str) -> float | None:
        labels = {"model": model, "version": version, **labels}
        return self.metrics.registry.get_sample_value(name, labels)

    @property
    def serves(self) -> list[str]:
        return [served.version for served in self.registry.versions(IMAGE)]

    async def states(self) -> dict[str, tuple[str, str]]:
        """Of tiny-image: version -> state and reason."""
        return {
            each.version: (each.state, each.reason)
            for each in await self.lifecycle.index()
            if each.name == IMAGE
        }


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    tiny.make_image_bundle(place.models)
    place.start()
    return place


def broken(models: Path, version: int) -> Path:
    """Publish a bundle, and damage it."""
    folder = tiny.make_image_bundle(models, version=version)
    (folder / "model.fp32.onnx").write_bytes(b"changed")
    return folder


async def test_a_version_that_was_published_is_served_after_a_load(place: Place) -> None:
    tiny.make_image_bundle(place.models, version=2)
    assert place.serves == ["1"]
    assert (await place.states())["2"][0] == "UNAVAILABLE"
    await place.lifecycle.load(IMAGE)
    assert place.serves == ["1", "2"]
    assert place.registry.get(IMAGE).version == "2"
    assert await place.states() == {"1": ("READY", ""), "2": ("READY", "")}
    assert place.sample("octet_model_ready", "2") == 1
    assert place.told[-1].models[IMAGE].versions == (1, 2)


async def test_a_load_proves_everything_anew_and_leaves_what_was_chosen_at_work(place: Place) -> None:
    old = place.registry.get(IMAGE)
    await place.lifecycle.load(IMAGE)
    new = place.registry.get(IMAGE)
    assert new is not old
    assert new.version == old.version
    for served in (old, new):
        (answer,) = await served.batcher.submit(served.predictor.rows(list(pixels(1))))
        assert answer.confidence.order
    assert place.sample("octet_model_ready", "1") == 1


async def test_the_old_serves_until_the_new_is_proven(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    at_work, go_on = threading.Event(), threading.Event()
    load = Loader.load

    def slow(*arguments: Any) -> Any:
        at_work.set()
        assert go_on.wait(LIMIT_S)
        return load(*arguments)

    monkeypatch.setattr(Loader, "load", slow)
    tiny.make_image_bundle(place.models, version=2)
    loading = asyncio.ensure_future(place.lifecycle.follow())
    await until(at_work.is_set)
    assert place.serves == ["1"]
    assert (await place.states())["2"] == ("LOADING", "")
    served = place.registry.get(IMAGE)
    await served.batcher.submit(served.predictor.rows(list(pixels(1))))
    go_on.set()
    await loading
    assert place.serves == ["1", "2"]
    assert (await place.states())["2"] == ("READY", "")


async def test_an_unloaded_model_is_not_ready_and_comes_back_with_a_load(place: Place) -> None:
    await place.lifecycle.unload(IMAGE)
    with pytest.raises(ModelNotReadyError, match="'tiny-image' is not ready: unloaded"):
        place.registry.get(IMAGE)
    assert await place.states() == {"1": ("UNAVAILABLE", "unloaded")}
    assert place.sample("octet_model_ready", "1") == 0
    assert place.told[-1].unloaded == (IMAGE,)
    await place.lifecycle.unload(IMAGE)  # nothing more happens
    await place.lifecycle.load(IMAGE)
    assert place.serves == ["1"]
    assert place.sample("octet_model_ready", "1") == 1
    assert place.told[-1].unloaded == ()


async def test_an_unload_beats_what_happens_in_the_repository(place: Place) -> None:
    await place.lifecycle.unload(IMAGE)
    tiny.make_image_bundle(place.models, version=2)
    write_serving(place.models, IMAGE, Serving(aliases={"stable": 1}))
    await place.lifecycle.follow()
    await place.lifecycle.follow([IMAGE])
    with pytest.raises(ModelNotReadyError):
        place.registry.get(IMAGE)
    await place.lifecycle.serve(IMAGE, Serving(aliases={"stable": 2}))
    with pytest.raises(ModelNotReadyError):
        place.registry.get(IMAGE)
    await place.lifecycle.load(IMAGE)
    assert place.registry.get(IMAGE).version == "1"  # as the file says


async def test_the_memory_of_what_is_unloaded_is_given_back_when_its_last_call_has_ended(
    place: Place,
) -> None:
    held = place.registry.get(IMAGE)
    gone: weakref.ref[Predictor] = weakref.ref(held.predictor)
    await place.lifecycle.unload(IMAGE)
    assert (await place.states())["1"] == ("UNLOADING", "")
    gc.collect()
    assert gone() is not None
    del held
    await until(lambda: gone() is None)
    await until(lambda: not place.lifecycle._reclaiming)
    assert (await place.states())["1"] == ("UNAVAILABLE", "unloaded")
    assert len(place.metrics.gatherers) == 1  # that of the monitor, which is there for all models


async def test_a_version_that_is_replaced_does_not_stay_in_memory(place: Place) -> None:
    gone: list[weakref.ref[Predictor]] = []
    for _ in range(3):
        gone.append(weakref.ref(place.registry.get(IMAGE).predictor))
        await place.lifecycle.load(IMAGE)
    assert [each() for each in gone] == [None] * 3
    assert len(place.metrics.gatherers) == 2  # the one above, and that of the batcher


async def test_a_bundle_that_fails_leaves_the_old_where_it_is_and_is_reported(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    before = place.registry.get(IMAGE)
    broken(place.models, 2)
    for _ in range(3):  # it is tried and told once, until something has changed
        await place.lifecycle.follow()
    assert place.registry.get(IMAGE) is before
    state, reason = (await place.states())["2"]
    assert state == "UNAVAILABLE"
    assert "model.fp32.onnx: it was changed" in reason
    (line,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert line.getMessage() == f"tiny-image/2 cannot be served: {reason}"
    assert place.sample("octet_model_load_failures_total", "2") == 1
    assert place.sample("octet_model_ready", "2") is None

    with pytest.raises(
        ModelLoadError, match=r"tiny-image cannot be served as it should be: version 2: .* it was"
    ):
        await place.lifecycle.load(IMAGE)
    assert place.serves == ["1"]
    assert place.sample("octet_model_load_failures_total", "2") == 2


async def test_a_bundle_that_failed_is_tried_again_when_it_was_changed(place: Place) -> None:
    folder = broken(place.models, 2)
    await place.lifecycle.follow()
    shutil.copy(place.models / IMAGE / "1" / "model.fp32.onnx", folder)
    await place.lifecycle.follow()
    assert place.serves == ["1", "2"]
    assert await place.states() == {"1": ("READY", ""), "2": ("READY", "")}


async def test_a_bundle_that_changes_in_its_place_is_loaded_anew_or_served_as_it_was(place: Place) -> None:
    folder = place.models / IMAGE / "1"
    before = place.registry.get(IMAGE)
    (folder / "manifest.json").write_text("{")
    await place.lifecycle.follow()
    assert place.registry.get(IMAGE) is before
    state, reason = (await place.states())["1"]
    assert state == "READY"
    assert reason.startswith("served as it was before: ")
    shutil.rmtree(folder)
    tiny.make_image_bundle(
        place.models, change=lambda manifest: manifest.model_copy(update={"description": "Another."})
    )
    await place.lifecycle.follow()
    after = place.registry.get(IMAGE)
    assert after.predictor.bundle.manifest.description == "Another."
    assert await place.states() == {"1": ("READY", "")}
    sha = {"precision": "int8", "provider": "cpu"}
    shas = (before, after)
    digests = [each.predictor.bundle.manifest_sha256 for each in shas]
    assert [place.sample("octet_model_info", "1", bundle_sha256=digest, **sha) for digest in digests] == [
        0,
        1,
    ]


async def test_of_the_latest_that_cannot_be_served_the_next_older_one_is(tmp_path: Path) -> None:
    place = Place(tmp_path, versions="latest:1")
    tiny.make_image_bundle(place.models)
    place.start()
    one = place.registry.get(IMAGE)
    broken(place.models, 2)
    await place.lifecycle.follow()
    assert place.registry.get(IMAGE) is one
    tiny.make_image_bundle(place.models, version=3)
    await place.lifecycle.follow()
    assert place.serves == ["3"]
    assert place.sample("octet_model_ready", "1") == 0
    del one
    await until(lambda: not place.lifecycle._reclaiming)
    assert (await place.states())["1"][0] == "UNAVAILABLE"


async def test_versions_and_models_that_vanish_are_not_served_any_more(place: Place) -> None:
    tiny.make_image_bundle(place.models, version=2)
    tiny.make_audio_bundle(place.models)
    await place.lifecycle.follow()
    assert place.registry.names() == [AUDIO, IMAGE]
    shutil.rmtree(place.models / IMAGE / "2")
    shutil.rmtree(place.models / AUDIO)
    await place.lifecycle.follow()
    assert place.serves == ["1"]
    with pytest.raises(UnknownModelError):
        place.registry.get(AUDIO)
    shutil.rmtree(place.models / IMAGE)
    await place.lifecycle.follow()
    assert place.registry.names() == []
    assert await place.lifecycle.index() == []


async def test_a_repository_that_vanishes_for_a_moment_unloads_nothing(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    before = place.registry.get(IMAGE)
    place.models.rename(place.models.with_name("elsewhere"))
    await place.lifecycle.follow()
    assert "what is served stays as it is" in caplog.text
    assert [(each.version, each.state) for each in await place.lifecycle.index()] == [("1", "READY")]
    for change in (place.lifecycle.load(IMAGE), place.lifecycle.serve(IMAGE, Serving())):
        with pytest.raises(ModelLoadError, match="is not a directory"):
            await change
    assert place.registry.get(IMAGE) is before


async def test_nothing_is_loaded_twice_where_nothing_has_changed(place: Place) -> None:
    write_serving(place.models, IMAGE, Serving(aliases={"stable": 1}))
    await place.lifecycle.follow()
    told = len(place.told)
    before = place.registry.get(IMAGE)
    await place.lifecycle.follow()
    await place.lifecycle.serve(IMAGE, Serving(aliases={"stable": 1}))
    assert place.registry.get(IMAGE) is before
    assert len(place.told) == told
    await place.lifecycle.serve(IMAGE, Serving(aliases={"stable": 1, "other": 1}))
    assert place.registry.get(IMAGE) is before  # the alias alone is new
    assert place.registry.choose(Which(IMAGE, alias="other")) is before


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: path.write_text("{"), "Invalid JSON"),
        (lambda path: path.write_text('{"aliases": {"stable": 7}}'), "there is no version 7"),
        (lambda path: path.mkdir(), "it cannot be read"),
    ],
)
async def test_an_alias_file_that_cannot_be_kept_to_changes_nothing_and_is_reported_once(
    place: Place, caplog: pytest.LogCaptureFixture, write: Callable[[Path], None], words: str
) -> None:
    before = place.registry.get(IMAGE)
    write(place.models / IMAGE / SERVING_FILE)
    for _ in range(3):
        await place.lifecycle.follow()
    assert place.registry.get(IMAGE) is before
    state, reason = (await place.states())["1"]
    assert (state, words in reason) == ("READY", True)
    assert caplog.text.count("what is served of tiny-image stays as it is") == 1
    assert place.sample("octet_model_load_failures_total", "") == 1
    with pytest.raises(ModelLoadError, match=words):
        await place.lifecycle.load(IMAGE)


async def test_an_alias_of_a_version_that_fails_is_not_switched_to(place: Place) -> None:
    await place.lifecycle.serve(IMAGE, Serving(aliases={"stable": 1}))
    before = place.registry.get(IMAGE)
    broken(place.models, 2)
    tiny.make_image_bundle(place.models, version=3)
    for serving in (Serving(aliases={"stable": 2}), Serving(versions=(2, 3)), Serving(aliases={"b": 9})):
        with pytest.raises(ModelLoadError, match=r"version 2|no version 9"):
            await place.lifecycle.serve(IMAGE, serving)
        assert place.registry.get(IMAGE) is before
        assert place.serves == ["1"]
    await place.lifecycle.serve(IMAGE, Serving(aliases={"stable": 3}))
    assert place.registry.get(IMAGE).version == "3"


async def test_models_that_are_not_there_are_unknown(place: Place) -> None:
    lifecycle = place.lifecycle
    for change in (lifecycle.load("m"), lifecycle.unload("m"), lifecycle.serve("m", Serving())):
        with pytest.raises(UnknownModelError, match="the model repository holds no model 'm'"):
            await change
    assert place.sample("octet_model_load_failures_total", "", model="m") is None


async def test_a_model_of_which_nothing_can_be_served_is_known_but_not_ready(place: Place) -> None:
    folder = tiny.make_audio_bundle(place.models)
    (folder / "README.md").write_text("changed")
    await place.lifecycle.follow()
    with pytest.raises(ModelNotReadyError, match=r"README\.md: it was changed"):
        place.registry.get(AUDIO)
    shutil.rmtree(folder.parent)
    await place.lifecycle.follow()
    with pytest.raises(UnknownModelError):
        place.registry.get(AUDIO)


async def test_something_odd_on_the_way_is_logged_with_its_trace_and_changes_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> Any:
        raise MemoryError("no room")

    monkeypatch.setattr(Loader, "load", fail)
    with pytest.raises(ModelLoadError, match="no room"):
        await place.lifecycle.load(IMAGE)
    assert place.serves == ["1"]
    assert "Traceback" in caplog.text


async def test_a_bundle_that_nobody_vouches_for_is_not_loaded_live(tmp_path: Path) -> None:
    trusted = tmp_path / "trusted"
    place = Place(tmp_path, trusted_digests=trusted)
    folder = tiny.make_image_bundle(place.models)
    digest = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    trusted.write_text(f"{digest}  tiny-image/1\n")
    place.start()
    other = tiny.make_image_bundle(place.models, version=2)
    await place.lifecycle.follow()
    assert place.serves == ["1"]
    assert "trusted does not list tiny-image/2" in (await place.states())["2"][1]
    digest = hashlib.sha256((other / "manifest.json").read_bytes()).hexdigest()
    with trusted.open("a") as file:
        file.write(f"{digest}  tiny-image/2\n")
    await place.lifecycle.load(IMAGE)
    assert place.serves == ["1", "2"]


def restored(place: Place, standing: Standing) -> Registry:
    registry = open_registry(place.settings, place.metrics)
    Lifecycle(place.settings, registry, place.metrics).restore(standing)
    return registry


async def test_a_process_that_takes_anothers_place_serves_the_same(place: Place) -> None:
    tiny.make_image_bundle(place.models, version=2)
    tiny.make_audio_bundle(place.models)
    await place.lifecycle.follow()
    await place.lifecycle.serve(IMAGE, Serving(aliases={"stable": 1, "canary": 2}, canary_weight=0.5))
    await place.lifecycle.unload(AUDIO)
    tiny.make_image_bundle(place.models, version=3)  # not loaded
    standing = Standing.model_validate_json(place.lifecycle.standing.model_dump_json())
    registry = restored(place, standing)
    assert registry.names() == [IMAGE]
    assert [each.version for each in registry.versions(IMAGE)] == ["1", "2"]
    assert registry.get(IMAGE, "1") is registry.choose(Which(IMAGE, alias="stable"))
    assert registry.models()[IMAGE].serving.canary_weight == 0.5
    with pytest.raises(ModelNotReadyError, match="unloaded"):
        registry.get(AUDIO)
    assert Lifecycle(place.settings, place.registry, place.metrics).standing.models == standing.models


async def test_a_process_that_takes_anothers_place_serves_what_it_can(place: Place) -> None:
    tiny.make_image_bundle(place.models, version=2)
    tiny.make_audio_bundle(place.models)
    await place.lifecycle.follow()
    await place.lifecycle.serve(IMAGE, Serving(versions=(1, 2), aliases={"stable": 1}))
    shutil.rmtree(place.models / IMAGE / "2")
    (place.models / AUDIO / "1" / "README.md").write_text("changed")
    registry = restored(place, place.lifecycle.standing)
    assert [each.version for each in registry.versions(IMAGE)] == ["1"]
    with pytest.raises(ModelNotReadyError, match="it was changed"):
        registry.get(AUDIO)
