"""How a change of what is served gets from the worker that was asked for it to all workers.

A pair of sockets leads from the supervisor to each worker. A worker passes on what it is asked; the
supervisor has all of them do it, one command after the other, and answers when they have. The messages are
JSON, one a line. This is the workers' side of it; `service.coordinator` is the supervisor's.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Literal

from bundle.media import Frozen
from bundle.serving import Serving
from service.errors import (
    DeadlineError,
    ModelControlError,
    ModelLoadError,
    ModelNotReadyError,
    ServiceError,
    UnknownModelError,
)
from service.standing import Standing

logger = logging.getLogger(__name__)

Message = dict[str, Any]
# What may go wrong with a command, by the name under which it travels.
_ERRORS: dict[str, type[ServiceError]] = {
    error.__name__: error
    for error in (DeadlineError, ModelControlError, ModelLoadError, ModelNotReadyError, UnknownModelError)
}


class Command(Frozen):
    """What every worker should do.

    Attributes:
        kind: "load" and "unload" a model, "serve" it as `serving` says, have it "follow" the repository; or
            "report" what is named.
    """

    kind: Literal["load", "unload", "serve", "follow", "report"]
    name: str
    serving: Serving | None = None


class Channel:
    """One end of a pair of sockets that carries messages; neither reading nor sending ever waits."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._unread = b""
        self._unsent = b""
        end.setblocking(False)

    def fileno(self) -> int:
        """Tell which file descriptor has news."""
        return self._end.fileno()

    def send(self, message: Message) -> None:
        """Send a message now, or with the next `flush` for which there is room."""
        self._unsent += json.dumps(message).encode() + b"\n"
        self.flush()

    def flush(self) -> None:
        """Send what there was no room for."""
        with suppress(OSError):  # there is none yet, or the other side has gone, which reading shows
            while self._unsent:
                self._unsent = self._unsent[self._end.send(self._unsent) :]

    def receive(self) -> list[Message] | None:
        """Return the messages that have come, or None when no more will."""
        try:
            while said := self._end.recv(65536):
                self._unread += said
        except BlockingIOError:
            *lines, self._unread = self._unread.split(b"\n")
            return [json.loads(line) for line in lines]
        except OSError:
            pass
        return None

    def close(self) -> None:
        """Say that no more will come."""
        self._end.close()


class Link:
    """A worker's way to the supervisor and, through it, to all workers, itself included.

    Args:
        channel: to the supervisor.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[list[Any]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._apply: Callable[[Command], Awaitable[Any]] | None = None

    def open(self, apply: Callable[[Command], Awaitable[Any]]) -> None:
        """Begin to do what is commanded. Call it on the event loop.

        Args:
            apply: does it in this process; what it returns must have a form in JSON.
        """
        self._apply = apply
        asyncio.get_running_loop().add_reader(self._channel.fileno(), self._receive)

    def close(self) -> None:
        """End; whoever still waits is told so."""
        if self._apply is not None:
            asyncio.get_running_loop().remove_reader(self._channel.fileno())
            self._apply = None
        self._channel.close()
        for future in self._asked.values():
            if not future.done():
                future.set_exception(ModelControlError("this server is about to stop"))

    def tell_standing(self, standing: Standing) -> None:
        """Tell the supervisor what a worker that takes another's place should serve."""
        self._channel.send({"standing": standing.model_dump(mode="json")})

    async def ask(self, command: Command) -> list[Any]:
        """Have all workers do something; return what each gave when all have.

        Raises:
            ServiceError: one could not, or did not in time.
        """
        number = next(self._numbers)
        future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._asked[number] = future
        try:
            self._channel.send({"ask": number, "command": command.model_dump(mode="json")})
            return await future
        finally:
            del self._asked[number]

    def _receive(self) -> None:
        messages = self._channel.receive()
        if messages is None:
            self.close()
            return
        self._channel.flush()
        for message in messages:
            if "do" in message:
                task = asyncio.ensure_future(self._do(message))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            elif (future := self._asked.get(message["answer"])) is not None and not future.done():
                if "error" in message:
                    kind, text = message["error"]
                    future.set_exception(_ERRORS.get(kind, ModelLoadError)(text))
                else:
                    future.set_result(message["results"])

    async def _do(self, message: Message) -> None:
        done: Message = {"done": message["do"]}
        try:
            assert self._apply is not None
            done["result"] = await self._apply(Command.model_validate(message["command"]))
        except ServiceError as error:
            done["error"] = [type(error).__name__, str(error)]
        except Exception as error:
            logger.exception("a command failed")
            done["error"] = ["", f"a worker failed: {error}"]
        self._channel.send(done)
