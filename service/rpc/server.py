"""The gRPC server of one process: which port it has, and how it stops."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import grpc

from service.rpc.answering import InFlight
from service.rpc.handlers import Backend, handlers_of
from service.settings import Settings

# How long calls are still taken, and refused, before the port closes.
_GOODBYE_S = 0.3


class RpcServer:
    """Serves on a port until it is stopped.

    Args:
        backend: what it answers with. Its settings name the port, as `reserving_port` gives them.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._in_flight = InFlight()
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Start to take calls.

        Raises:
            OSError: the port is taken.
        """
        settings = self._backend.settings
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", settings.max_body_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", int(settings.workers > 1)),
            ]
        )
        for service, handlers in handlers_of(self._backend, self._in_flight).items():
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        try:
            server.add_insecure_port(address_of(settings))
        except RuntimeError as error:  # the library logs why
            raise OSError(f"cannot listen on {address_of(settings)} for gRPC") from error
        await server.start()
        self._server = server

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls at once, and close the port when all that are in flight are answered.

        Streams on which nothing is in flight end then, too.

        Args:
            grace_s: calls that take longer are cut.
        """
        if self._server is None:
            return
        server, self._server = self._server, None
        self._in_flight.closed = True
        # A call that the library has not begun to handle when it stops would end as if its caller had
        # cancelled it. So all that come are told to go elsewhere for a moment.
        await asyncio.sleep(min(_GOODBYE_S, grace_s))
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._in_flight.wait_for_none()
        # Only once and without a grace of its own: a second call beside the first one can crash the process.
        await server.stop(None)

    def hurry(self) -> None:
        """Have a stop cut the calls that are in flight now."""
        self._in_flight.forget()


@contextmanager
def reserving_port(settings: Settings) -> Iterator[Settings]:
    """Hold the port of gRPC until the end of the block, and yield settings that name it.

    So a conflict shows before the models are loaded, and several processes can share any free port. The
    library opens the port by itself: no socket can be handed to it.

    Raises:
        OSError: the address is taken or not this machine's.
    """
    if settings.grpc_port == "off":
        yield settings
        return
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as reserved:
        # It never listens, so that others still can.
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            reserved.bind((settings.host, settings.grpc_port))
        except OSError as error:
            address = address_of(settings)
            raise OSError(f"cannot listen on {address} for gRPC: {error.strerror}") from error
        yield settings.model_copy(update={"grpc_port": reserved.getsockname()[1]})


def address_of(settings: Settings) -> str:
    """Return host and port of gRPC."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{host}:{settings.grpc_port}"
