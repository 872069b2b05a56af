from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import service.control as module
from bundle.errors import ServingError
from bundle.serving import SERVING_FILE, Serving, read_serving
from service.control import Control
from service.errors import DeadlineError, ModelControlError, ModelLoadError, UnknownModelError
from service.lifecycle import Lifecycle
from service.loader import Loader
from service.metrics import Metrics
from service.registry import Registry, load_registry
from service.settings import Settings
from tests import tiny
from tests.service.fakes import LIMIT_S, until

pytestmark = pytest.mark.anyio

IMAGE = "tiny-image"


class Place:
    """One process that serves tiny-image 1 and 2 and may be told what to serve."""

    def __init__(self, models: Path, **settings: Any) -> None:
        self.settings = Settings(models=models, threads=1, **settings)
        metrics = Metrics()
        self.registry: Registry = load_registry(self.settings, metrics)
        self.control = Control(self.settings, Lifecycle(self.settings, self.registry, metrics))


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for version in (1, 2):
        tiny.make_image_bundle(tmp_path, version=version)
    return tmp_path


@pytest.fixture
async def place(models: Path) -> AsyncIterator[Place]:
    place = Place(models)
    async with place.control.running():
        yield place


async def test_the_index_lists_every_version_or_those_that_are_served(place: Place) -> None:
    both = [{"name": IMAGE, "version": v, "state": "READY", "reason": ""} for v in ("1", "2")]
    assert await place.control.index() == await place.control.index(ready=True) == both
    await place.control.unload(IMAGE)
    assert await place.control.index(ready=True) == []
    assert [each["reason"] for each in await place.control.index()] == ["unloaded", "unloaded"]
    await place.control.load(IMAGE, {})
    assert await place.control.index() == both


@pytest.mark.parametrize(
    ("host", "mode", "allowed"),
    [
        ("127.0.0.1", None, True),
        ("127.9.9.9", None, True),
        ("::1", None, True),
        ("localhost", None, True),
        ("0.0.0.0", None, False),
        ("::", None, False),
        ("10.0.0.7", None, False),
        ("octet.example", None, False),
        ("0.0.0.0", "explicit", True),
        ("127.0.0.1", "explicit", True),
        ("127.0.0.1", "none", False),
        ("127.0.0.1", "poll", True),
        ("0.0.0.0", "poll", False),
    ],
)
async def test_who_may_change_what_is_served(models: Path, host: str, mode: Any, allowed: bool) -> None:
    place = Place(models, host=host, model_control=mode)
    control = place.control
    changes = (control.load(IMAGE), control.unload(IMAGE), control.set_serving(IMAGE, Serving(versions=(1,))))
    for change in changes:
        if allowed:
            await change
        else:
            with pytest.raises(ModelControlError, match="OCTET_MODEL_CONTROL=explicit allows it"):
                await change
    assert (models / IMAGE / SERVING_FILE).exists() == allowed
    assert len(await control.index()) == 2  # who asks may always know
    assert (await control.serving(IMAGE)).versions == ((1,) if allowed else None)


async def test_models_come_from_the_repository_alone(place: Place) -> None:
    for parameters in ({"config": "{}"}, {"file:1/model.onnx": "AA=="}, {"x": 1}):
        with pytest.raises(
            ModelControlError, match="is not supported: a model is loaded from the model repos"
        ):
            await place.control.load(IMAGE, parameters)
    with pytest.raises(ModelControlError, match="the parameter 'x' is not supported"):
        await place.control.unload(IMAGE, {"x": 1})
    await place.control.unload(IMAGE, {"unload_dependents": True})


async def test_a_switch_is_served_and_stands_in_the_repository_or_neither(place: Place, models: Path) -> None:
    serving = Serving(aliases={"stable": 1})
    await place.control.set_serving(IMAGE, serving)
    assert place.registry.get(IMAGE).version == "1"
    assert read_serving(models, IMAGE) == await place.control.serving(IMAGE) == serving
    with pytest.raises(ModelLoadError, match="there is no version 3; there are: 1, 2"):
        await place.control.set_serving(IMAGE, Serving(aliases={"stable": 3}))
    with pytest.raises(UnknownModelError):
        await place.control.set_serving("m", serving)
    with pytest.raises(UnknownModelError):
        await place.control.serving("m")
    assert read_serving(models, IMAGE) == serving


async def test_a_switch_that_cannot_be_written_is_undone(
    place: Place, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise ServingError("serving.json: it cannot be written (Read-only file system)")

    await place.control.set_serving(IMAGE, Serving(aliases={"stable": 1}))
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_serving", refuse)
        with pytest.raises(ModelLoadError, match="Read-only file system"):
            await place.control.set_serving(IMAGE, Serving(aliases={"stable": 2}))
    assert place.registry.get(IMAGE).version == "1"
    assert read_serving(models, IMAGE).aliases == {"stable": 1}


async def test_an_alias_file_that_cannot_be_understood_is_told(place: Place, models: Path) -> None:
    (models / IMAGE / SERVING_FILE).write_text("{")
    with pytest.raises(ModelLoadError, match="Invalid JSON"):
        await place.control.serving(IMAGE)


async def test_what_two_callers_switch_at_once_is_served_as_it_is_written(place: Place, models: Path) -> None:
    servings = [Serving(aliases={"stable": 1 + i % 2, f"a{i}": 1}) for i in range(20)]
    await asyncio.gather(*(place.control.set_serving(IMAGE, each) for each in servings))
    assert place.registry.models()[IMAGE].serving == read_serving(models, IMAGE) in servings


async def test_a_change_goes_on_when_its_caller_goes(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    at_work, go_on = held(monkeypatch)
    asking = asyncio.ensure_future(place.control.load(IMAGE))
    await until(at_work.is_set)
    before = place.registry.get(IMAGE)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    go_on.set()
    await until(lambda: place.registry.get(IMAGE) is not before)


async def test_a_change_that_takes_too_long_is_not_waited_for(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(models, control_timeout_s=0.05)
    before = place.registry.get(IMAGE)
    _, go_on = held(monkeypatch)
    with pytest.raises(DeadlineError, match=r"this was not done within 0\.05 s; it may be later"):
        await place.control.load(IMAGE)
    go_on.set()
    await until(lambda: place.registry.get(IMAGE) is not before)


def held(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Make loading wait; return what tells that it has begun, and what lets it go on."""
    at_work, go_on = threading.Event(), threading.Event()
    load = Loader.load

    def slow(*arguments: Any) -> Any:
        at_work.set()
        assert go_on.wait(LIMIT_S)
        return load(*arguments)

    monkeypatch.setattr(Loader, "load", slow)
    return at_work, go_on


async def test_what_processes_report_is_gathered(place: Place) -> None:
    place.control.reports["names"] = place.registry.names
    assert await place.control.gather("names") == [[IMAGE]]


async def test_with_poll_the_repository_is_followed_while_the_application_runs(models: Path) -> None:
    place = Place(models, model_control="poll", poll_s=0.1)
    async with place.control.running():
        tiny.make_image_bundle(models, version=3)
        await until(lambda: place.registry.get(IMAGE).version == "3")
