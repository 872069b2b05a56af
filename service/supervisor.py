"""Several processes behind one port: started, watched, replaced when one dies, and stopped together."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
from multiprocessing.context import SpawnProcess
from multiprocessing.queues import SimpleQueue

from prometheus_client.multiprocess import mark_process_dead

from bundle.errors import BundleError
from service.logs import configure_logs
from service.metrics import MULTIPROCESS_VARIABLE
from service.server import run_worker
from service.settings import Settings

logger = logging.getLogger(__name__)

CANNOT_START = 3
_WATCH_S = 0.5
# Spawned, not forked: neither ONNX Runtime's threads nor an event loop survive a fork.
_SPAWN = multiprocessing.get_context("spawn")

Failures = SimpleQueue[str]


def supervise(settings: Settings, listener: socket.socket) -> None:
    """Run `settings.workers` processes on one listener until a signal.

    The processes count into files of a shared directory, so that `/metrics` of any of them tells of all.

    Raises:
        BundleError: a bundle cannot be served.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with tempfile.TemporaryDirectory(prefix="octet-metrics-") as folder:
        os.environ[MULTIPROCESS_VARIABLE] = folder
        failures = _SPAWN.SimpleQueue()
        workers = [_start(settings, listener, failures) for _ in range(settings.workers)]
        failure: str | None = None
        while not stop.wait(_WATCH_S) and failure is None:
            for i, worker in enumerate(workers):
                if worker.is_alive():
                    continue
                # Its gauges vanish, its counters stay.
                mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
                if worker.exitcode == CANNOT_START:
                    failure = failures.get()
                    break
                logger.error(
                    "worker %s died with exit code %s; starting another", worker.pid, worker.exitcode
                )
                workers[i] = _start(settings, listener, failures)
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join()
    if failure is not None:
        raise BundleError(failure)


def _start(settings: Settings, listener: socket.socket, failures: Failures) -> SpawnProcess:
    process = _SPAWN.Process(target=_work, args=(settings, listener, failures))
    process.start()
    return process


def _work(settings: Settings, listener: socket.socket, failures: Failures) -> None:
    configure_logs(settings.log_format)
    threading.Thread(target=_follow_parent, daemon=True).start()
    try:
        run_worker(settings, listener)
    except BundleError as error:
        failures.put(str(error))  # the parent says it, once
        sys.exit(CANNOT_START)


def _follow_parent() -> None:
    """Stop this process when its parent is gone, even if that was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
