"""Inputs that a model should find new: made from the familiar ones, or items of another data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bundle.datatypes import Array
from bundle.judgement import threshold_for
from bundle.manifest import Manifest
from bundle.media import AudioDecoding, ImageDecoding
from bundle.predictor import Predictor
from training.report.answers import Answers, Subject, novelty_of
from training.report.selection import accepted_by, auroc

FLAGGED_AT = 0.05


@dataclass(frozen=True)
class Stranger:
    """How one kind of strange inputs looks to a graph.

    Attributes:
        auroc: how often such an input looks newer than a familiar one.
        flagged: share with a novelty p-value of at most .05.
        accepted: share that the rule of `:confidence` accepts for all that, at its usual target risk; None
            where no threshold was proven for that.
    """

    name: str
    n: int
    auroc: float | None
    flagged: float
    accepted: float | None


@dataclass(frozen=True)
class Novelty:
    """What a graph makes of familiar and of strange inputs.

    Attributes:
        false_flags: share of the test split with a novelty p-value of at most .05.
    """

    false_flags: float
    strangers: tuple[Stranger, ...]


def measure_novelty(subject: Subject, predictor: Predictor, answers: Answers) -> Novelty | None:
    """Measure how well a graph tells strange inputs from familiar ones; None where there is no evidence."""
    if answers.novelty is None:
        return None
    kinds = [*derive_strangers(subject.manifest, subject.items), *subject.strangers.items()]
    return Novelty(
        false_flags=float((answers.novelty <= FLAGGED_AT).mean()),
        strangers=tuple(_look_at(name, items, predictor, answers) for name, items in kinds),
    )


def derive_strangers(manifest: Manifest, items: Sequence[Array] | None) -> Iterator[tuple[str, list[Array]]]:
    """Yield kinds of inputs that are made from familiar ones and mean nothing to the model."""
    if items is None:
        return
    match manifest.decoding:
        case ImageDecoding(height=height, width=width):
            if height == width:
                yield "turned by 90 degrees", [np.rot90(item) for item in items]
            yield "dark and light swapped", [255 - item for item in items]
        case AudioDecoding():
            random = np.random.default_rng(0)
            yield "played backwards", [item[::-1].copy() for item in items]
            yield "white noise as loud", [_noise_like(item, random) for item in items]


def _noise_like(item: Array, random: np.random.Generator) -> Array:
    loudness = float(np.sqrt((item.astype(np.float64) ** 2).mean()))
    return random.normal(0, loudness, len(item)).clip(-1, 1).astype(np.float32)


def _look_at(name: str, items: Sequence[Array], predictor: Predictor, answers: Answers) -> Stranger:
    evidence = answers.evidence
    assert evidence is not None
    assert answers.novelty is not None
    rows = predictor.rows([np.ascontiguousarray(item) for item in items])
    outputs = predictor.run_all(rows)
    found = novelty_of(evidence, outputs)
    accepted = _accepted(Answers(outputs, np.zeros(len(rows), np.int64), answers.temperature, evidence))
    return Stranger(
        name=name,
        n=len(items),
        auroc=auroc(answers.novelty, found),
        flagged=float((found <= FLAGGED_AT).mean()),
        accepted=accepted,
    )


def _accepted(answers: Answers) -> float | None:
    assert answers.evidence is not None
    chosen = threshold_for(answers.evidence, answers.evidence.facts.default_target_risk)
    return None if chosen is None else float(accepted_by(answers, chosen.threshold).mean())
