"""A connection on which a test says every byte, on the event loop that the service runs on, too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson

from tests.service.calls import IMAGE
from tests.service.fakes import LIMIT_S

CLOSE = "connection: close"


@dataclass
class Answer:
    """One answer: its status, its headers in lower case, its body."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    informational: list[int] = field(default_factory=list)

    def json(self) -> Any:
        return orjson.loads(self.body)


class Wire:
    """One connection; `send` and `read` as many requests and answers as a test likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    def send(self, *parts: bytes) -> None:
        self._writer.write(b"".join(parts))

    async def say(self, *parts: bytes) -> None:
        """Send each part by itself, and let the service read it before the next."""
        for part in parts:
            self.send(part)
            await settle()

    async def read(self) -> Answer:
        """Read one whole answer."""
        answer = await self._head()
        informational = []
        while answer.status < 200:
            informational.append(answer.status)
            answer = await self._head()
        answer.informational = informational
        async with asyncio.timeout(LIMIT_S):
            answer.body = await self._reader.readexactly(int(answer.headers["content-length"]))
        return answer

    async def rest(self) -> bytes:
        """Read until the service closes the connection."""
        async with asyncio.timeout(LIMIT_S):
            return await self._reader.read()

    async def _head(self) -> Answer:
        async with asyncio.timeout(LIMIT_S):
            text = await self._reader.readuntil(b"\r\n\r\n")
        first, *lines = text.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        headers: dict[str, str] = {}
        for line in lines:
            name, value = line.split(": ", 1)
            assert name not in headers, f"{name} stands twice in {text!r}"
            headers[name.lower()] = value
        version, status, _ = first.split(" ", 2)
        assert version == "HTTP/1.1"
        return Answer(int(status), headers)

    def close(self) -> None:
        self._writer.close()

    def abort(self) -> None:
        """Close without a farewell."""
        self._writer.transport.abort()


@asynccontextmanager
async def wired(client: Any, limit: int = 2**24) -> AsyncIterator[Wire]:
    """Connect to the service that `running_app` or `gated_app` runs with `lane=True`."""
    reader, writer = await asyncio.open_unix_connection(client.path, limit=limit)
    try:
        yield Wire(reader, writer)
    finally:
        writer.transport.abort()


async def settle(turns: int = 20) -> None:
    """Let the event loop deliver what was sent."""
    for _ in range(turns):
        await asyncio.sleep(0)


def request(
    body: bytes = b"",
    *headers: str,
    path: str = IMAGE,
    method: str = "POST",
    version: str = "1.1",
    kind: str = "application/json",
    length: str | None = "",
) -> bytes:
    """Return a whole request as bytes.

    Args:
        kind: the content type; none where empty.
        length: the content length that is said; the true one where empty, and none where None.
    """
    lines: list[str] = [f"{method} {path} HTTP/{version}", "host: octet"]
    lines += [f"content-type: {kind}"] if kind else []
    lines += [f"content-length: {length or len(body)}"] if length is not None else []
    return "\r\n".join([*lines, *headers, "", ""]).encode("latin-1") + body


def pieces(data: bytes, *ends: int) -> Sequence[bytes]:
    """Cut data at some places."""
    starts = [0, *ends]
    return [data[start:end] for start, end in zip(starts, [*ends, len(data)], strict=True)]
