"""The ledger: what every request leaves behind, a log line, a count and a time, written together."""

from __future__ import annotations

import time
from collections import defaultdict

from service.access_log import AccessLog
from service.metrics import GATHER_S, Metrics
from service.record import Record
from service.tracing import Tracing
from service.turn import Together


class Ledger:
    """Counts and logs requests.

    Args:
        metrics: told of every request.
        log: gets a line for every answered one.
        tracing: makes its trace; None for none.
    """

    def __init__(self, metrics: Metrics, log: AccessLog, tracing: Tracing | None = None) -> None:
        self._metrics = metrics
        self._log = log
        self._tracing = tracing
        self._in_flight = 0
        self._finished: list[Record] = []
        self._later = Together(self.write, GATHER_S)
        metrics.gatherers.append(self.write)

    def begin(self, record: Record, parent: str = "") -> None:
        """Note that a request has come.

        Args:
            parent: whose part it is, as the header `traceparent` says.
        """
        self._in_flight += 1
        if self._tracing is not None:
            record.trace = self._tracing.begin(record, parent)
        self._later.ask()

    def finish(self, record: Record) -> None:
        """Note that a request that has begun is answered."""
        self._in_flight -= 1
        record.seconds = time.perf_counter() - record.began_s
        if record.statistics is not None:
            record.statistics.finish(record.seconds, ok=record.status == 200)
        if self._tracing is not None and record.trace is not None:
            self._tracing.finish(record, record.trace)
        self._finished.append(record)
        self._later.ask()

    def write(self) -> None:
        """Count and log what was noted; it happens by itself soon after."""
        finished, self._finished = self._finished, []
        self._metrics.in_flight.set(self._in_flight)
        times: dict[tuple[str, str, str], list[float]] = defaultdict(list)
        statuses: dict[tuple[str, str, str, str], int] = defaultdict(int)
        for record in finished:
            labels = (record.model, record.version, record.route)
            times[labels].append(record.seconds)
            statuses[*labels, str(record.status)] += 1
        for labels, seconds in times.items():
            self._metrics.request_seconds.labels(*labels).observe_all(seconds)
        for status_labels, answers in statuses.items():
            self._metrics.requests.labels(*status_labels).inc(answers)
        if finished:
            self._log.write(finished)
