"""Several processes behind one port: started, watched, replaced when one dies, and stopped together."""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import selectors
import signal
import socket
import sys
import tempfile
import time
from functools import partial
from multiprocessing.context import SpawnProcess
from multiprocessing.queues import SimpleQueue
from pathlib import Path

from prometheus_client.multiprocess import mark_process_dead

from bundle.errors import BundleError
from service.commands import Channel, Link, Message
from service.control import make_last
from service.coordinator import Coordinator
from service.handover import Dispatch, Intake
from service.logs import configure_logs
from service.metrics import MULTIPROCESS_VARIABLE
from service.monitoring.keys import RANDOM_WARNING, read_keys, write_random_key
from service.rpc.server import address_of
from service.server import SAME_SIGNAL_S, leaving_on_signals, longest_stop_s, run_worker, url_of
from service.settings import Settings
from service.standing import Standing

logger = logging.getLogger(__name__)

# Not one of the codes that uvicorn or Python exit with: a reason was told then.
CANNOT_START = 78
_WATCH_S = 0.1
# A worker is not started again sooner than this after its last start, however often it dies.
_RESTART_S = 2.0
# Spawned, not forked: neither ONNX Runtime's threads nor an event loop survive a fork.
_SPAWN = multiprocessing.get_context("spawn")

# Connections that the kernel keeps until they are accepted.
_BACKLOG = 2048

Failures = SimpleQueue[str]


class Signals(list[tuple[int, float]]):
    """The signals that came, each with the `time.monotonic()` of its arrival.

    A handler may interrupt this process while it holds a lock, so all that it does is to append to this.
    """

    _passed_on = 0

    def pass_on(self, processes: list[SpawnProcess]) -> bool:
        """Send what is new to all processes; return whether any signal has come yet."""
        new = self[self._passed_on :]
        self._passed_on += len(new)
        for number, _ in new:
            for process in processes:
                if process.is_alive() and process.pid is not None:
                    os.kill(process.pid, number)
        return bool(self)


class _Worker:
    """One place of the pool, and the process that fills it."""

    def __init__(self, settings: Settings, failures: Failures, coordinator: Coordinator) -> None:
        self._settings = settings
        self._failures = failures
        self._coordinator = coordinator
        self._mourned = False
        self._start()

    def _start(self) -> None:
        self.dispatch = Dispatch()
        ours, theirs = socket.socketpair()
        self._channel = Channel(ours)
        arguments = (
            self._settings,
            self.dispatch.worker_end,
            self._failures,
            theirs,
            self._coordinator.standing,
        )
        self.process: SpawnProcess = _SPAWN.Process(target=_enter, args=arguments)
        self.process.start()
        self.dispatch.worker_end.close()
        theirs.close()
        self._coordinator.join(self._channel)
        self._started_s = time.monotonic()

    def is_missed(self) -> bool:
        """Note whether the process has died; return whether it is time to start another."""
        if self.process.is_alive():
            return False
        if not self._mourned:
            self._mourned = True
            self.dispatch.ready = False
            # Its gauges vanish, its counters stay.
            mark_process_dead(self.process.pid)  # type: ignore[no-untyped-call]
            logger.error("worker %s died with exit code %s", self.process.pid, self.process.exitcode)
        return time.monotonic() - self._started_s >= _RESTART_S

    def replace(self) -> None:
        """Start another process in the place of a dead one, to serve what the others do."""
        self.dispatch.close()
        self._coordinator.leave(self._channel)
        self._start()
        self._mourned = False
        logger.info("worker %s takes its place", self.process.pid)


def supervise(settings: Settings, listener: socket.socket) -> None:
    """Run `settings.workers` processes on one listener until a signal.

    The processes count into files of a shared directory, so that `/metrics` of any of them tells of all.
    Every signal is passed on to them, so that a second one, or Ctrl-C, skips their drain delay.

    Raises:
        BundleError: a worker cannot start.
        OSError: the key file of prediction ids cannot be used.
    """
    signals = Signals()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: signals.append((received, time.monotonic())))
    with tempfile.TemporaryDirectory(prefix="octet-metrics-") as folder:
        os.environ[MULTIPROCESS_VARIABLE] = folder
        settings = _with_feedback_key(settings, Path(folder))
        failures = _SPAWN.SimpleQueue()
        coordinator = Coordinator(partial(make_last, settings), settings.control_timeout_s)
        workers = [_Worker(settings, failures, coordinator) for _ in range(settings.workers)]
        failed = not _serve(workers, listener, coordinator, signals, settings)
        listener.close()
        coordinator.close()
        for worker in workers:
            worker.dispatch.close()
        if failed:
            signals.append((signal.SIGTERM, time.monotonic()))
        _stop([worker.process for worker in workers], signals, longest_stop_s(settings))
    if failed:
        raise BundleError(failures.get())


def _with_feedback_key(settings: Settings, folder: Path) -> Settings:
    """Have all workers, also those that take the place of others, sign with one key.

    Raises:
        OSError: the key file that is named cannot be used.
    """
    if settings.feedback_key_file is not None:
        read_keys(settings.feedback_key_file)  # otherwise each worker would find that out
        return settings
    logger.warning(RANDOM_WARNING)
    path = folder / "feedback.key"
    write_random_key(path)
    return settings.model_copy(update={"feedback_key_file": path})


def _serve(
    workers: list[_Worker],
    listener: socket.socket,
    coordinator: Coordinator,
    signals: Signals,
    settings: Settings,
) -> bool:
    """Hand over connections and commands, and replace workers that die, until it is time to close the port.

    The port opens when all workers are ready: the first one would get every connection until then.

    Returns:
        False where a worker cannot start.
    """
    listening = False
    listener.setblocking(False)
    with selectors.DefaultSelector() as selector:
        selector.register(coordinator, selectors.EVENT_READ)
        for worker in workers:
            selector.register(worker.dispatch, selectors.EVENT_READ)
        while time.monotonic() < _close_at_s(signals, settings.drain_delay_s):
            dispatches = [worker.dispatch for worker in workers]
            processes = [worker.process for worker in workers]
            events = selector.select(_WATCH_S)
            for key, _ in sorted(events, key=lambda event: event[0].fileobj is listener):  # news come first
                if key.fileobj is listener:
                    _accept(listener, dispatches)
                elif isinstance(key.fileobj, Dispatch) and not key.fileobj.read_news():
                    selector.unregister(key.fileobj)
                    for connection in key.fileobj.take_back():
                        _hand_over(connection, dispatches)
            coordinator.work()
            if any(process.exitcode == CANNOT_START for process in processes):
                return False
            if not listening and all(worker.dispatch.ready for worker in workers):
                listening = True
                listener.listen(_BACKLOG)
                selector.register(listener, selectors.EVENT_READ)
                if settings.grpc_port != "off":
                    logger.info("listening on grpc://%s with %d workers", address_of(settings), len(workers))
                logger.info("listening on %s with %d workers", url_of(listener), len(workers))
            if signals.pass_on(processes):
                continue  # and none is started any more
            for worker in workers:
                if worker.is_missed():
                    if worker.dispatch in selector.get_map():  # it has died since its news were read
                        selector.unregister(worker.dispatch)
                    for connection in worker.dispatch.take_back():
                        _hand_over(connection, dispatches)
                    worker.replace()
                    selector.register(worker.dispatch, selectors.EVENT_READ)
    return True


def _accept(listener: socket.socket, dispatches: list[Dispatch]) -> None:
    """Hand over every connection that has come, as far as there are workers that take them."""
    while any(dispatch.ready and not dispatch.full for dispatch in dispatches):
        try:
            connection, _ = listener.accept()
        except OSError:  # none is left, or its caller has gone already
            return
        _hand_over(connection, dispatches)
    time.sleep(_WATCH_S / 100)  # the kernel keeps them meanwhile


def _hand_over(connection: socket.socket, dispatches: list[Dispatch]) -> None:
    """Give a connection to the worker that has the fewest."""
    for dispatch in sorted(dispatches, key=lambda each: (each.full, each.hangs, each.open, each.given)):
        if dispatch.ready and dispatch.give(connection):
            return
    connection.close()


def _close_at_s(signals: Signals, drain_delay_s: float) -> float:
    """When to close the port: the drain delay after the first SIGTERM, or at once; see `DrainingServer`."""
    if not signals:
        return math.inf
    _, began_s = signals[0]
    for number, came_s in signals:
        if number == signal.SIGINT or came_s >= began_s + SAME_SIGNAL_S:
            return came_s
    return began_s + drain_delay_s


def _stop(processes: list[SpawnProcess], signals: Signals, patience_s: float) -> None:
    """Pass on the signals that still come, until all have ended; kill what takes too long."""
    end_s = time.monotonic() + patience_s
    while any(process.is_alive() for process in processes) and time.monotonic() < end_s:
        signals.pass_on(processes)
        time.sleep(_WATCH_S / 2)
    for process in processes:
        process.kill()
        process.join()


def _enter(
    settings: Settings,
    connections: socket.socket,
    failures: Failures,
    commands: socket.socket,
    standing: Message | None,
) -> None:
    os.setsid()  # a terminal's Ctrl-C reaches the parent alone, which passes it on once
    what = None if standing is None else Standing.model_validate(standing)
    _work(settings, Intake(connections), failures, Link(Channel(commands)), what)


def _work(
    settings: Settings,
    intake: Intake,
    failures: Failures,
    link: Link | None = None,
    standing: Standing | None = None,
) -> None:
    configure_logs(settings.log_format)
    try:
        with leaving_on_signals():
            run_worker(settings, intake, link, standing)
    except (BundleError, OSError) as error:
        failures.put(str(error))  # the parent says it, once
        sys.exit(CANNOT_START)
