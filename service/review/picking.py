"""Which rows of a run are worth a look by a person: those whose answers should not be relied on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bundle.answer import Answer
from bundle.judgement import refusals, threshold_for
from bundle.predictor import Predictor

# Beside the reasons of `bundle.judgement.refusals`: the confidence is under a bound of the operator's own.
BELOW_BOUND = "below_bound"
_DOUBTS = frozenset({"ood", "low_confidence", BELOW_BOUND})


class Picked(NamedTuple):
    """One row that was picked; see `service.review.items.Item` for the rest.

    Attributes:
        place: of the row in its run.
    """

    place: int
    answer: str
    confidence: float | None
    confidence_raw: float
    novelty_p_value: float | None
    reasons: tuple[str, ...]
    sureness: float


def can_pick(predictor: Predictor, max_confidence: float) -> bool:
    """Whether rows of a model could be picked at all: it classifies, and there is something to go by."""
    classifies = predictor.bundle.manifest.task == "classification"
    return classifies and (predictor.evidence is not None or max_confidence > 0)


def is_judged(predictor: Predictor, answers: Sequence[Answer]) -> bool:
    """Whether a caller's own question has had all computed that picking goes by."""
    wanted = {"confidences"} if predictor.evidence is None else {"judged", "judgements"}
    return not wanted.isdisjoint(answers[0].run.__dict__)  # where a cached property keeps its value


def pick(predictor: Predictor, answers: Sequence[Answer], max_confidence: float) -> list[Picked]:
    """Return the rows whose answers the model's default policy does not accept, or that it is less sure of.

    Args:
        answers: all of one run of a classification.
        max_confidence: answers with a smaller confidence are picked whatever the policy says; where nothing
            was calibrated, it is compared with the raw one.
    """
    manifest = predictor.bundle.manifest
    calibrated = manifest.graphs[predictor.precision].temperature is not None
    evidence = predictor.evidence
    threshold = None if evidence is None else threshold_for(evidence, evidence.facts.default_target_risk)
    picked = []
    for index, answer in enumerate(answers):
        found = answer.confidence
        best = found.order[0]
        confidence, novelty = found.probabilities[best], None
        reasons: list[str] = []
        if evidence is not None:
            judgement = answer.judgement
            novelty = judgement.novelty_p_value
            reasons = refusals(evidence, judgement, confidence, threshold)
        if confidence < max_confidence:
            reasons.append(BELOW_BOUND)
        if _DOUBTS.isdisjoint(reasons):
            continue
        sureness = min(confidence, novelty) if novelty is not None and "ood" in reasons else confidence
        shown = confidence if calibrated else None
        picked.append(
            Picked(
                index, manifest.labels[best], shown, found.raw_confidence, novelty, tuple(reasons), sureness
            )
        )
    return picked
