"""Changes of what is served under load: nothing is lost, and nothing answers that was not named."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from bundle.serving import Serving, read_serving, write_serving
from tests import tiny
from tests.conftest import ROOT, LiveServer
from tests.service.calls import IMAGE, JSON, instances, pixels
from tests.service.live import LIMIT_S, eventually, head, log_text, samples

INDEX = "/v2/repository/index"
SERVING = "/v1/models/tiny-image/serving"
CALLERS = 8


def publish(models: Path, version: int) -> Path:
    """Publish a bundle whose labels tell its version."""
    labels = tuple(f"v{version}-{label}" for label in tiny.LABELS)
    return tiny.make_image_bundle(
        models, version=version, change=lambda manifest: manifest.model_copy(update={"labels": labels})
    )


@pytest.fixture
def models(tmp_path: Path) -> Path:
    models = tmp_path / "models"
    for version in (1, 2):
        publish(models, version)
    tiny.make_audio_bundle(models)
    return models


Start = Callable[..., LiveServer]


@pytest.fixture
def start(start_service: Start, models: Path) -> Start:
    return lambda *flags: start_service("--models", str(models), "--drain-delay-s", "0", *flags)


def change(url: str, name: str, verb: str) -> httpx.Response:
    return httpx.post(f"{url}/v2/repository/models/{name}/{verb}", timeout=LIMIT_S)


def version_of(url: str) -> str:
    """The version that an unversioned call gets, or the status of its refusal."""
    answer = httpx.post(url + IMAGE, content=instances(pixels(1)), headers=JSON, timeout=LIMIT_S)
    return str(answer.json()["version"] if answer.status_code == 200 else answer.status_code)


def index_of(url: str) -> dict[str, str]:
    """Of tiny-image: version -> state and reason."""
    found = httpx.post(url + INDEX, timeout=LIMIT_S).json()
    return {
        each["version"]: f"{each['state']} {each['reason']}".strip()
        for each in found
        if each["name"] == "tiny-image"
    }


@dataclass
class Answer:
    """One answer to an unversioned call, and when it was asked for and there."""

    asked_s: float
    came_s: float
    status: int
    content: dict[str, Any]


class Callers:
    """Callers that ask again as soon as they are answered, each on one connection that never breaks."""

    def __init__(self, url: str) -> None:
        self._port = urlsplit(url).port
        body = instances(pixels(1))
        self._request = head(IMAGE, "content-type: application/json", f"content-length: {len(body)}") + body
        self._over = False
        self.answers: list[Answer] = []

    @asynccontextmanager
    async def calling(self) -> AsyncIterator[None]:
        tasks = [asyncio.ensure_future(self._call()) for _ in range(CALLERS)]
        try:
            yield
        finally:
            self._over = True
            await asyncio.gather(*tasks)

    async def answered(self, more: int) -> None:
        """Wait for so many more answers."""
        until = len(self.answers) + more
        async with asyncio.timeout(LIMIT_S):
            while len(self.answers) < until:
                await asyncio.sleep(0.001)

    async def _call(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        while not self._over:
            asked_s = time.perf_counter()
            writer.write(self._request)
            lines = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
            (length,) = (int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length"))
            content = json.loads(await reader.readexactly(length))
            self.answers.append(Answer(asked_s, time.perf_counter(), int(lines[0].split()[1]), content))
        writer.close()
        await writer.wait_closed()


@dataclass
class Named:
    """A version that unversioned calls get, from when that was asked for until another had its place."""

    version: str
    from_s: float
    until_s: float = float("inf")


@pytest.mark.anyio
@pytest.mark.parametrize("workers", [1, 2])
async def test_reloads_and_switches_under_load_lose_nothing_and_answer_from_no_other_version(
    start: Start, models: Path, workers: int
) -> None:
    server = start("--workers", str(workers), "--threads", "1")
    named = [Named("2", 0.0)]
    callers = Callers(server.url)
    async with httpx.AsyncClient(base_url=server.url, timeout=LIMIT_S) as client, callers.calling():
        for i in range(10):
            await callers.answered(100)
            if i == 4:
                (publish(models, 3) / "model.fp32.onnx").write_bytes(b"changed")
            reload = await client.post("/v2/repository/models/tiny-image/load")
            assert reload.status_code == (200 if i < 4 else 400), reload.text
            await callers.answered(100)
            version = 1 + i % 2
            named.append(Named(str(version), time.perf_counter()))
            switch = await client.put(SERVING, json={"aliases": {"stable": version}})
            assert switch.status_code == 200, switch.text
            named[-2].until_s = time.perf_counter()
    assert {answer.status for answer in callers.answers} == {200}
    assert len(callers.answers) >= 2000
    for answer in callers.answers:
        version = answer.content["version"]
        assert answer.content["predictions"][0]["label"].startswith(f"v{version}-")
        assert any(
            each.version == version and each.from_s <= answer.came_s and answer.asked_s <= each.until_s
            for each in named
        ), answer
    requests = samples(server.url, "octet_requests_total")
    counted = sum(n for labels, n in requests.items() if labels[1] == "/v1/models/{name}:predict")
    assert counted == len(callers.answers)
    assert "Traceback" not in log_text(server)
    assert read_serving(models, "tiny-image") == Serving(aliases={"stable": 2})


@pytest.mark.anyio
async def test_unloads_under_load_cut_no_answer(start: Start) -> None:
    server = start("--workers", "2", "--threads", "1")
    callers = Callers(server.url)
    async with httpx.AsyncClient(base_url=server.url, timeout=LIMIT_S) as client, callers.calling():
        for verb in ("unload", "load") * 5:
            await callers.answered(50)
            answer = await client.post(f"/v2/repository/models/tiny-image/{verb}")
            assert answer.status_code == 200, answer.text
    assert {answer.status for answer in callers.answers} == {200, 503}
    for answer in callers.answers:
        assert answer.status == 503 or answer.content["version"] == "2"


def test_a_bundle_that_fails_is_published_under_poll_and_the_old_serves_on(
    start: Start, models: Path
) -> None:
    server = start("--model-control", "poll", "--poll-s", "0.2")
    fails = publish(models, 3)
    (fails / "README.md").write_text("changed")  # it may have been loaded before that
    eventually(lambda: "README.md: it was changed" in index_of(server.url).get("3", ""))
    publish(models, 4)
    eventually(lambda: version_of(server.url) == "4")
    shutil.rmtree(fails)
    eventually(lambda: set(index_of(server.url)) == {"1", "2", "4"})
    assert samples(server.url, "octet_model_ready")["tiny-image", "4"] == 1


def test_an_unload_beats_the_watcher_until_the_next_load(start: Start, models: Path) -> None:
    server = start("--model-control", "poll", "--workers", "2", "--threads", "1")
    assert change(server.url, "tiny-image", "unload").status_code == 200
    publish(models, 3)
    tiny.make_audio_bundle(models, version=2)  # after it, so the third has been seen too
    eventually(lambda: len([line for line in server.log if "tiny-audio/2 is ready" in line]) == 2)
    assert {version_of(server.url) for _ in range(4)} == {"503"}
    assert index_of(server.url) == dict.fromkeys("123", "UNAVAILABLE unloaded")
    assert change(server.url, "tiny-image", "load").status_code == 200
    assert {version_of(server.url) for _ in range(4)} == {"3"}


def test_two_services_follow_one_repository(start: Start, models: Path) -> None:
    """As replicas do: its alias files are what all of them agree on."""
    one, other = (start("--model-control", "poll", "--poll-s", "0.2") for _ in range(2))
    write_serving(models, "tiny-image", Serving(aliases={"stable": 1}))
    for server in (one, other):
        eventually(lambda server=server: version_of(server.url) == "1")  # type: ignore[misc]
    answer = httpx.put(one.url + SERVING, json={"aliases": {"stable": 2}}, timeout=LIMIT_S)
    assert answer.status_code == 200
    assert version_of(one.url) == "2"
    eventually(lambda: version_of(other.url) == "2")


def workers_of(server: LiveServer) -> list[psutil.Process]:
    children = psutil.Process(server.process.pid).children()
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


@contextmanager
def one_suspended(server: LiveServer) -> Iterator[tuple[psutil.Process, httpx.Client]]:
    """Suspend one of two workers; yield it, and a client of the other."""
    with ExitStack() as stack:
        clients = [stack.enter_context(httpx.Client(base_url=server.url, timeout=LIMIT_S)) for _ in range(2)]
        for client in clients:
            assert client.get("/healthz").status_code == 200
        hung = workers_of(server)[0]
        hung.suspend()
        stack.callback(lambda: hung.is_running() and hung.resume())
        for client in clients:
            try:
                client.get("/healthz", timeout=1)
            except httpx.TimeoutException:
                continue
            yield hung, client
            return
    raise AssertionError("both connections were the suspended worker's")


def test_a_worker_that_is_killed_during_a_change_is_not_waited_for(start: Start, models: Path) -> None:
    server = start("--workers", "2", "--threads", "1")
    publish(models, 3)
    with one_suspended(server) as (hung, client):

        def kill() -> None:
            server.wait_for("tiny-image/3 is ready")
            os.kill(hung.pid, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        assert client.post("/v2/repository/models/tiny-image/load").status_code == 200
        killer.join(LIMIT_S)
    server.wait_for("takes its place")
    eventually(lambda: len([line for line in server.log if "tiny-audio/1 is ready" in line]) == 3)
    assert {version_of(server.url) for _ in range(8)} == {"3"}


def test_a_worker_that_hangs_is_not_waited_for_for_ever(start: Start) -> None:
    server = start("--workers", "2", "--threads", "1", "--control-timeout-s", "1")
    with one_suspended(server) as (hung, client):
        answer = client.post("/v2/repository/models/tiny-image/unload")
        assert answer.status_code == 504
        assert "1 of 2 workers did not do this within 1 s" in answer.json()["error"]
        hung.resume()
    assert (
        change(server.url, "tiny-audio", "load").status_code == 200
    )  # after the unload, which both have done
    assert {version_of(server.url) for _ in range(8)} == {"503"}


def test_a_worker_that_takes_anothers_place_serves_what_the_others_do(start: Start, models: Path) -> None:
    server = start("--workers", "2", "--threads", "1")
    assert change(server.url, "tiny-audio", "unload").status_code == 200
    publish(models, 3)  # nobody has loaded it
    (publish(models, 4) / "README.md").write_text("changed")
    workers_of(server)[0].kill()
    eventually(lambda: len([line for line in server.log if "tiny-image/2 is ready" in line]) == 3)
    eventually(lambda: sum(samples(server.url, "octet_threads").values()) == 2)
    with ExitStack() as stack:
        clients = [stack.enter_context(httpx.Client(base_url=server.url, timeout=LIMIT_S)) for _ in range(6)]
        for client in clients:
            answer = client.post(IMAGE, content=instances(pixels(1)), headers=JSON)
            assert answer.json()["version"] == "2"
            assert client.get("/v2/models/tiny-audio/ready").status_code == 503


def test_a_hundred_loads_and_unloads_leave_the_memory_as_it_was(start_service: Start, tmp_path: Path) -> None:
    """Of a real model: what a tiny one leaves behind would not be seen."""
    models = tmp_path / "models"
    shutil.copytree(ROOT / "models" / "mnist-cnn", models / "mnist-cnn")
    server = start_service("--models", str(models), "--threads", "1")

    def cycle(times: int) -> int:
        for _ in range(times):
            for verb in ("unload", "load"):
                assert change(server.url, "mnist-cnn", verb).status_code == 200
        return int(psutil.Process(server.process.pid).memory_info().rss)

    before, after = cycle(10), cycle(100)
    assert after <= 1.05 * before, f"{before / 2**20:.1f} MB, then {after / 2**20:.1f} MB"


def test_a_bundle_that_nobody_vouches_for_prevents_the_start(start_service: Start, models: Path) -> None:
    (models.parent / "trusted").write_text("# nothing yet\n")
    flags = ["--models", str(models), "--trusted-digests", str(models.parent / "trusted")]
    server = start_service(*flags, wait=False)
    assert server.process.wait(LIMIT_S) == 1
    server.wait_for(r"^error: .*tiny-audio/1: .*trusted does not list tiny-audio/1$")
