"""The coordinator: has all workers make a change of what is served, one change after the other.

It is the supervisor's side of `service.commands`. A change is answered when every worker that lives has made
it; one that dies meanwhile is not waited for, and one that takes its place makes it too.
"""

from __future__ import annotations

import logging
import selectors
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bundle.errors import ServingError
from service.commands import Channel, Command, Message
from service.errors import DeadlineError, ModelLoadError

logger = logging.getLogger(__name__)


@dataclass
class _Turn:
    """A command, from when it is asked for until it is answered.

    Attributes:
        asker: whom to answer and the number of its question; None for nobody.
        waiting: the workers that have not done it yet.
        errors: of each that could not: kind and text.
    """

    command: Message
    asker: tuple[Channel, int] | None
    number: int = 0
    ends_s: float = 0.0
    waiting: set[Channel] = field(default_factory=set)
    results: list[Any] = field(default_factory=list)
    errors: list[tuple[str, str]] = field(default_factory=list)


class Coordinator:
    """Passes commands on to the workers, and their answers back.

    Args:
        commit: makes last what every worker has done; where it cannot, that is undone.
        timeout_s: how long the workers may take for one command.

    Attributes:
        standing: what a worker that takes another's place should serve; None before any has told.
    """

    def __init__(self, commit: Callable[[Command], None], timeout_s: float) -> None:
        self._commit = commit
        self._timeout_s = timeout_s
        self._selector = selectors.DefaultSelector()
        self._channels: set[Channel] = set()
        self._queue: deque[_Turn] = deque()
        self._turn: _Turn | None = None
        self._number = 0
        self.standing: Message | None = None

    def fileno(self) -> int:
        """Tell which file descriptor has news while a worker has said something, for a selector."""
        return self._selector.fileno()

    def join(self, channel: Channel) -> None:
        """Take in a worker."""
        self._channels.add(channel)
        self._selector.register(channel, selectors.EVENT_READ)
        if self._turn is not None:
            self._send(self._turn, channel)

    def leave(self, channel: Channel) -> None:
        """Wait no more for a worker."""
        if channel in self._channels:
            self._channels.remove(channel)
            self._selector.unregister(channel)
            if self._turn is not None:
                self._turn.waiting.discard(channel)
            channel.close()

    def work(self) -> None:
        """Do what there is to do; call it at least every moment."""
        for key, _ in self._selector.select(0):
            assert isinstance(key.fileobj, Channel)
            messages = key.fileobj.receive()
            if messages is None:
                self.leave(key.fileobj)
            for message in messages or ():
                self._take(message, key.fileobj)
        for channel in self._channels:
            channel.flush()
        turn = self._turn
        if turn is not None and turn.waiting and time.monotonic() > turn.ends_s:
            text = f"{len(turn.waiting)} of {len(self._channels)} workers did not do this within"
            turn.errors.append(
                (DeadlineError.__name__, f"{text} {self._timeout_s:g} s; they may do it later")
            )
            turn.waiting.clear()
        if turn is not None and not turn.waiting:
            self._finish(turn)
        if self._turn is None and self._queue:
            self._begin(self._queue.popleft())

    def close(self) -> None:
        """Let every worker know that nothing more will come."""
        for channel in list(self._channels):
            self.leave(channel)
        self._selector.close()

    def _take(self, message: Message, channel: Channel) -> None:
        if "ask" in message:
            self._queue.append(_Turn(message["command"], (channel, message["ask"])))
        elif "standing" in message:
            self.standing = message["standing"]
        elif self._turn is not None and message["done"] == self._turn.number:  # else it comes too late
            self._turn.waiting.discard(channel)
            if "error" in message:
                kind, text = message["error"]
                self._turn.errors.append((kind, text))
            else:
                self._turn.results.append(message["result"])

    def _begin(self, turn: _Turn) -> None:
        self._turn = turn
        self._number += 1
        turn.number = self._number
        turn.ends_s = time.monotonic() + self._timeout_s
        for channel in self._channels:
            self._send(turn, channel)

    def _send(self, turn: _Turn, channel: Channel) -> None:
        turn.waiting.add(channel)
        channel.send({"do": turn.number, "command": turn.command})

    def _finish(self, turn: _Turn) -> None:
        self._turn = None
        command = Command.model_validate(turn.command)
        if not turn.errors:
            try:
                self._commit(command)
            except ServingError as error:
                turn.errors.append((ModelLoadError.__name__, str(error)))
        if command.kind == "serve":
            # What is written now is the truth. It may not be what was commanded, and who follows the
            # repository may have gone back to what was written before.
            follow = Command(kind="follow", name=command.name).model_dump(mode="json")
            self._queue.appendleft(_Turn(follow, turn.asker, errors=turn.errors))
        elif turn.asker is not None:
            channel, number = turn.asker
            outcome = {"error": turn.errors[0]} if turn.errors else {"results": turn.results}
            if channel in self._channels:
                channel.send({"answer": number, **outcome})
