"""Fixtures that several test folders use."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.app import create_app
from service.metrics import Metrics
from service.registry import load_registry
from service.settings import Settings
from tests import tiny

ROOT = Path(__file__).parent.parent


@pytest.fixture
def anyio_backend() -> str:
    """Run asynchronous tests on asyncio, as the service does."""
    return "asyncio"


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository with tiny-image 1 and 2, and tiny-audio 1. Tests must not change it."""
    folder = tmp_path_factory.mktemp("models")
    tiny.make_image_bundle(folder, version=1)
    tiny.make_image_bundle(folder, version=2)
    tiny.make_audio_bundle(folder)
    return folder


@asynccontextmanager
async def running_app(
    repository: Path, *, front: bool = True, **settings: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """Run the application in this process; yield a client whose `app` attribute is the application."""
    chosen = Settings(models=repository, threads=2, **settings)
    metrics = Metrics()
    app = create_app(chosen, load_registry(chosen, metrics), metrics, front=front)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://octet") as client:
            client.app = app  # type: ignore[attr-defined]
            yield client


@pytest.fixture(params=[True, False], ids=["front", "routes"])
async def client(repository: Path, request: pytest.FixtureRequest) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application in this process, through the front and through FastAPI's own routes."""
    async with running_app(repository, front=request.param) as client:
        yield client


@dataclass
class LiveServer:
    """A `python -m service` of its own process."""

    process: subprocess.Popen[str]
    log: list[str] = field(default_factory=list)
    url: str = ""

    def wait_for(self, pattern: str, timeout_s: float = 30) -> re.Match[str]:
        """Wait until a log line matches."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            for line in list(self.log):
                if match := re.search(pattern, line):
                    return match
            if self.process.poll() is not None and not self._reader.is_alive():
                break
            time.sleep(0.02)
        raise AssertionError(f"no log line matches {pattern!r}:\n" + "".join(self.log))

    def read_log(self) -> None:
        """Collect the log until the process ends."""
        self._reader = threading.Thread(target=self._collect, daemon=True)
        self._reader.start()

    def _collect(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
        self.process.stderr.close()


@contextmanager
def running_service(
    *arguments: str, environment: dict[str, str] | None = None, wait: bool = True
) -> Iterator[LiveServer]:
    """Start `python -m service` on a free port; stop it at the end, whatever happened."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("OCTET_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "service", "--port", "0", *arguments],
        cwd=ROOT,
        env={**clean, **(environment or {})},
        stderr=subprocess.PIPE,
        text=True,
    )
    server = LiveServer(process)
    server.read_log()
    try:
        if wait:
            server.url = server.wait_for(r"listening on (http://[^\s\"]+)")[1]
        yield server
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        server._reader.join(timeout=10)


@pytest.fixture
def start_service() -> Iterator[Callable[..., LiveServer]]:
    """A function that starts a service as `running_service`; all are stopped after the test."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        yield lambda *arguments, **options: stack.enter_context(running_service(*arguments, **options))
