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
_DIFFERENCES = (1e-5, 1e-4, 1e-3, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
# Dense where the confidences of a good model and the p-values of a strange input lie.
CONFIDENCE_EDGES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9999, 1.0)
P_VALUES = (0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
SET_SIZES = (1, 2, 3, 4, 5, 7, 10, 20, 50)
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

    def add_counts(self, counts: Sequence[int], total: float) -> None:
        """Count values that were counted by bucket already.

        Args:
            counts: one for each bucket, the last of which has no upper edge.
            total: the sum of the values.
        """
        self._raise_if_not_observable()  # type: ignore[no-untyped-call]
        for bucket, count in enumerate(counts):
            if count:
                self._buckets[bucket].inc(count)
        self._sum.inc(total)


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
        self.shadow_compared = self._counter("shadow_compared", "Rows that ran on int8 and fp32", _MODEL)
        self.shadow_disagreements = self._counter(
            "shadow_disagreements",
            "Rows that fp32 labels otherwise, by the label of int8",
            (*_MODEL, "label"),
        )
        self.shadow_abs_dp = self._histogram(
            "shadow_abs_dp", "Change of the answered label's probability by fp32", _MODEL, _DIFFERENCES
        )
        self.shadow_dropped = self._counter(
            "shadow_dropped", "Rows that were to be compared and were not", _MODEL
        )
        self.shadow_fallback = self._gauge(
            "shadow_fallback", "1 when fp32 has taken over for too little agreement", "livemax", _MODEL
        )
        self.review_stored = self._counter(
            "review_stored", "Rows picked for review, by what became of them", (*_MODEL, "outcome")
        )
        self.review_unseen = self._counter(
            "review_unseen", "Rows that came too fast to be looked at for review", _MODEL
        )
        self.review_unavailable = self._gauge(
            "review_unavailable", "1 while the store of the review queue cannot be used", "livemax"
        )
        self.threads = self._gauge("threads", "Batches run at the same time", "livesum")
        self.draining = self._gauge("draining", "1 after a request to stop", "livemax")
        self._add_monitoring()
        self._add_feedback()
        if MULTIPROCESS_VARIABLE not in os.environ:
            ProcessCollector(registry=self.registry)
            PlatformCollector(registry=self.registry)
            GCCollector(registry=self.registry)

    def _add_monitoring(self) -> None:
        """Of answers that were judged, and of drift. What is tested, each process tests for itself."""
        of_label, of_alpha = (*_MODEL, "label"), (*_MODEL, "alpha")
        self.confidence = self._histogram("confidence", "Calibrated confidences", _MODEL, CONFIDENCE_EDGES)
        self.predictions = self._counter("predictions", "Answers by label", of_label)
        self.accepted = self._counter(
            "accepted", "Answers by the bundle's own policy", (*_MODEL, "accepted", "reason")
        )
        self.prediction_set_size = self._histogram(
            "prediction_set_size", "Labels in prediction sets", of_alpha, SET_SIZES
        )
        self.ood_pvalue = self._histogram("ood_pvalue", "Novelty p-values of inputs", _MODEL, P_VALUES)
        self.ood_flagged = self._counter("ood_flagged", "Inputs that were flagged as novel", _MODEL)
        self.drift_psi = self._gauge(
            "drift_psi", "Population stability index of the last window", "liveall", (*_MODEL, "signal")
        )
        self.drift_pvalue = self._gauge(
            "drift_pvalue", "P-value of the last window", "liveall", (*_MODEL, "signal", "test")
        )
        self.calibration_stale = self._gauge(
            "calibration_stale", "1 while drift makes the calibration stale", "liveall", _MODEL
        )
        self.label_prior_estimate = self._gauge(
            "label_prior_estimate", "Estimated share of each right label", "liveall", of_label
        )
        self.accuracy_estimated = self._gauge(
            "accuracy_estimated", "Estimated without labels", "liveall", (*_MODEL, "method")
        )
        self.calibration_info = self._gauge(
            "calibration_info", "1 while it is served", "livemax", (*_MODEL, "method", "bundle_sha")
        )
        self.calibration_age = self._gauge(
            "calibration_age_seconds", "Since the bundle was made", "livemax", _MODEL
        )

    def _add_feedback(self) -> None:
        """Of answers whose right label was told. The gauges are of the last labels of each process."""
        self.feedback = self._counter("feedback", "Feedback by what became of it", (*_MODEL, "outcome"))
        self.feedback_answers = self._counter(
            "feedback_answers", "Answers whose right label was told", (*_MODEL, "bin", "correct")
        )
        self.feedback_confidence = self._counter(
            "feedback_confidence", "Sum of their confidences", (*_MODEL, "bin")
        )
        self.feedback_accepted = self._counter(
            "feedback_accepted", "Those that were accepted", (*_MODEL, "correct")
        )
        self.feedback_covered = self._counter(
            "feedback_covered", "Those with prediction sets", (*_MODEL, "alpha", "covered")
        )
        self.live_accuracy = self._gauge("live_accuracy", "Share of right answers", "liveall", _MODEL)
        self.live_ece = self._gauge("live_ece", "Calibration error in 15 bins", "liveall", _MODEL)
        self.live_ece_null95 = self._gauge(
            "live_ece_null95", "What a calibrated model exceeds in 5 % of draws", "liveall", _MODEL
        )
        self.live_accepted_risk = self._gauge(
            "live_accepted_risk", "Share of wrong answers among those accepted", "liveall", _MODEL
        )
        self.live_coverage = self._gauge(
            "live_coverage", "Share of sets that hold the right label", "liveall", (*_MODEL, "alpha")
        )

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
