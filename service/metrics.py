"""What Prometheus sees. Labels are bounded: an unknown model's name never becomes one."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Sequence

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

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_MODEL = ("model", "version")


class BulkHistogram(Histogram):
    """A histogram that takes many values at once, which costs little more than taking one."""

    def observe_all(self, values: Sequence[float]) -> None:
        """Count each value as `observe` does."""
        self._raise_if_not_observable()  # type: ignore[no-untyped-call]
        for bucket, count in Tally(bisect_left(self._upper_bounds, value) for value in values).items():
            self._buckets[bucket].inc(count)
        self._sum.inc(sum(values))


class Metrics:
    """The metrics of one process. Times are in seconds, sizes in rows."""

    def __init__(self) -> None:
        # They would be a second series for each counter, which no rule reads.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        r = self.registry
        self.requests = Counter(
            "octet_requests", "Requests answered", (*_MODEL, "route", "status"), registry=r
        )
        self.request_seconds = BulkHistogram(
            "octet_request_seconds",
            "From request to answer",
            (*_MODEL, "route"),
            buckets=_SECONDS,
            registry=r,
        )
        self.in_flight = Gauge(
            "octet_in_flight", "Requests being answered", multiprocess_mode="livesum", registry=r
        )
        self.rows = Counter("octet_rows", "Rows answered", _MODEL, registry=r)
        self.queue_seconds = BulkHistogram(
            "octet_queue_seconds", "Wait of rows that were run", _MODEL, buckets=_SECONDS, registry=r
        )
        self.run_seconds = Histogram(
            "octet_run_seconds", "One run of a graph", _MODEL, buckets=_SECONDS, registry=r
        )
        self.batch_rows = Histogram(
            "octet_batch_rows", "Rows run together", _MODEL, buckets=_ROWS, registry=r
        )
        self.connections = Gauge(
            "octet_connections", "Open connections of each process", multiprocess_mode="liveall", registry=r
        )
        self.queue_depth = Gauge(
            "octet_queue_depth", "Rows waiting", _MODEL, multiprocess_mode="livesum", registry=r
        )
        self.model_ready = Gauge(
            "octet_model_ready", "1 when a model is served", _MODEL, multiprocess_mode="livemin", registry=r
        )
        self.model_info = Gauge(
            "octet_model_info",
            "Always 1; what a model really runs on",
            (*_MODEL, "precision", "provider", "bundle_sha256"),
            multiprocess_mode="livemax",
            registry=r,
        )
        self.model_fallback = Gauge(
            "octet_model_fallback",
            "1 when the preferred graph failed its self-test on this machine",
            _MODEL,
            multiprocess_mode="livemax",
            registry=r,
        )
        self.threads = Gauge(
            "octet_threads", "Batches run at the same time", multiprocess_mode="livesum", registry=r
        )
        self.draining = Gauge(
            "octet_draining", "1 after a request to stop", multiprocess_mode="livemax", registry=r
        )
        if MULTIPROCESS_VARIABLE not in os.environ:
            ProcessCollector(registry=r)
            PlatformCollector(registry=r)
            GCCollector(registry=r)

    def render(self) -> bytes:
        """Return the text exposition; of all processes where there are several."""
        if MULTIPROCESS_VARIABLE not in os.environ:
            return generate_latest(self.registry)
        everyone = CollectorRegistry()
        MultiProcessCollector(everyone)  # type: ignore[no-untyped-call]
        return generate_latest(everyone)
