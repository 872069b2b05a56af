"""What the tests of live processes share: raw connections, metrics, and waiting."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import LiveServer

LIMIT_S = 30


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    assert parts.hostname is not None
    return socket.create_connection((parts.hostname, parts.port or 80), timeout=LIMIT_S)


def head(path: str, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: octet", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def begin_request(url: str, path: str, body: bytes, *headers: str) -> socket.socket:
    """Send a request without the second half of its body; return when the server began to read that."""
    connection = connect(url)
    length = f"content-length: {len(body)}"
    connection.sendall(head(path, "expect: 100-continue", length, *headers))
    assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
    connection.sendall(body[: len(body) // 2])
    return connection


def read_answer(connection: socket.socket) -> bytes:
    """Read until the server closes the connection."""
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def samples(url: str, name: str) -> dict[tuple[str, ...], float]:
    """Return the label values, in the order of the labels' names -> value of every sample of a name."""
    text = httpx.get(f"{url}/metrics", timeout=LIMIT_S).text
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


def requests_since(url: str, before: dict[tuple[str, ...], float]) -> dict[tuple[str, ...], float]:
    """Return (model, route, status, version) -> requests counted since then, without those of /metrics."""
    now = samples(url, "octet_requests_total")
    changes = {labels: value - before.get(labels, 0) for labels, value in now.items()}
    return {labels: change for labels, change in changes.items() if change and labels[1] != "/metrics"}


def log_text(server: LiveServer) -> str:
    return "".join(server.log)
