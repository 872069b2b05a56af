"""One version of a model that is monitored: its answers are counted and tested for drift, and fed back."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Gauge

from bundle.answer import Answer
from bundle.conformal import Floats
from bundle.drift import spread_of
from bundle.evidence import Evidence
from bundle.judgement import Judged, threshold_for
from bundle.outcomes import bin_of_confidence
from bundle.predictor import Predictor
from service.metrics import CONFIDENCE_EDGES, GATHER_S, P_VALUES, SET_SIZES, Metrics
from service.monitoring.keys import Keys
from service.monitoring.live import Live, figures
from service.monitoring.report import label_priors, spread_as_json
from service.monitoring.tokens import FIXED_ALPHAS, Claim, Minter, graph_prefix
from service.monitoring.windows import Windows
from service.turn import Together

# An input with a smaller novelty p-value is flagged, as `:confidence` does it.
FLAG_ALPHA = 0.05


class Monitored:
    """What is known of the answers of one version of a model.

    It holds nothing of the predictor but its evidence, so that what is taken out of service can go.

    Args:
        predictor: of the version; it classifies, and its confidences are calibrated.
        metrics: told of everything.
        keys: sign its prediction ids.
        clock: seconds that only grow, for the windows.

    Attributes:
        labels: names, by index.
        minter: makes prediction ids.
        windows: None where there is no evidence that they could be held against.
    """

    def __init__(
        self, predictor: Predictor, metrics: Metrics, keys: Keys, clock: Callable[[], float]
    ) -> None:
        manifest = predictor.bundle.manifest
        graph = manifest.graphs[predictor.precision]
        assert graph.temperature is not None
        digest = manifest.files[graph.file]
        self.name, self.version = manifest.name, str(manifest.version)
        self.labels = manifest.labels
        self.evidence: Evidence | None = predictor.evidence
        self.graph = graph_prefix(digest)
        self.minter = Minter(keys, self.name, self.version, digest, len(self.labels))
        self.windows = None if self.evidence is None else Windows(self.evidence, clock)
        self.live = Live()
        self._metrics = metrics
        self._model = (self.name, self.version)
        self._info = (*self._model, graph.temperature.method, predictor.bundle.manifest_sha256)
        self._made_s = manifest.provenance.created_at.timestamp()
        self._fed = False
        self._closed = False
        self._gauges: set[Gauge] = set()
        self._judged: list[Judged] = []
        self._later = Together(self._count_judged, GATHER_S)
        metrics.calibration_info.labels(*self._info).set(1)
        self.tell()

    @property
    def is_stale(self) -> bool:
        """Whether drift makes its calibration stale."""
        return self.windows is not None and self.windows.is_stale

    def note(self, answers: Sequence[Answer]) -> None:
        """Count the runs of some answers that a caller had judged, soon; there must be evidence."""
        if self._closed:  # these are of a call that came before that
            return
        last = None
        for answer in answers:
            run = answer.run
            if run is not last and not run.is_counted:
                run.mark_counted()
                self._judged.append(run.judged)
                self._later.ask()
            last = run

    def count(self, judged: Judged) -> None:
        """Count some answers; there must be evidence."""
        assert self.evidence is not None
        assert self.windows is not None
        metrics, model = self._metrics, self._model
        confidences, novelty = judged.confidences, judged.novelty_p_values
        metrics.confidence.labels(*model).add_counts(
            _by_bucket(confidences, CONFIDENCE_EDGES), float(confidences.sum())
        )
        metrics.ood_pvalue.labels(*model).add_counts(_by_bucket(novelty, P_VALUES), float(novelty.sum()))
        metrics.ood_flagged.labels(*model).inc(int((novelty <= FLAG_ALPHA).sum()))
        for alpha, sizes in zip(FIXED_ALPHAS, set_sizes(judged), strict=True):
            metrics.prediction_set_size.labels(*model, str(alpha)).add_counts(
                _by_bucket(sizes, SET_SIZES), float(sizes.sum())
            )
        for (accepted, reason), rows in verdicts(self.evidence, judged).items():
            if rows:
                metrics.accepted.labels(*model, accepted, reason).inc(rows)
        spread = spread_of(self.evidence, confidences, novelty, judged.answers)
        for label, rows in enumerate(spread.labels.tolist()):
            if rows:
                metrics.predictions.labels(*model, self.labels[label]).inc(rows)
        if self.windows.add(spread):
            self._tell_window(self.windows)

    def feed(self, claim: Claim, label: int) -> None:
        """Count what came of an answer."""
        metrics, model = self._metrics, self._model
        right = str(claim.answer == label).lower()
        self.live.add(claim, label)
        self._fed = True
        place = str(bin_of_confidence(claim.confidence))
        metrics.feedback_answers.labels(*model, place, right).inc()
        metrics.feedback_confidence.labels(*model, place).inc(claim.confidence)
        if claim.accepted:
            metrics.feedback_accepted.labels(*model, right).inc()
        for alpha, held in zip(FIXED_ALPHAS, claim.sets or (), strict=False):
            covered = str(bool(held >> label & 1)).lower()
            metrics.feedback_covered.labels(*model, str(alpha), covered).inc()

    def tell(self) -> None:
        """Tell the metrics what need not be told at once."""
        self._count_judged()
        metrics = self._metrics
        self._set(metrics.calibration_age, time.time() - self._made_s)
        if not self._fed:
            return
        self._fed = False
        found = figures(self.live.sums, self.evidence)
        self._set(metrics.live_accuracy, found["accuracy"])
        self._set(metrics.live_ece, found["ece"])
        self._set(metrics.live_ece_null95, found["ece_null95"])
        if found["accepted"] is not None and found["accepted"]["risk"] is not None:
            self._set(metrics.live_accepted_risk, found["accepted"]["risk"])
        for each in found["coverage"]:
            self._set(metrics.live_coverage, each["coverage"], str(each["alpha"]))

    def report(self) -> dict[str, Any]:
        """Return what other processes need to tell of all together; see `service.monitoring.report`."""
        self._count_judged()
        windows = self.windows
        return {
            "stale": self.is_stale,
            "rows": 0 if windows is None else windows.rows,
            "window": None if windows is None or windows.last is None else spread_as_json(windows.last),
            "outcomes": self.live.sums.as_json(),
        }

    def close(self, *, replaced: bool) -> None:
        """Tell the metrics that it is not served any more, or the very same bundle anew in its place.

        What was measured of it holds no more. A gauge of several processes cannot be removed, but become NaN.
        """
        self._count_judged()
        self._closed = True
        if not replaced:
            self._metrics.calibration_info.labels(*self._info).set(0)
        for gauge in self._gauges:
            gauge.set(math.nan)

    def is_like(self, other: Monitored) -> bool:
        """Whether another is of the same graph of the same bundle."""
        return (self._info, self.graph) == (other._info, other.graph)

    def _count_judged(self) -> None:
        judged, self._judged = self._judged, []
        if judged:
            self.count(Judged.joined(judged))

    def _set(self, gauge: Gauge, value: float, *labels: str) -> None:
        child = gauge.labels(*self._model, *labels)
        child.set(value)
        self._gauges.add(child)

    def _tell_window(self, windows: Windows) -> None:
        """Tell the metrics of a window that has ended."""
        metrics, spread = self._metrics, windows.last
        assert spread is not None
        for each in windows.findings:
            if each.test == "psi":
                self._set(metrics.drift_psi, each.effect, each.signal)
            self._set(metrics.drift_pvalue, each.p_value, each.signal, each.test)
        self._set(metrics.calibration_stale, windows.is_stale)
        self._set(metrics.accuracy_estimated, spread.sum_confidence / spread.rows, "cbpe")
        assert self.evidence is not None
        for label, share in label_priors(spread, self.labels, self.evidence).items():
            self._set(metrics.label_prior_estimate, share, label)


def set_sizes(judged: Judged) -> list[NDArray[np.int64]]:
    """Return for each of the fixed alphas how many labels each set holds, the answer always among them."""
    p_values = judged.label_p_values
    best = p_values[np.arange(len(p_values)), judged.answers]
    return [(p_values > alpha).sum(axis=1) + (best <= alpha) for alpha in FIXED_ALPHAS]


def verdicts(evidence: Evidence, judged: Judged) -> dict[tuple[str, str], int]:
    """Return (accepted, reason) -> answers, by the bundle's own policy; two reasons are joined by a plus."""
    facts = evidence.facts
    threshold = threshold_for(evidence, facts.default_target_risk)
    novel = judged.novelty_p_values <= facts.novelty_alpha
    rest = "no_threshold" if threshold is None else "low_confidence"
    low = judged.confidences < (math.inf if threshold is None else threshold.threshold)
    return {
        ("true", ""): int((~novel & ~low).sum()),
        ("false", "ood"): int((novel & ~low).sum()),
        ("false", rest): int((~novel & low).sum()),
        ("false", f"ood+{rest}"): int((novel & low).sum()),
    }


def _by_bucket(values: Floats | NDArray[np.int64], edges: tuple[float, ...]) -> list[int]:
    counts: list[int] = np.bincount(
        np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1
    ).tolist()
    return counts
