"""How well the spoken-digit LSTM knows speakers it never met: each in turn is left out of its training.

A job for evidence, not for a model: the recipe makes a bundle for each speaker as it would any other, the
predictor that would serve it is measured, and the bundle is thrown away. What was measured of a speaker is
kept, so that a job that was interrupted goes on with the next one.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from bundle.judgement import threshold_for
from bundle.predictor import Predictor, load_predictor
from training.config import Places, WorkPlaces
from training.data import fsdd
from training.data.splits import Examples, Splits
from training.provenance import git_commit
from training.recipes.spoken_digits_lstm import SpokenDigitsLstmConfig, build, facts
from training.report.answers import answer_all
from training.report.selection import accepted_by
from training.report.sets import measure_sets
from training.scores import calibration_p_value, expected_calibration_error

logger = logging.getLogger(__name__)

FOLDER = "held-out-speakers"
REPORT_FILE = "report.json"
ALPHAS = (0.1, 0.05)
# Recordings like those of training are flagged as novel this often.
FLAG_ALPHA = 0.05
COLUMNS = (
    "speaker", "accuracy", "mean confidence", "ECE15", "p of being calibrated", "covered at .1", "size",
    "covered at .05", "size", "novel at .05", "accepted", "wrong among them",
)  # fmt: skip


class Sets(BaseModel):
    """Prediction sets at one alpha.

    Attributes:
        coverage: share that holds the right label, before the answer itself is put in.
        coverage_as_served, mean_size: of what is served, where the answer always is in the set.
    """

    coverage: float
    coverage_as_served: float
    mean_size: float


class Figures(BaseModel):
    """What was measured of an int8 graph on n recordings.

    Attributes:
        ece, ece_p_value: calibration error, and how often a calibrated model has one as large.
        sets: by alpha.
        novel: share that is flagged as novel at .05.
        accepted: share that is accepted at the default target risk; 0 where no threshold was proven.
        risk: share of wrong answers among those; None where there are none.
    """

    n: int
    accuracy: float
    mean_confidence: float
    ece: float
    ece_p_value: float
    sets: dict[float, Sets]
    novel: float
    accepted: float
    risk: float | None


class SpeakerResult(BaseModel):
    """What came of training without one speaker.

    Attributes:
        new: on all recordings of that speaker.
        known: on the official test takes of the speakers that the model was trained on.
    """

    speaker: str
    temperature: float
    new: Figures
    known: Figures


class Report(BaseModel):
    """The results of all speakers, and what they were made with."""

    config: SpokenDigitsLstmConfig
    data_sha256: str
    git_commit: str
    target_risk: float
    speakers: list[SpeakerResult]


def measure_held_out_speakers(config: SpokenDigitsLstmConfig, places: WorkPlaces) -> tuple[Path, Report]:
    """Leave out each speaker in turn; return the report and the file that it was written to."""
    folder = places.runs_dir / FOLDER / f"{config.augmentation}-{config.sha256()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)  # rather now than after the training
    splits = fsdd.load_fsdd(places.data_dir)
    assert splits.test.groups is not None
    results = []
    for speaker in np.unique(splits.test.groups).tolist():
        kept = folder / f"{speaker}.json"
        if not kept.exists():
            logger.info("training without %s", speaker)
            _write(kept, _measure_without(speaker, config, splits, folder / speaker))
        results.append(SpeakerResult.model_validate_json(kept.read_bytes()))
    report = Report(
        config=config,
        data_sha256=fsdd.data_sha256(),
        git_commit=git_commit(),
        target_risk=facts(config).default_target_risk,
        speakers=results,
    )
    _write(folder / REPORT_FILE, report)
    return folder / REPORT_FILE, report


def _measure_without(
    speaker: str, config: SpokenDigitsLstmConfig, splits: Splits, runs_dir: Path
) -> SpeakerResult:
    """Make the bundle of a model that never met a speaker; measure it on this and on the known ones."""
    without = splits.hold_out(speaker)
    with tempfile.TemporaryDirectory() as models:
        bundle = build(config, Places(models_dir=Path(models), runs_dir=runs_dir), without)
        predictor = load_predictor(bundle, precision="int8")
    assert splits.test.groups is not None
    return SpeakerResult(
        speaker=speaker,
        temperature=predictor.temperature,
        new=measure(predictor, without.test),
        known=measure(predictor, splits.test.where(splits.test.groups != speaker)),
    )


def measure(predictor: Predictor, examples: Examples) -> Figures:
    """Measure what a predictor and its evidence say of recordings.

    Args:
        predictor: with evidence.
    """
    assert predictor.evidence is not None
    answers = answer_all(predictor, predictor.rows(examples.items), examples.labels)
    accepted = np.zeros(len(examples), np.bool_)
    threshold = threshold_for(predictor.evidence, predictor.evidence.facts.default_target_risk)
    if threshold is not None:
        accepted = accepted_by(answers, threshold.threshold)
    assert answers.novelty is not None
    return Figures(
        n=len(examples),
        accuracy=float(answers.correct.mean()),
        mean_confidence=float(answers.confidences.mean()),
        ece=expected_calibration_error(answers.confidences, answers.correct),
        ece_p_value=calibration_p_value(answers.confidences, answers.correct),
        sets={
            each.alpha: Sets(
                coverage=each.coverage,
                coverage_as_served=each.coverage_with_answer,
                mean_size=each.mean_size_with_answer,
            )
            for each in measure_sets(answers, predictor.bundle.manifest.labels)
            if each.scope == "marginal" and each.alpha in ALPHAS
        },
        novel=float((answers.novelty <= FLAG_ALPHA).mean()),
        accepted=float(accepted.mean()),
        risk=float((~answers.correct[accepted]).mean()) if accepted.any() else None,
    )


def render_table(report: Report) -> str:
    """Return a table in Markdown: a row for each new speaker, their mean, and that of the known speakers."""
    rows = [(result.speaker, [result.new]) for result in report.speakers]
    rows.append(("mean of new speakers", [result.new for result in report.speakers]))
    rows.append(("mean of known speakers", [result.known for result in report.speakers]))
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + " --- |" * len(COLUMNS)]
    lines += [f"| {name} | {' | '.join(_cells(figures))} |" for name, figures in rows]
    return "\n".join(lines)


def _cells(figures: list[Figures]) -> list[str]:
    """The means of some figures; the p-value of being calibrated has none."""

    def mean(pick: Callable[[Figures], float | None]) -> str:
        found = [value for value in map(pick, figures) if value is not None]
        return f"{np.mean(found):.3f}" if found else "none"

    return [
        mean(lambda each: each.accuracy),
        mean(lambda each: each.mean_confidence),
        mean(lambda each: each.ece),
        mean(lambda each: each.ece_p_value) if len(figures) == 1 else "",
        mean(lambda each: each.sets[0.1].coverage),
        mean(lambda each: each.sets[0.1].mean_size),
        mean(lambda each: each.sets[0.05].coverage),
        mean(lambda each: each.sets[0.05].mean_size),
        mean(lambda each: each.novel),
        mean(lambda each: each.accepted),
        mean(lambda each: each.risk),
    ]


def _write(path: Path, content: BaseModel) -> None:
    """Write a file whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_text(content.model_dump_json(indent=1) + "\n", encoding="utf-8")
    partial.replace(path)
