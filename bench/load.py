"""The load: many keep-alive connections over loopback, in a closed or an open loop.

Closed: every connection sends its next request when the answer is there, so the rate is what the server
can do. Open: requests fall due at a fixed rate whatever the server does, and each latency counts from the
moment its request was due, so that a server that stalls cannot hide it (coordinated omission).

It is one thread of Python with no HTTP parser in the way. It shares the processors with the server, as any
load generator on one machine does; its own cost is reported with every result.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import uvloop
from numpy.typing import NDArray

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_TICK_S = 0.0005


@dataclass(frozen=True)
class Load:
    """What came of one load.

    Attributes:
        seconds: how long was measured.
        latencies_s: (n,) float64, of every request that was answered with 200, in the order of the answers.
        refusals_s: (m,) float64, of every other answer.
        statuses: HTTP status -> answers.
        broken: connections that the server closed or refused.
        retried: requests that were sent again on a new connection after their first one broke.
        generator_cpu_s: processor time that the load itself took.
    """

    seconds: float
    latencies_s: NDArray[np.float64]
    refusals_s: NDArray[np.float64]
    statuses: dict[int, int]
    broken: int
    retried: int
    generator_cpu_s: float

    @property
    def per_s(self) -> float:
        """Answers with status 200 a second."""
        return self.statuses.get(200, 0) / self.seconds

    def latency_ms(self, quantile: float) -> float:
        """Return a quantile of the latencies in milliseconds; infinite where nothing was answered."""
        return float(np.quantile(self.latencies_s, quantile)) * 1e3 if len(self.latencies_s) else np.inf


def closed_loop(
    port: int,
    requests: Sequence[bytes],
    connections: int,
    seconds: float,
    warm_up_s: float = 0.5,
    look: Callable[[], None] | None = None,
) -> Load:
    """Keep every connection busy for some time.

    Args:
        requests: whole HTTP requests, sent in turn.
        warm_up_s: before the measurement starts.
        look: called when it ends, while all connections are open.
    """
    return uvloop.run(_Closed(port, requests).run(connections, seconds, warm_up_s, look))


def open_loop(
    port: int, requests: Sequence[bytes], per_s: float, seconds: float, connections: int = 256
) -> Load:
    """Send requests at a fixed rate.

    Args:
        per_s: requests that fall due each second, evenly spaced.
        connections: most requests in flight; what is due beyond them waits, and its latency counts the wait.
    """
    return uvloop.run(_Open(port, requests).run(per_s, seconds, connections))


@dataclass
class _Tally:
    """What is being counted; nothing is before `start`."""

    latencies_s: list[float] = field(default_factory=list)
    refusals_s: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    broken: int = 0
    retried: int = 0
    counting: bool = False

    def answer(self, status: int, latency_s: float) -> None:
        if self.counting:
            (self.latencies_s if status == 200 else self.refusals_s).append(latency_s)
            self.statuses[status] += 1


class _Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request on its way."""

    def __init__(self, load: _Closed | _Open) -> None:
        self._load = load
        self.transport: asyncio.Transport | None = None
        self.due_s = 0.0
        self.request: bytes | None = None
        self._buffer = b""
        self._missing = -1  # bytes of the body still to come; -1 before the head is whole, -2 when chunked
        self._status = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def send(self, request: bytes, due_s: float) -> None:
        assert self.transport is not None
        self.request, self.due_s = request, due_s
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        if self._missing == -1:
            data = self._buffer + data
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._buffer = data
                return
            self._status = int(data[9:12])
            if match := _LENGTH.search(data, 0, end):
                self._missing = int(match[1])
            else:
                self._missing = -2 if _CHUNKED.search(data, 0, end) else 0
            data = data[end + 4 :]
            self._buffer = b""
        if self._missing == -2:
            self._buffer = (self._buffer + data)[-5:]
            if self._buffer != b"0\r\n\r\n":
                return
            self._buffer = b""
        else:
            self._missing -= len(data)
            if self._missing > 0:
                return
        self._missing = -1
        self.request = None
        self._load.answered(self, self._status, time.perf_counter() - self.due_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.lost(self)


class _Closed:
    def __init__(self, port: int, requests: Sequence[bytes]) -> None:
        self._port = port
        self._requests = itertools.cycle(requests)
        self._tally = _Tally()
        self._over = False
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(
        self, connections: int, seconds: float, warm_up_s: float, look: Callable[[], None] | None
    ) -> Load:
        for _ in range(connections):
            await self._connect(next(self._requests))
        await asyncio.sleep(warm_up_s)
        self._tally.counting = True
        began_s, cpu_s = time.perf_counter(), time.process_time()
        await asyncio.sleep(seconds)
        self._tally.counting, self._over = False, True
        load = _load(self._tally, time.perf_counter() - began_s, time.process_time() - cpu_s)
        if look is not None:
            look()
        await _hang_up(self._connections)
        return load

    async def _connect(self, request: bytes, due_s: float | None = None) -> None:
        connection = await _open(self, self._port)
        self._connections.add(connection)
        connection.send(request, due_s or time.perf_counter())

    def answered(self, connection: _Connection, status: int, latency_s: float) -> None:
        self._tally.answer(status, latency_s)
        if not self._over and connection.transport is not None and not connection.transport.is_closing():
            connection.send(next(self._requests), time.perf_counter())

    def lost(self, connection: _Connection) -> None:
        """Open another, and send there what was not answered, as a client that retries does."""
        self._connections.discard(connection)
        if self._over:
            return
        self._tally.broken += 1
        self._tally.retried += connection.request is not None
        again = connection.request or next(self._requests)
        due_s = connection.due_s if connection.request else None
        task = asyncio.ensure_future(self._connect(again, due_s))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Open:
    def __init__(self, port: int, requests: Sequence[bytes]) -> None:
        self._port = port
        self._requests = itertools.cycle(requests)
        self._tally = _Tally(counting=True)
        self._connections: set[_Connection] = set()
        self._free: deque[_Connection] = deque()
        self._due_s: deque[float] = deque()
        self._over = False

    async def run(self, per_s: float, seconds: float, connections: int) -> Load:
        for _ in range(connections):
            self._free.append(await _open(self, self._port))
        self._connections.update(self._free)
        began_s, cpu_s = time.perf_counter(), time.process_time()
        sent = 0
        while (now_s := time.perf_counter() - began_s) < seconds:
            while sent / per_s <= now_s:
                self._due_s.append(began_s + sent / per_s)
                sent += 1
            self._send_due()
            await asyncio.sleep(_TICK_S)
        while sum(self._tally.statuses.values()) + self._tally.broken < sent and now_s < 2 * seconds + 5:
            await asyncio.sleep(0.01)  # what is still on its way counts too
            now_s = time.perf_counter() - began_s
        self._over = True
        load = _load(self._tally, now_s, time.process_time() - cpu_s)
        await _hang_up(self._connections)
        return load

    def _send_due(self) -> None:
        while self._due_s and self._free:
            self._free.popleft().send(next(self._requests), self._due_s.popleft())

    def answered(self, connection: _Connection, status: int, latency_s: float) -> None:
        self._tally.answer(status, latency_s)
        self._free.append(connection)
        self._send_due()

    def lost(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        if not self._over:
            self._tally.broken += 1
            if connection in self._free:
                self._free.remove(connection)


async def _open(load: _Closed | _Open, port: int) -> _Connection:
    """Connect, however often it takes; a listener's backlog may be full for a moment."""
    for attempt in itertools.count():
        try:
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: _Connection(load), "127.0.0.1", port
            )
        except OSError:
            if attempt >= 200:
                raise
            await asyncio.sleep(0.02)
        else:
            return connection
    raise AssertionError


async def _hang_up(connections: set[_Connection]) -> None:
    while connections:  # one may just be opening
        for connection in list(connections):
            if connection.transport is not None:
                connection.transport.abort()
        await asyncio.sleep(0.001)


def _load(tally: _Tally, seconds: float, cpu_s: float) -> Load:
    return Load(
        seconds=seconds,
        latencies_s=np.array(tally.latencies_s),
        refusals_s=np.array(tally.refusals_s),
        statuses=dict(tally.statuses),
        broken=tally.broken,
        retried=tally.retried,
        generator_cpu_s=cpu_s,
    )
