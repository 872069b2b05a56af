"""Asking a server that needs a key."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octet.client import ask
from octet.errors import CommandError
from tests.conftest import LiveServer
from tests.service.calls import pixels
from tests.service.keyed import KEYS, write_keys

Octet = Callable[..., Any]


def test_the_commands_send_the_key_of_their_option_or_of_the_environment(
    octet: Octet,
    start_service: Callable[..., LiveServer],
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = write_keys(tmp_path / "keys")
    server = start_service("--models", str(repository), "--api-keys-file", str(keys))
    np.save(tmp_path / "image.npy", pixels(1)[0])
    commands = [("models",), ("predict", "tiny-image", tmp_path / "image.npy")]
    for command in commands:
        assert "answers 401: this needs an API key" in octet(*command, "--url", server.url).error
        forbidden = octet(*command, "--url", server.url, "--api-key", KEYS["feedback"]).error
        assert "answers 403" in forbidden
        assert octet(*command, "--url", server.url, "--api-key", KEYS["predict"]).code == 0
    monkeypatch.setenv("OCTET_API_KEY", KEYS["predict"])
    for command in commands:
        assert octet(*command, "--url", server.url).code == 0
    (answer,) = octet(*commands[1], "--url", server.url, "--json").json
    assert answer["file"] == str(tmp_path / "image.npy")


@contextmanager
def answering(status: int, headers: dict[str, str], body: bytes = b"{}") -> Iterator[tuple[str, list[Any]]]:
    """A server that answers always the same; yield its address, and the keys that it was sent."""
    seen: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("X-API-Key"))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", seen
        finally:
            server.shutdown()
            thread.join()


def test_a_key_does_not_follow_to_where_a_server_sends_its_callers() -> None:
    with answering(200, {}) as (other, followed), answering(302, {"location": other}) as (url, seen):
        assert ask(url, api_key="secret") == {}
    assert (seen, followed) == (["secret"], [None])


@pytest.mark.parametrize("key", ["a\r\nX-Other: b", "schlüssel"])
def test_a_key_that_no_header_can_carry_is_one_line_that_does_not_tell_it(key: str) -> None:
    with pytest.raises(CommandError, match="characters that a header cannot carry") as caught:
        ask("http://127.0.0.1:1", api_key=key)
    assert key not in str(caught.value)
