"""Stores of both kinds: a SQLite file, and a PostgreSQL server that is started for these tests alone."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.review.store import Store, open_store

_NUMBERS = itertools.count()
# PostgreSQL does not run as root.
_SERVER_USER = "nobody"


def _program(name: str) -> str | None:
    """Where Debian keeps the server's programs, they are not on the path."""
    found = [str(path) for path in sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))]
    return shutil.which(name) or (found[-1] if found else None)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a database of a PostgreSQL server of its own, which listens on a Unix socket alone."""
    initdb, server = _program("initdb"), _program("postgres")
    if initdb is None or server is None:
        pytest.skip("the PostgreSQL server is not installed (Debian: apt-get install postgresql)")
    who: dict[str, Any] = {"user": _SERVER_USER} if os.geteuid() == 0 else {}
    # Not below pytest's own folder, which only its owner can enter.
    with tempfile.TemporaryDirectory(prefix="octet-postgres-", ignore_cleanup_errors=True) as folder:
        if who:
            shutil.chown(folder, _SERVER_USER)
        data = f"{folder}/data"
        options = ["--auth=trust", "--username=octet", "--encoding=UTF8", "--no-locale", "--no-sync"]
        subprocess.run(
            [initdb, f"--pgdata={data}", *options], check=True, capture_output=True, cwd="/", **who
        )
        socket = ["-c", f"unix_socket_directories={folder}", "-c", "listen_addresses=", "-c", "fsync=off"]
        with Path(f"{folder}/log").open("wb") as log:
            process = subprocess.Popen([server, "-D", data, *socket], stderr=log, stdout=log, cwd="/", **who)
        url = f"postgresql:///postgres?host={folder}&user=octet"
        try:
            _wait_for(url, process, Path(f"{folder}/log"))
            yield url
        finally:
            process.terminate()
            process.wait(30)


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    import time

    import psycopg

    end = time.monotonic() + 30
    while True:
        try:
            psycopg.connect(url).close()
            return
        except psycopg.OperationalError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a store that does not exist yet, of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'review.db'}"
    import psycopg

    server: str = request.getfixturevalue("postgres")
    name = f"store{next(_NUMBERS)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return server.replace("/postgres?", f"/{name}?")


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """A new store of either kind."""
    with open_store(url, create=True) as store:
        yield store
