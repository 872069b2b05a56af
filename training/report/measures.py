"""All that is measured of one graph's answers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from bundle.predictor import Predictor
from training.report.answers import Answers, Subject
from training.report.calibration import Calibration, measure_calibration
from training.report.selection import Selection, Tried, measure_selection
from training.report.sets import Sets, measure_sets
from training.report.slices import Slice, measure_slices
from training.report.strangers import Novelty, measure_novelty
from training.scores import brier_score, negative_log_likelihood


@dataclass(frozen=True)
class Measures:
    """What was measured of one graph on the test split.

    Attributes:
        sha256: of the graph's file.
        brier: from 0 to 2; see `training.scores`.
        sets: empty, and novelty None, where the bundle holds no evidence.
        confusion: [right label][answer] -> rows.
        slices: "label" and, where it is known, "group" -> the same for parts of the split.
    """

    sha256: str
    temperature: float
    calibrated: bool
    n: int
    accuracy: float
    nll: float
    brier: float
    calibration: Calibration
    selection: Selection
    sets: tuple[Sets, ...]
    novelty: Novelty | None
    confusion: tuple[tuple[int, ...], ...]
    slices: dict[str, tuple[Slice, ...]]

    def sets_at(self, alpha: float, scope: str = "marginal") -> Sets | None:
        """Return the sets at an alpha."""
        return next((each for each in self.sets if (each.alpha, each.scope) == (alpha, scope)), None)

    def threshold_for(self, target_risk: float | None) -> Tried | None:
        """Return what the threshold does that was learned for just this risk; None where none was proven."""
        return next((each for each in self.selection.thresholds if each.target_risk == target_risk), None)


def measure(subject: Subject, predictor: Predictor, answers: Answers) -> Measures:
    """Measure one graph.

    Args:
        answers: of its predictor, to the rows of the subject.
    """
    manifest = subject.manifest
    size = len(manifest.labels)
    confusion = np.bincount(answers.labels * size + answers.chosen, minlength=size * size)
    return Measures(
        sha256=hashlib.sha256(predictor.bundle.graph(predictor.precision)).hexdigest(),
        temperature=answers.temperature,
        calibrated=manifest.graphs[predictor.precision].temperature is not None,
        n=len(answers.labels),
        accuracy=float(answers.correct.mean()),
        nll=negative_log_likelihood(answers.outputs.logits, answers.labels, answers.temperature),
        brier=brier_score(answers.probabilities, answers.labels),
        calibration=measure_calibration(answers),
        selection=measure_selection(answers),
        sets=measure_sets(answers, manifest.labels),
        novelty=measure_novelty(subject, predictor, answers),
        confusion=tuple(tuple(row) for row in confusion.reshape(size, size).tolist()),
        slices=measure_slices(subject, answers),
    )
