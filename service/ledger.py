"""The ledger: what every request leaves behind, a log line, a count and a time, written together."""

from __future__ import annotations

import time
from collections import defaultdict

from service.access_log import AccessLog
from service.metrics import GATHER_S, Metrics
from service.record import Record
from service.statistics import Statistics
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
        if self._tracing is not None and record.trace is not None:
            self._tracing.finish(record, record.trace)
        self._finished.append(record)
        self._later.ask()

    def write(self) -> None:
        """Count and log what was noted; it happens by itself soon after."""
        finished, self._finished = self._finished, []
        self._metrics.in_flight.set(self._in_flight)
        alike: dict[tuple[str, str, str, int, Statistics | None], list[float]] = defaultdict(list)
        for each in finished:
            alike[each.model, each.version, each.route, each.status, each.statistics].append(each.seconds)
        for (model, version, route, status, statistics), seconds in alike.items():
            self._metrics.request_seconds.labels(model, version, route).observe_all(seconds)
            self._metrics.requests.labels(model, version, route, str(status)).inc(len(seconds))
            if statistics is not None:
                statistics.finish(seconds, ok=status == 200)
        if finished:
            self._log.write(finished)
