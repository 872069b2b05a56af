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

from prometheus_client.multiprocess import mark_process_dead

from bundle.errors import BundleError
from service.logs import configure_logs
from service.metrics import MULTIPROCESS_VARIABLE
from service.server import run_worker
from service.settings import Settings

logger = logging.getLogger(__name__)

CANNOT_START = 3
_WATCH_S = 0.5


def supervise(settings: Settings, listener: socket.socket) -> int:
    """Run `settings.workers` processes on one listener until a signal; return the exit code.

    The processes count into files of a shared directory, so that `/metrics` of any of them tells of all.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with tempfile.TemporaryDirectory(prefix="octet-metrics-") as folder:
        os.environ[MULTIPROCESS_VARIABLE] = folder
        workers = [_start(settings, listener) for _ in range(settings.workers)]
        code = 0
        while not stop.wait(_WATCH_S) and code == 0:
            for i, worker in enumerate(workers):
                if worker.is_alive():
                    continue
                # Its gauges vanish, its counters stay.
                mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
                if worker.exitcode == CANNOT_START:
                    code = 1
                    break
                logger.error(
                    "worker %s died with exit code %s; starting another", worker.pid, worker.exitcode
                )
                workers[i] = _start(settings, listener)
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join()
    return code


def _start(settings: Settings, listener: socket.socket) -> SpawnProcess:
    # Spawned, not forked: neither ONNX Runtime's threads nor an event loop survive a fork.
    process = multiprocessing.get_context("spawn").Process(target=_work, args=(settings, listener))
    process.start()
    return process


def _work(settings: Settings, listener: socket.socket) -> None:
    configure_logs(settings.log_format)
    threading.Thread(target=_follow_parent, daemon=True).start()
    try:
        run_worker(settings, listener)
    except BundleError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(CANNOT_START)


def _follow_parent() -> None:
    """Stop this process when its parent is gone, even if that was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
