"""Fixtures that several test folders use."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from service.app import create_app
from service.metrics import Metrics
from service.registry import load_registry
from service.server import uvicorn_config
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
    repository: Path, *, lane: bool = True, threads: int = 2, **settings: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """Run the application in this process; yield a client.

    Its `app` attribute is the application, and `path` that of the socket, where there is one.

    Args:
        lane: over a socket, as the service does it; otherwise through the application's routes alone.
        threads: with one, quick batches run on the event loop.
    """
    chosen = Settings(models=repository, threads=threads, **settings)
    metrics = Metrics()
    app = create_app(chosen, load_registry(chosen, metrics), metrics)
    async with client_of(app, lane=lane) as client:
        yield client


@asynccontextmanager
async def client_of(app: FastAPI, *, lane: bool) -> AsyncIterator[httpx.AsyncClient]:
    """Run an application and yield its client, as `running_app`."""
    if lane:
        async with serving(app) as path:
            transport = httpx.AsyncHTTPTransport(uds=path)
            async with httpx.AsyncClient(transport=transport, base_url="http://octet", timeout=60) as client:
                client.app, client.path = app, path  # type: ignore[attr-defined]
                yield client
    else:
        async with app.router.lifespan_context(app):
            inside = httpx.ASGITransport(app=app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=inside, base_url="http://octet") as client:
                client.app = app  # type: ignore[attr-defined]
                yield client


@asynccontextmanager
async def serving(app: FastAPI, config: uvicorn.Config | None = None) -> AsyncIterator[str]:
    """Serve an application on the running event loop, on a Unix socket of its own; yield its path."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{folder}/socket")
        server = uvicorn.Server(config or uvicorn_config(app))
        server.capture_signals = nullcontext  # type: ignore[method-assign]  # they are pytest's
        task = asyncio.create_task(server.serve([listener]))
        while not server.started:
            await asyncio.sleep(0.001)
        try:
            yield f"{folder}/socket"
        finally:
            server.should_exit = server.force_exit = True  # it does not wait for connections that are open
            await task
            await server.lifespan.shutdown()


@pytest.fixture(params=[True, False], ids=["lane", "routes"])
async def client(repository: Path, request: pytest.FixtureRequest) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application in this process, through the lane and through FastAPI's routes alone."""
    async with running_app(repository, lane=request.param) as client:
        yield client


@pytest.fixture(scope="session", autouse=True)
def no_grpc_port() -> Iterator[None]:
    """Nothing in this process takes the port of gRPC, unless a test asks for one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OCTET_GRPC_PORT", "off")
        yield


@pytest.fixture(autouse=True)
def no_handlers_of_others() -> Iterator[None]:
    """A log handler that a test leaves on the root writes to a stream that is closed in the next."""
    root = logging.getLogger()
    before = list(root.handlers)
    yield
    root.handlers = [each for each in root.handlers if each in before]


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
        [sys.executable, "-m", "service", "--port", "0", "--grpc-port", "0", *arguments],
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
