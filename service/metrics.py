"""What Prometheus sees. Labels are bounded: an unknown model's name never becomes one."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Callable, Sequence
from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

# Where several processes share one /metrics they keep their counts in files of this directory.
MULTIPROCESS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

# What a killed process loses of its counts, at most.
GATHER_S = 0.02

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_MODEL = ("model", "version")
_Mode = Literal["livesum", "livemin", "livemax", "liveall"]


class BulkHistogram(Histogram):
    """A histogram that takes many values at once, which costs little more than taking one."""

    def observe_all(self, values: Sequence[float]) -> None:
        """Count each value as `observe` does."""
        self._raise_if_not_observable()  # type: ignore[no-untyped-call]
        for bucket, count in Tally(bisect_left(self._upper_bounds, value) for value in values).items():
            self._buckets[bucket].inc(count)
        self._sum.inc(sum(values))


class Metrics:
    """The metrics of one process. Times are in seconds, sizes in rows.

    Counting costs a microsecond or two each time, more where several processes share files. So what counts
    something for every request or batch gathers it for `GATHER_S` and hands it in together, by a function
    that it appends to `gatherers`.

    Attributes:
        gatherers: called before the metrics are rendered, and by their owners soon after they have news.
    """

    def __init__(self) -> None:
        self.gatherers: list[Callable[[], None]] = []
        # They would be a second series for each counter, which no rule reads.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        route = (*_MODEL, "route")
        identity = ("precision", "provider", "bundle_sha256")
        self.requests = self._counter("requests", "Requests answered", (*route, "status"))
        self.request_seconds = self._histogram("request_seconds", "From request to answer", route, _SECONDS)
        self.in_flight = self._gauge("in_flight", "Requests being answered", "livesum")
        self.rows = self._counter("rows", "Rows answered", _MODEL)
        self.queue_seconds = self._histogram("queue_seconds", "Wait of rows that were run", _MODEL, _SECONDS)
        self.run_seconds = self._histogram("run_seconds", "One run of a graph", _MODEL, _SECONDS)
        self.batch_rows = self._histogram("batch_rows", "Rows run together", _MODEL, _ROWS)
        self.queue_depth = self._gauge("queue_depth", "Rows waiting", "livesum", _MODEL)
        self.connections = self._gauge("connections", "Open connections of each process", "liveall")
        self.model_ready = self._gauge("model_ready", "1 when a model is served", "livemin", _MODEL)
        self.model_info = self._gauge(
            "model_info", "What a model really runs on; 1 while it is served", "livemax", (*_MODEL, *identity)
        )
        self.model_fallback = self._gauge(
            "model_fallback", "1 when the preferred graph or provider is not used here", "livemax", _MODEL
        )
        self.model_load_failures = self._counter(
            "model_load_failures", "Bundles that could not be served", _MODEL
        )
        self.threads = self._gauge("threads", "Batches run at the same time", "livesum")
        self.draining = self._gauge("draining", "1 after a request to stop", "livemax")
        if MULTIPROCESS_VARIABLE not in os.environ:
            ProcessCollector(registry=self.registry)
            PlatformCollector(registry=self.registry)
            GCCollector(registry=self.registry)

    def _counter(self, name: str, text: str, labels: Sequence[str]) -> Counter:
        return Counter(f"octet_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, mode: _Mode, labels: Sequence[str] = ()) -> Gauge:
        return Gauge(f"octet_{name}", text, labels, multiprocess_mode=mode, registry=self.registry)

    def _histogram(
        self, name: str, text: str, labels: Sequence[str], buckets: Sequence[float]
    ) -> BulkHistogram:
        return BulkHistogram(f"octet_{name}", text, labels, buckets=buckets, registry=self.registry)

    def gather(self) -> None:
        """Have everything handed in that is still being gathered."""
        for gatherer in self.gatherers:
            gatherer()

    def render(self) -> bytes:
        """Return the text exposition; of all processes where there are several."""
        self.gather()
        if MULTIPROCESS_VARIABLE not in os.environ:
            return generate_latest(self.registry)
        everyone = CollectorRegistry()
        MultiProcessCollector(everyone)  # type: ignore[no-untyped-call]
        return generate_latest(everyone)
