"""The monitor: judges a share of the runs that nobody had judged, and takes feedback.

What callers of `:confidence` had judged is counted when they are answered. Of what else runs, so many rows a
second of each version are judged as well, whole runs of them, so that the cost is bounded and little traffic
is seen whole.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from bundle.answer import Run
from bundle.confidence import softmax
from bundle.errors import InputError
from bundle.judgement import Judged, judge
from bundle.predictor import Predictor
from service.budget import Budget
from service.errors import ForgedFeedbackError, LateFeedbackError, RepeatedFeedbackError, ServiceError
from service.metrics import Metrics
from service.monitoring.keys import Keys
from service.monitoring.monitored import Monitored
from service.monitoring.once import Once
from service.monitoring.tokens import Claim, read_token
from service.tap import Shown
from service.turn import Together

# Live figures are made anew so long after feedback has come.
_TELL_S = 1.0
# Runs are judged together so often: each time costs about a millisecond, whatever it is for. Done with every
# showing of the tap, it took 7 % of the calls that a busy server answers.
_JUDGE_S = 0.25
# Answers whose feedback is remembered, so that it counts once.
_MOST_SEEN = 100_000
COUNTED = "counted"
_REPEATED = "the right label of this answer was told before"


class Feedback(NamedTuple):
    """What a caller tells of an answer: its right label, by name or by index."""

    prediction_id: str
    label: str | int


class Outcome(NamedTuple):
    """What became of one feedback.

    Attributes:
        name: "counted", or why it was refused, in a word.
        correct: whether the answer was right, where it was counted.
        error: why it was refused, or None.
    """

    name: str
    correct: bool | None = None
    error: ServiceError | InputError | None = None


class Monitor:
    """Everything that is monitored in this process. It belongs to the event loop.

    Args:
        metrics: told of everything.
        keys: of prediction ids.
        rows_per_s: how many rows of all versions to judge beside those that callers have judged; 0 for none.
        max_age_s: how long a prediction id is taken.
        clock: seconds that only grow.
        once: knows what other replicas have counted; None where nobody does.
    """

    def __init__(
        self,
        metrics: Metrics,
        keys: Keys,
        rows_per_s: int,
        max_age_s: int,
        clock: Callable[[], float] = time.monotonic,
        once: Once | None = None,
    ) -> None:
        self.clock = clock
        self._once = once
        self._metrics = metrics
        self._keys = keys
        self._rows_per_s = rows_per_s
        self._max_age_s = max_age_s
        self._monitored: dict[int, Monitored] = {}  # by the identity of the predictor
        self._budgets: dict[int, Budget] = {}
        self._seen: OrderedDict[bytes, None] = OrderedDict()
        self._later = Together(self.tell, _TELL_S)
        self._unjudged: dict[int, list[Run]] = {}
        self._judge_soon = Together(self._judge, _JUDGE_S)
        metrics.gatherers.append(self.tell)

    def open(self, predictor: Predictor) -> Monitored | None:
        """Monitor one more version from now on; None where its confidences mean nothing."""
        manifest = predictor.bundle.manifest
        calibrated = manifest.graphs[predictor.precision].temperature is not None
        if manifest.task != "classification" or not calibrated:
            return None
        found = Monitored(predictor, self._metrics, self._keys, lambda: self.clock())
        self._monitored[id(predictor)] = found
        self._budgets[id(predictor)] = Budget(self._rows_per_s, lambda: self.clock())
        self._share_out()
        return found

    def close(self, predictor: Predictor) -> None:
        """Monitor a version no more."""
        self._judge()
        found = self._monitored.pop(id(predictor), None)
        self._budgets.pop(id(predictor), None)
        self._share_out()
        if found is not None:
            found.close(replaced=any(found.is_like(each) for each in self._monitored.values()))
            self.tell()  # what has taken its place has the same gauges

    def observe(self, runs: Sequence[Shown]) -> None:
        """Choose some of what was not judged yet, to be judged and counted soon."""
        for shown in runs:
            which = id(shown.predictor)
            monitored = self._monitored.get(which)
            if monitored is None or monitored.evidence is None:
                continue
            run = shown.answers[0].run
            if not run.is_counted and self._budgets[which].take(len(shown.rows)):
                run.mark_counted()
                self._unjudged.setdefault(which, []).append(run)
                self._judge_soon.ask()

    async def take(self, name: str, served: Mapping[str, Monitored | None], feedback: Feedback) -> Outcome:
        """Take one feedback, and count what became of it.

        Args:
            name: of the model.
            served: its versions that are served.
        """
        version = ""
        try:
            claim = self._read(name, feedback.prediction_id)
            monitored = _find(name, served, claim)
            version = monitored.version
            label = _label_of(monitored, feedback.label)
            self._remember(claim)
            if self._once is not None and not await self._once.claim(claim.nonce):
                raise _RefusedError("repeated", RepeatedFeedbackError(_REPEATED))
        except _RefusedError as refused:
            outcome = Outcome(refused.name, error=refused.error)
        else:
            monitored.feed(claim, label)
            self._later.ask()
            outcome = Outcome(COUNTED, correct=claim.answer == label)
        self._metrics.feedback.labels(name, version, outcome.name).inc()
        return outcome

    async def stop(self) -> None:
        """Let go of what it holds. Call it when no request is left."""
        if self._once is not None:
            await self._once.stop()

    def tell(self) -> None:
        """Bring the gauges up to date; it happens by itself soon after feedback."""
        self._judge()
        for each in self._monitored.values():
            each.tell()

    def _judge(self) -> None:
        """Judge and count what was chosen for that."""
        unjudged, self._unjudged = self._unjudged, {}
        for which, found in unjudged.items():
            self._monitored[which].count(_judge_together(found))

    def _share_out(self) -> None:
        """Give each version the same part of what may be judged."""
        for each in self._budgets.values():
            each.per_s = self._rows_per_s / len(self._budgets)

    def _read(self, name: str, prediction_id: str) -> Claim:
        try:
            claim = read_token(self._keys, prediction_id)
        except ForgedFeedbackError as forged:
            raise _RefusedError("forged", forged) from forged
        if claim.model != name:
            raise _RefusedError(
                "wrong_model", InputError(f"the prediction_id is of the model {claim.model!r}")
            )
        if time.time() - claim.issued_s > self._max_age_s:
            error = LateFeedbackError(f"the prediction_id is older than {self._max_age_s} s")
            raise _RefusedError("expired", error)
        return claim

    def _remember(self, claim: Claim) -> None:
        if claim.nonce in self._seen:
            raise _RefusedError("repeated", RepeatedFeedbackError(_REPEATED))
        self._seen[claim.nonce] = None
        if len(self._seen) > _MOST_SEEN:
            self._seen.popitem(last=False)


class _RefusedError(Exception):
    """Feedback that is not counted.

    Attributes:
        name: why, in a word.
        error: what its caller is told.
    """

    def __init__(self, name: str, error: ServiceError | InputError) -> None:
        super().__init__(name)
        self.name = name
        self.error = error


def _judge_together(runs: Sequence[Run]) -> Judged:
    """Judge the rows of several runs of one graph at once, which costs little more than those of one."""
    first = runs[0]
    assert first.evidence is not None
    logits = np.concatenate([run.outputs.logits for run in runs])
    features = np.concatenate([run.outputs.features for run in runs])
    return judge(first.evidence, logits, features, softmax(logits, first.temperature))


def _find(name: str, served: Mapping[str, Monitored | None], claim: Claim) -> Monitored:
    """Return what answered."""
    found = served.get(claim.version)
    if found is None or found.graph != claim.graph:
        error = LateFeedbackError(f"what answered, {name}/{claim.version}, is not served any more")
        raise _RefusedError("not_served", error)
    return found


def _label_of(monitored: Monitored, label: str | int) -> int:
    """Return the index of a label that a caller names."""
    labels = monitored.labels
    if isinstance(label, str) and label in labels:
        return labels.index(label)
    if isinstance(label, int) and 0 <= label < len(labels):
        return label
    error = InputError(f"{monitored.name}/{monitored.version} has no label {str(label)[:80]!r}")
    raise _RefusedError("wrong_label", error)
