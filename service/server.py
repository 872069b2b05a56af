"""One process that serves: it takes the address, loads the models, and stops without losing a request."""

from __future__ import annotations

import logging
import math
import signal
import socket
import time
from types import FrameType

import uvicorn
from fastapi import FastAPI

from service.app import create_app
from service.metrics import Metrics
from service.registry import load_registry
from service.settings import Settings

logger = logging.getLogger(__name__)


class DrainingServer(uvicorn.Server):
    """A server that on SIGTERM tells load balancers first, and exits with 0.

    `/readyz` answers 503 at once, while requests are served for the drain delay; then the port closes and
    what is in flight is finished. A second signal, or Ctrl-C, skips the delay.
    """

    def __init__(self, config: uvicorn.Config, app: FastAPI, drain_delay_s: float) -> None:
        super().__init__(config)
        self._app = app
        self._drain_delay_s = drain_delay_s
        self._stop_at_s = math.inf  # time.monotonic()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain. Overrides uvicorn's, which would raise the signal again and exit non-zero."""
        if sig == signal.SIGINT and self.should_exit:
            self.force_exit = True
        elif self._app.state.draining or sig == signal.SIGINT or not self.started:
            self.should_exit = True
        else:
            logger.info("draining for %g s", self._drain_delay_s)
            self._app.state.metrics.draining.set(1)
            self._stop_at_s = time.monotonic() + self._drain_delay_s
        self._app.state.draining = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen, and say where."""
        await super().startup(sockets)
        for listener in sockets or []:
            host, port = listener.getsockname()[:2]
            logger.info("listening on http://%s:%s", f"[{host}]" if ":" in host else host, port)

    async def on_tick(self, counter: int) -> bool:
        """Tell uvicorn, which asks ten times a second, whether to exit."""
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
        # No request can be in flight for longer than its body may take to come, and its answer to go.
        timeout_graceful_shutdown=math.ceil(settings.body_timeout_s + settings.deadline_ms / 1e3),
    )
    DrainingServer(config, app, settings.drain_delay_s).run(sockets=[listener])
