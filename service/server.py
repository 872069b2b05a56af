"""One process that serves: it takes the address, loads the models, and stops without losing a request."""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from fastapi import FastAPI

from service.app import create_app
from service.metrics import Metrics
from service.registry import load_registry
from service.settings import Settings

logger = logging.getLogger(__name__)

# A supervisor may signal a whole group, and the parent pass its own signal on: both are one request to stop.
_SAME_SIGNAL_S = 1.0
# How long the requests of connections that were accepted last may take to arrive.
_LAST_ARRIVALS_S = 0.3


class DrainingServer(uvicorn.Server):
    """A server that on SIGTERM tells load balancers first, and exits with 0.

    `/readyz` answers 503 at once, while requests are served for the drain delay; then the port closes and
    what is in flight is finished. A second signal a second or more later, or Ctrl-C, skips the delay.
    """

    def __init__(self, config: uvicorn.Config, app: FastAPI, drain_delay_s: float) -> None:
        super().__init__(config)
        self._app = app
        self._drain_delay_s = drain_delay_s
        self._stop_at_s = math.inf  # time.monotonic()
        self._began_s = -math.inf
        self._told = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain. Overrides uvicorn's, which would raise the signal again and exit non-zero.

        A signal may interrupt this thread while it holds the lock of a log handler or a metric, so nothing
        is logged or counted here.
        """
        if sig == signal.SIGINT and self.should_exit:
            self.force_exit = True
        elif sig == signal.SIGTERM and time.monotonic() < self._began_s + _SAME_SIGNAL_S:
            return
        elif self._app.state.draining or sig == signal.SIGINT or not self.started:
            self.should_exit = True
        else:
            self._began_s = time.monotonic()
            self._stop_at_s = time.monotonic() + self._drain_delay_s
        self._app.state.draining = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen, and say where."""
        await super().startup(sockets)
        for listener in sockets or []:
            host, port = listener.getsockname()[:2]
            logger.info("listening on http://%s:%s", f"[{host}]" if ":" in host else host, port)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the port, answer those who came just before that, and let uvicorn finish the rest."""
        if self._stop_at_s < math.inf:
            for server in self.servers:
                server.close()
            # uvicorn cuts every connection that has no request yet, also one that is a moment old.
            await asyncio.sleep(_LAST_ARRIVALS_S)
        await super().shutdown(sockets)

    async def on_tick(self, counter: int) -> bool:
        """Tell uvicorn, which asks ten times a second, whether to exit."""
        if self._stop_at_s < math.inf and not self._told:
            self._told = True
            logger.info("draining for %g s", self._drain_delay_s)
            self._app.state.metrics.draining.set(1)
        if time.monotonic() >= self._stop_at_s:
            self.should_exit = True
        return bool(await super().on_tick(counter))


def bind(settings: Settings) -> socket.socket:
    """Take the address, so that a conflict shows before the models are loaded; listening comes later.

    Raises:
        OSError: the address is taken or not this machine's.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise OSError(f"cannot listen on {settings.host}:{settings.port}: {error.strerror}") from error
    return listener


def run_worker(settings: Settings, listener: socket.socket) -> None:
    """Load the models, listen, and serve in this process until a signal.

    Raises:
        BundleError: a bundle cannot be served.
    """
    metrics = Metrics()
    registry = load_registry(settings, metrics)
    app = create_app(settings, registry, metrics)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=math.ceil(_longest_request_s(settings)),
    )
    DrainingServer(config, app, settings.drain_delay_s).run(sockets=[listener])


@contextmanager
def leaving_on_signals() -> Iterator[None]:
    """Exit at once and with 0 on SIGTERM and Ctrl-C, until a server takes the signals over.

    The first process of a container would otherwise ignore SIGTERM while its models load.
    """
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda *_: sys.exit(0)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def longest_stop_s(settings: Settings) -> float:
    """Return how long a process may take from SIGTERM to its end."""
    return settings.drain_delay_s + _longest_request_s(settings) + 5.0


def _longest_request_s(settings: Settings) -> float:
    """A request is in flight no longer than its body may take to come, and its answer to be ready."""
    return settings.body_timeout_s + settings.deadline_ms / 1e3
