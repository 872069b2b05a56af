"""Start a server as a process of its own, wait until it answers, look at its memory, and stop it."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

_STOP_S = 20


class BenchError(Exception):
    """A part of the benchmark cannot be run; the message says why in one line."""


@dataclass(frozen=True)
class Memory:
    """Memory of a server's processes in MB (10^6 bytes): resident, and with shared pages divided (PSS)."""

    resident_mb: float
    pss_mb: float
    processes: int


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        start_s: from the start of its process to the first answer at its ready path.
    """

    process: subprocess.Popen[bytes]
    port: int
    start_s: float

    def memory(self) -> Memory:
        """Return what all its processes hold."""
        parent = psutil.Process(self.process.pid)
        infos = []
        for process in (parent, *parent.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                infos.append(process.memory_full_info())
        return Memory(
            sum(info.rss for info in infos) / 1e6, sum(info.pss for info in infos) / 1e6, len(infos)
        )


@contextmanager
def running(
    command: Sequence[str],
    port: int,
    ready_path: str,
    log: Path,
    environment: Mapping[str, str] | None = None,
    limit_s: float = 120,
) -> Iterator[Server]:
    """Run a server until the end of the block.

    Args:
        ready_path: answers 200 once the server is up.
        log: gets all that it prints.

    Raises:
        BenchError: it ended, or did not answer in time; the message has its last line.
    """
    began_s = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(
            list(command),
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
    try:
        while not _answers(port, ready_path):
            if process.poll() is not None or time.perf_counter() - began_s > limit_s:
                raise BenchError(f"it did not start: {_last_line(log)}")
            time.sleep(0.005)
        yield Server(process, port, time.perf_counter() - began_s)
    finally:
        _stop(process)


def free_port(following: int = 0) -> int:
    """Return a port that is free now, as are so many after it.

    It is none that the system gives to the outgoing connections of a load.
    """
    while True:
        port = random.randrange(10_000, 30_000 - following)
        if all(_is_free(port + i) for i in range(following + 1)):
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _answers(port: int, path: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask the whole group to end, and make it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it printed nothing"
