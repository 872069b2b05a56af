from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from service.monitoring.keys import write_random_key
from service.monitoring.once import Once
from tests.calibrated import NAME, examples, make_calibrated_bundle
from tests.conftest import running_app
from tests.service.calls import OCTETS, assert_problem

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(shutil.which("redis-server") is None, reason="there is no redis-server"),
]
LIMIT_S = 20


class Server:
    """A Redis of its own, on a Unix socket."""

    def __init__(self, folder: Path) -> None:
        self.url = f"unix://{folder}/redis"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        arguments = ("--port", "0", "--unixsocket", f"{self._folder}/redis", "--save", "", "--dir")
        command = ("redis-server", *arguments, str(self._folder))
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        end_s = time.monotonic() + LIMIT_S
        while not (self._folder / "redis").exists() and time.monotonic() < end_s:
            time.sleep(0.01)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            (self._folder / "redis").unlink(missing_ok=True)


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("r"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def replicas(server: Server, tmp_path: Path) -> AsyncIterator[list[httpx.AsyncClient]]:
    """Two, with one key and one Redis."""
    models, key_file = tmp_path / "models", tmp_path / "key"
    models.mkdir()
    make_calibrated_bundle(models)
    write_random_key(key_file)
    async with AsyncExitStack() as stack:
        settings = {"feedback_key_file": key_file, "feedback_redis_url": server.url}
        yield [await stack.enter_async_context(running_app(models, **settings)) for _ in range(2)]


async def ask(client: httpx.AsyncClient, n: int) -> list[str]:
    pixels = b"".join(item.tobytes() for item in examples(9, n).items)
    answer = await client.post(
        f"/v1/models/{NAME}:confidence", content=pixels, headers={**OCTETS, "x-tensor-shape": f"{n},4,4"}
    )
    return [result["prediction_id"] for result in answer.json()["results"]]


async def feed(client: httpx.AsyncClient, prediction_id: str) -> httpx.Response:
    return await client.post(f"/v1/models/{NAME}:feedback", json={"prediction_id": prediction_id, "label": 1})


async def test_feedback_counts_once_over_replicas(replicas: list[httpx.AsyncClient]) -> None:
    one, other = replicas
    for prediction_id in await ask(one, 3):
        assert (await feed(other, prediction_id)).status_code == 200
        for again in (one, other):
            assert_problem(await feed(again, prediction_id), 409)


async def test_what_cannot_be_counted_leaves_the_right_label_welcome(
    replicas: list[httpx.AsyncClient],
) -> None:
    one, other = replicas
    (prediction_id,) = await ask(one, 1)
    wrong = {"prediction_id": prediction_id, "label": "no such label"}
    assert_problem(await one.post(f"/v1/models/{NAME}:feedback", json=wrong), 400)
    assert (await feed(other, prediction_id)).status_code == 200


async def test_while_redis_is_away_feedback_counts_and_each_process_refuses_its_own_repeats(
    server: Server, replicas: list[httpx.AsyncClient], caplog: pytest.LogCaptureFixture
) -> None:
    one, other = replicas
    ids = await ask(one, 4)
    server.kill()
    for prediction_id in ids[:2]:
        assert (await feed(one, prediction_id)).status_code == 200
        assert_problem(await feed(one, prediction_id), 409)
        assert (await feed(other, prediction_id)).status_code == 200
    assert caplog.text.count("Redis fails") == 2  # once for each replica
    server.start()
    with caplog.at_level("INFO"):
        assert (await feed(one, ids[2])).status_code == 200
    assert "Redis answers again" in caplog.text
    assert_problem(await feed(other, ids[2]), 409)


async def test_what_was_claimed_is_forgotten_when_its_id_is_too_old(server: Server) -> None:
    once = Once(server.url, max_age_s=1)
    assert await once.claim(b"nonce")
    assert not await once.claim(b"nonce")
    assert await once.claim(b"other")
    time.sleep(1.2)
    assert await once.claim(b"nonce")
    await once.stop()
