"""Calls at a fixed rate, whether or not the answers keep up: what is late shows, and slows nothing down.

Connections of HTTP/1.1 are kept and used again, and nothing is tried twice: whatever the front loses is seen.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

_PATIENCE_S = 30.0

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True)
class Outcome:
    """How one call ended.

    Attributes:
        seconds: from when it was due to its answer or failure.
        failure: a status other than 200, or what went wrong on the way; empty for an answer.
        version: of the model that answered.
    """

    due_s: float
    seconds: float
    failure: str
    version: str = ""


class Load:
    """Calls `:predict` in a thread of its own, from the start of a `with` block to its end.

    Args:
        port: of this machine, with TLS.
        certificate: file of what to trust.
        key: the API key that it sends.
    """

    def __init__(self, port: int, path: str, body: bytes, certificate: str, *, key: str, rate: float) -> None:
        self.outcomes: list[Outcome] = []
        self._port, self._rate = port, rate
        self._request = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
            f"Authorization: Bearer {key}\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode() + body
        self._trusted = ssl.create_default_context(cafile=certificate)
        self._idle: list[Connection] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._call_on()))

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def failures(self) -> list[Outcome]:
        """The calls that got no answer, or another than 200."""
        return [outcome for outcome in self.outcomes if outcome.failure]

    @property
    def slowest_s(self) -> float:
        """The longest that a call took."""
        return max(outcome.seconds for outcome in self.outcomes)

    def __str__(self) -> str:
        """What a report says of it."""
        times_ms = sorted(outcome.seconds * 1e3 for outcome in self.outcomes)
        median_ms, p99_ms = (times_ms[int(len(times_ms) * share)] for share in (0.5, 0.99))
        return (
            f"{len(times_ms)} calls, {len(self.failures)} failed, median {median_ms:.1f} ms, "
            f"p99 {p99_ms:.0f} ms, slowest {times_ms[-1]:.0f} ms"
        )

    async def _call_on(self) -> None:
        async with asyncio.TaskGroup() as calls:
            began_s = time.monotonic()
            number = 0
            while not self._stop.is_set():
                due_s = began_s + number / self._rate
                if (wait_s := due_s - time.monotonic()) > 0:
                    await asyncio.sleep(wait_s)
                calls.create_task(self._call(due_s))
                number += 1
        for _, writer in self._idle:
            await _end(writer)

    async def _call(self, due_s: float) -> None:
        failure = version = ""
        try:
            async with asyncio.timeout(_PATIENCE_S):
                status, content = await self._exchange()
            if status == 200:
                version = json.loads(content)["version"]
            else:
                failure = f"{status} {content[:200]!r}"
        except (OSError, EOFError, TimeoutError) as error:
            failure = repr(error)
        self.outcomes.append(Outcome(due_s, time.monotonic() - due_s, failure, version))

    async def _exchange(self) -> tuple[int, bytes]:
        reader, writer = await self._connection()
        kept = False
        try:
            writer.write(self._request)
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            length = int(head.partition("content-length:")[2].partition("\r\n")[0])
            content = await reader.readexactly(length)
            kept = "connection: close" not in head
        finally:
            if kept:
                self._idle.append((reader, writer))
            else:
                await _end(writer)
        return int(head.split(" ", 2)[1]), content

    async def _connection(self) -> Connection:
        """A kept connection that the front has not closed, or a new one."""
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof():
                return reader, writer
            await _end(writer)
        return await asyncio.open_connection(
            "127.0.0.1", self._port, ssl=self._trusted, server_hostname="localhost"
        )


async def _end(writer: asyncio.StreamWriter) -> None:
    """Close a connection without waiting for the other side's goodbye."""
    writer.transport.abort()
    with suppress(OSError):
        await writer.wait_closed()
