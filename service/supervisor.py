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
import time
from dataclasses import dataclass, field
from multiprocessing.context import SpawnProcess
from multiprocessing.queues import SimpleQueue

from prometheus_client.multiprocess import mark_process_dead

from bundle.errors import BundleError
from service.logs import configure_logs
from service.metrics import MULTIPROCESS_VARIABLE
from service.server import leaving_on_signals, longest_stop_s, run_worker
from service.settings import Settings

logger = logging.getLogger(__name__)

# Not one of the codes that uvicorn or Python exit with: a reason was told then.
CANNOT_START = 78
_WATCH_S = 0.1
# A worker is not started again sooner than this after its last start, however often it dies.
_RESTART_S = 2.0
# Spawned, not forked: neither ONNX Runtime's threads nor an event loop survive a fork.
_SPAWN = multiprocessing.get_context("spawn")

Failures = SimpleQueue[str]


@dataclass
class _Worker:
    """One place of the pool, and the process that fills it."""

    process: SpawnProcess
    started_s: float = field(default_factory=time.monotonic)
    mourned: bool = False


def supervise(settings: Settings, listener: socket.socket) -> None:
    """Run `settings.workers` processes on one listener until a signal.

    The processes count into files of a shared directory, so that `/metrics` of any of them tells of all.
    Every signal is passed on to them, so that a second one, or Ctrl-C, skips their drain delay.

    Raises:
        BundleError: a worker cannot start.
    """
    # All that the handler does, because it may interrupt this thread while that holds a lock.
    signals: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: signals.append(received))
    with tempfile.TemporaryDirectory(prefix="octet-metrics-") as folder:
        os.environ[MULTIPROCESS_VARIABLE] = folder
        failures = _SPAWN.SimpleQueue()
        workers = [_Worker(_start(settings, listener, failures)) for _ in range(settings.workers)]
        failed = False
        while not signals and not failed:
            time.sleep(_WATCH_S)
            for worker in workers:
                failed |= worker.process.exitcode == CANNOT_START
                if not failed:
                    _replace_if_dead(worker, settings, listener, failures)
        # The workers hold it too; while anyone does, the kernel accepts connections.
        listener.close()
        if failed:
            signals.append(signal.SIGTERM)
        _stop([worker.process for worker in workers], signals, longest_stop_s(settings))
    if failed:
        raise BundleError(failures.get())


def _replace_if_dead(
    worker: _Worker, settings: Settings, listener: socket.socket, failures: Failures
) -> None:
    if worker.process.is_alive():
        return
    if not worker.mourned:
        worker.mourned = True
        # Its gauges vanish, its counters stay.
        mark_process_dead(worker.process.pid)  # type: ignore[no-untyped-call]
        logger.error("worker %s died with exit code %s", worker.process.pid, worker.process.exitcode)
    if time.monotonic() - worker.started_s >= _RESTART_S:
        worker.process = _start(settings, listener, failures)
        worker.started_s, worker.mourned = time.monotonic(), False
        logger.info("worker %s takes its place", worker.process.pid)


def _stop(processes: list[SpawnProcess], signals: list[int], patience_s: float) -> None:
    """Pass on the signals that came and still come, until all have ended; kill what takes too long."""
    end_s = time.monotonic() + patience_s
    passed_on = 0
    while any(process.is_alive() for process in processes) and time.monotonic() < end_s:
        new = signals[passed_on:]
        passed_on += len(new)
        for number in new:
            for process in processes:
                if process.is_alive() and process.pid is not None:
                    os.kill(process.pid, number)
        time.sleep(_WATCH_S / 2)
    for process in processes:
        process.kill()
        process.join()


def _start(settings: Settings, listener: socket.socket, failures: Failures) -> SpawnProcess:
    process = _SPAWN.Process(target=_enter, args=(settings, listener, failures))
    process.start()
    return process


def _enter(settings: Settings, listener: socket.socket, failures: Failures) -> None:
    os.setsid()  # a terminal's Ctrl-C reaches the parent alone, which passes it on once
    threading.Thread(target=_follow_parent, daemon=True).start()
    _work(settings, listener, failures)


def _work(settings: Settings, listener: socket.socket, failures: Failures) -> None:
    configure_logs(settings.log_format)
    try:
        with leaving_on_signals():
            run_worker(settings, listener)
    except (BundleError, OSError) as error:
        failures.put(str(error))  # the parent says it, once
        sys.exit(CANNOT_START)


def _follow_parent() -> None:
    """Stop this process when its parent is gone, even if that was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
