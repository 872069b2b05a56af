"""One process that serves: it takes the address, loads the models, and stops without losing a request."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from types import FrameType

import uvicorn
from fastapi import FastAPI

from service.api.lane import Lane
from service.api.protocol import LaneProtocol
from service.app import create_app
from service.commands import Link
from service.control import Control
from service.cpus import use_one_blas_thread
from service.handover import Intake
from service.lifecycle import Lifecycle
from service.memory import use_one_arena
from service.metrics import Metrics
from service.registry import fill_registry, open_registry
from service.rpc.handlers import Backend
from service.rpc.server import RpcServer, address_of
from service.settings import Settings
from service.standing import Standing

logger = logging.getLogger(__name__)

# A supervisor may signal a whole group, and the parent pass its own signal on: both are one request to stop.
SAME_SIGNAL_S = 1.0
# How long the requests of connections that were accepted last may take to arrive.
_LAST_ARRIVALS_S = 0.3


class DrainingServer(uvicorn.Server):
    """A server that on SIGTERM tells load balancers first, and exits with 0.

    `/readyz` answers 503 at once, while requests are served for the drain delay; then the port closes and
    what is in flight is finished. A second signal a second or more later, or Ctrl-C, skips the delay.

    Args:
        intake: where connections come from when a supervisor accepts them; it also ends the drain delay then,
            by sending no more. None where this process listens itself.
    """

    def __init__(
        self, config: uvicorn.Config, app: FastAPI, drain_delay_s: float, intake: Intake | None = None
    ) -> None:
        super().__init__(config)
        self._app = app
        self._drain_delay_s = drain_delay_s
        self._intake = intake
        self._stop_at_s = math.inf  # time.monotonic()
        self._began_s = math.inf
        self._hasty = False
        self._told = False
        self._adopting: set[asyncio.Task[None]] = set()
        self._rpc: RpcServer | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain. Overrides uvicorn's, which would raise the signal again and exit non-zero.

        A signal may interrupt this thread while it holds the lock of a log handler or a metric, so nothing
        is logged or counted here.
        """
        now_s = time.monotonic()
        if sig == signal.SIGINT and self.should_exit:
            self.force_exit = True
        elif sig == signal.SIGTERM and self._began_s <= now_s < self._began_s + SAME_SIGNAL_S:
            return
        elif self._app.state.draining or sig == signal.SIGINT or not self.started:
            self.should_exit = self._hasty = True
        else:
            self._began_s = now_s
            if self._intake is None:
                self._stop_at_s = now_s + self._drain_delay_s
        self._app.state.draining = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to take connections."""
        await super().startup(sockets)
        await self._start_rpc()
        for listener in sockets or []:
            logger.info("listening on %s", url_of(listener))
        if self._intake is not None:
            asyncio.get_running_loop().add_reader(self._intake.fileno(), self._take_connections)
            self._intake.announce()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the ports, answer those who came just before that, and let uvicorn finish the rest."""
        rpc_stops = asyncio.ensure_future(self._stop_rpc())
        if not self._hasty:
            for server in self.servers:
                server.close()
            # uvicorn cuts every connection that has no request yet, also one that is a moment old.
            await asyncio.sleep(_LAST_ARRIVALS_S)
        await rpc_stops  # it needs what uvicorn's shutdown takes down
        await super().shutdown(sockets)

    async def on_tick(self, counter: int) -> bool:
        """Tell uvicorn, which asks ten times a second, whether to exit."""
        if self._began_s < math.inf and not self._told:
            self._told = True
            logger.info("draining for %g s", self._drain_delay_s)
            self._app.state.metrics.draining.set(1)
        if time.monotonic() >= self._stop_at_s:
            self.should_exit = True
        if self._intake is not None:
            self._intake.catch_up()
        return bool(await super().on_tick(counter))

    async def _start_rpc(self) -> None:
        """Open the port of gRPC, where one is wanted."""
        state = self._app.state
        if state.settings.grpc_port == "off":
            return
        self._rpc = RpcServer(backend_of(self._app))
        await self._rpc.start()
        if self._intake is None:
            logger.info("listening on grpc://%s", address_of(state.settings))

    async def _stop_rpc(self) -> None:
        """Close the port of gRPC, and wait for the calls in flight, unless a second Ctrl-C comes."""
        if self._rpc is None:
            return
        stopping = asyncio.ensure_future(self._rpc.stop(self._app.state.settings.deadline_ms / 1e3))
        while not stopping.done():
            await asyncio.wait({stopping}, timeout=_LAST_ARRIVALS_S)
            if self.force_exit:
                self._rpc.hurry()
        await stopping

    def _take_connections(self) -> None:
        assert self._intake is not None
        connections = self._intake.take()
        if connections is None:
            asyncio.get_running_loop().remove_reader(self._intake.fileno())
            self._app.state.draining = self.should_exit = True
            return
        for connection in connections:
            task = asyncio.ensure_future(self._adopt(connection))
            self._adopting.add(task)
            task.add_done_callback(self._adopting.discard)

    async def _adopt(self, connection: socket.socket) -> None:
        """Serve on a connection that was accepted elsewhere."""
        connection.setblocking(False)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(self._create_protocol, connection)
        except OSError:  # its caller has gone already
            connection.close()
            assert self._intake is not None
            self._intake.ended()

    def _create_protocol(self) -> asyncio.Protocol:
        """Make what uvicorn makes for the connections that it accepts itself."""
        create: Callable[..., asyncio.Protocol] = self.config.http_protocol_class
        return create(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)


def backend_of(app: FastAPI) -> Backend:
    """Return what gRPC answers with: the same as the routes of an application that is running."""
    state = app.state
    return Backend(
        settings=state.settings,
        registry=state.registry,
        ledger=state.ledger,
        decoders=state.decoders,
        control=state.control,
        is_draining=lambda: bool(state.draining),
        keys=state.api_keys,
    )


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


def url_of(listener: socket.socket) -> str:
    """Return the URL of a bound socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run_worker(
    settings: Settings,
    source: socket.socket | Intake,
    link: Link | None = None,
    standing: Standing | None = None,
) -> None:
    """Load the models, and serve in this process until a signal.

    Args:
        source: a bound socket to listen on, or where a supervisor sends connections.
        link: to the other processes; None where there are none.
        standing: what to serve in the place of a process that has died; None for what the repository says.

    Raises:
        BundleError: a bundle cannot be served; never with a `standing`.
    """
    use_one_arena()
    use_one_blas_thread()
    metrics = Metrics()
    registry = open_registry(settings, metrics)
    lifecycle = Lifecycle(settings, registry, metrics)
    app = create_app(settings, registry, metrics, Control(settings, lifecycle, link))
    # What was made so far stays to the end; the garbage collector need not look at it again and again. Models
    # may go.
    gc.collect()
    gc.freeze()
    if standing is None:
        fill_registry(registry, settings, metrics)
    else:
        lifecycle.restore(standing)
    intake = source if isinstance(source, Intake) else None
    app.state.intake = intake
    server = DrainingServer(uvicorn_config(app), app, settings.drain_delay_s, intake)
    with _handling_signals(server.handle_exit):  # the event loop's start must not be torn apart
        server.run(sockets=[] if isinstance(source, Intake) else [source])


def uvicorn_config(app: FastAPI) -> uvicorn.Config:
    """Return how uvicorn serves the application: with the fast lane, and none of its own log lines."""
    return uvicorn.Config(
        app,
        loop="uvloop",
        http=partial(LaneProtocol, Lane(app.state)),  # type: ignore[arg-type]  # it is only called
        proxy_headers=False,
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=math.ceil(app.state.settings.longest_request_s),
    )


def leaving_on_signals() -> AbstractContextManager[None]:
    """Exit at once and with 0 on SIGTERM and Ctrl-C, until a server takes the signals over.

    The first process of a container would otherwise ignore SIGTERM while its models load.
    """
    return _handling_signals(lambda *_: sys.exit(0))


@contextmanager
def _handling_signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, handler) for number in numbers]
    try:
        yield
    finally:
        for number, previous in zip(numbers, before, strict=True):
            signal.signal(number, previous)


def longest_stop_s(settings: Settings) -> float:
    """Return how long a process may take from SIGTERM to its end."""
    # Calls of gRPC end before uvicorn begins to wait for those of HTTP.
    return settings.drain_delay_s + settings.deadline_ms / 1e3 + settings.longest_request_s + 5.0
