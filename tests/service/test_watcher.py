from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import service.watcher as module
from bundle.serving import Serving, write_serving
from service.lifecycle import Lifecycle
from service.metrics import Metrics
from service.registry import Registry, load_registry
from service.settings import Settings
from service.watcher import watch
from tests import tiny
from tests.service.fakes import until

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def watched(models: Path, poll_s: float) -> AsyncIterator[Registry]:
    settings = Settings(models=models, threads=1, poll_s=poll_s)
    metrics = Metrics()
    registry = load_registry(settings, metrics)
    task = asyncio.ensure_future(watch(settings, Lifecycle(settings, registry, metrics)))
    try:
        yield registry
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def told(models: Path) -> AsyncIterator[Registry]:
    """Follow a repository as far as the file system tells of changes."""
    async with watched(models, poll_s=1000) as registry:
        await until(lambda: tells(models, registry))
        yield registry


def tells(models: Path, registry: Registry) -> bool:
    """Whether the watch has begun: then a change to a model of its own is followed."""
    (models / "probe").mkdir(exist_ok=True)
    (models / "probe" / "1").mkdir(exist_ok=True)
    (models / "probe" / "1" / "touched").touch()
    if "probe" not in registry.unready():
        return False
    shutil.rmtree(models / "probe")
    return True


def versions(registry: Registry) -> list[str]:
    model = registry.models().get("tiny-image")
    return [] if model is None else list(model.versions)


async def test_what_happens_in_the_repository_is_followed_as_it_happens(tmp_path: Path) -> None:
    tiny.make_image_bundle(tmp_path)
    async with told(tmp_path) as registry:
        tiny.make_image_bundle(tmp_path, version=2)
        await until(lambda: versions(registry) == ["1", "2"])
        write_serving(tmp_path, "tiny-image", Serving(aliases={"stable": 1}))
        await until(lambda: registry.get("tiny-image").version == "1")
        tiny.make_audio_bundle(tmp_path)
        await until(lambda: registry.names() == ["tiny-audio", "tiny-image"])
        (tmp_path / "tiny-image" / "serving.json").unlink()
        await until(lambda: registry.get("tiny-image").version == "2")
        shutil.rmtree(tmp_path / "tiny-image" / "2")
        await until(lambda: versions(registry) == ["1"])
        shutil.rmtree(tmp_path / "tiny-audio")
        await until(lambda: registry.names() == ["tiny-image"])


async def test_a_repository_that_is_a_link_is_followed_where_it_is_turned_to(tmp_path: Path) -> None:
    """As Kubernetes does it: the file system tells of nothing in the folder that is watched."""
    for number in (1, 2):
        tiny.make_image_bundle(tmp_path / str(number), version=number)
    link = tmp_path / "models"
    link.symlink_to("1")
    async with watched(link, poll_s=0.1) as registry:
        assert versions(registry) == ["1"]
        (tmp_path / "next").symlink_to("2")
        (tmp_path / "next").replace(link)
        await until(lambda: versions(registry) == ["2"])


async def test_where_the_file_system_tells_of_nothing_everything_is_looked_at_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError("no space left on device (os error 28)")

    monkeypatch.setattr(module, "awatch", refuse)
    tiny.make_image_bundle(tmp_path)
    async with watched(tmp_path, poll_s=0.1) as registry:
        tiny.make_image_bundle(tmp_path, version=2)
        await until(lambda: versions(registry) == ["1", "2"])
    assert (
        "does not tell of changes (no space left on device (os error 28)); looking every 0.1 s" in caplog.text
    )


async def test_a_repository_that_vanishes_is_followed_when_it_is_back(tmp_path: Path) -> None:
    models = tmp_path / "models"
    tiny.make_image_bundle(models)
    async with watched(models, poll_s=0.1) as registry:
        models.rename(tmp_path / "elsewhere")
        tiny.make_image_bundle(tmp_path / "elsewhere", version=2)
        (tmp_path / "elsewhere").rename(models)
        await until(lambda: versions(registry) == ["1", "2"])
