"""How connections get from the supervisor, which accepts them, to the workers, which answer on them.

Left to the kernel, one worker may get all the connections that live long. So the supervisor gives each new
one to the worker that has the fewest open, as a file descriptor over a pair of Unix sockets. Over the same
pair the worker says when it is ready, when it has taken a connection and when one has ended. Until it has
taken one the supervisor keeps it too, so that nothing is lost with a worker that dies.
"""

from __future__ import annotations

import socket
import time
from collections import deque
from contextlib import suppress

_READY, _TAKEN, _ENDED, _CONNECTION = b"r", b"t", b"e", b"c"
# A worker that leaves a connection lying for so long hangs; a turn of its event loop is far shorter.
_HANGS_S = 0.1
# A worker that has left so many connections lying gets no more; the pair itself holds some two hundred.
_MOST_UNTAKEN = 64


class Dispatch:
    """The supervisor's side of one worker's pair.

    Attributes:
        ready: whether the worker has said that it serves.
        open: connections that it has.
        given: connections that it ever got.
    """

    def __init__(self) -> None:
        self._channel, self.worker_end = socket.socketpair()
        self._channel.setblocking(False)
        self.ready = False
        self.open = 0
        self.given = 0
        self._untaken: deque[tuple[socket.socket, float]] = deque()

    def fileno(self) -> int:
        """Tell which file descriptor has news, for a selector."""
        return self._channel.fileno()

    @property
    def hangs(self) -> bool:
        """Whether the worker has left a connection lying for long."""
        return bool(self._untaken) and time.monotonic() > self._untaken[0][1] + _HANGS_S

    @property
    def full(self) -> bool:
        """Whether the worker has left so many connections lying that it should get no more."""
        return len(self._untaken) >= _MOST_UNTAKEN

    def give(self, connection: socket.socket) -> bool:
        """Hand over an accepted connection; return whether the worker can have it."""
        try:
            socket.send_fds(self._channel, [_CONNECTION], [connection.fileno()])
        except OSError:  # it has died, or has not looked for a long time
            return False
        self._untaken.append((connection, time.monotonic()))
        self.open += 1
        self.given += 1
        return True

    def read_news(self) -> bool:
        """Take in what the worker said; return whether it may still say more."""
        try:
            said = self._channel.recv(4096)
        except BlockingIOError:
            return True
        except OSError:
            said = b""
        self.ready = (self.ready or _READY in said) and said != b""
        for _ in range(said.count(_TAKEN)):
            self._untaken.popleft()[0].close()
        self.open -= said.count(_ENDED)
        return said != b""

    def take_back(self) -> list[socket.socket]:
        """Return the connections that a worker that has died never took."""
        connections = [connection for connection, _ in self._untaken]
        self._untaken.clear()
        return connections

    def close(self) -> None:
        """Let the worker know that nothing more will come."""
        for connection in self.take_back():
            connection.close()
        self._channel.close()
        self.worker_end.close()


class Intake:
    """The worker's side of its pair.

    Args:
        channel: the `worker_end`.
    """

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._unsaid = b""
        channel.setblocking(False)

    def fileno(self) -> int:
        """Tell which file descriptor to watch."""
        return self._channel.fileno()

    def announce(self) -> None:
        """Say that connections are welcome."""
        self._say(_READY)

    def ended(self) -> None:
        """Say that one has ended."""
        self._say(_ENDED)

    def take(self) -> list[socket.socket] | None:
        """Return the connections that have come, or None when no more will."""
        connections: list[socket.socket] = []
        while True:
            try:
                said, descriptors, _, _ = socket.recv_fds(self._channel, 1, 1)
            except BlockingIOError:
                return connections
            except OSError:
                said, descriptors = b"", []
            if not said:
                return connections or None
            self._say(
                _TAKEN if descriptors else _TAKEN + _ENDED
            )  # it is lost where there are too many open files
            connections += [socket.socket(fileno=descriptor) for descriptor in descriptors]

    def catch_up(self) -> None:
        """Say what there was no room for, while the supervisor looked away; call it now and then."""
        self._say(b"")

    def _say(self, word: bytes) -> None:
        self._unsaid += word
        with suppress(OSError):  # there is no room, or the supervisor has gone, which shows elsewhere
            self._unsaid = self._unsaid[self._channel.send(self._unsaid) :]
