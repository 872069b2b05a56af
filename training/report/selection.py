"""What is gained by accepting only the surer answers: risk over coverage, and learned thresholds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from training.report.answers import Answers, Bools, Floats
from training.report.calibration import share_interval

# Points of the curve that are kept: a picture shows no more.
_POINTS = 200


@dataclass(frozen=True)
class Curve:
    """The share of wrong answers among the surest ones.

    Attributes:
        coverage: shares of all answers, growing.
        risk: share of wrong ones among so many of the surest.
        oracle: the same, if every right answer were surer than every wrong one.
    """

    coverage: tuple[float, ...]
    risk: tuple[float, ...]
    oracle: tuple[float, ...]


@dataclass(frozen=True)
class Tried:
    """A threshold that was learned on the conformal split, and what it does to the test split.

    Attributes:
        coverage: share of answers that the whole rule accepts.
        n, errors: how many those are, and how many of them are wrong.
        risk: share of wrong answers among those accepted; None where none is.
        ci95: Clopper-Pearson interval of the risk.
        learned_coverage: of the conformal split.
    """

    target_risk: float
    delta: float
    threshold: float
    learned_coverage: float
    coverage: float
    n: int
    errors: int
    risk: float | None
    ci95: tuple[float, float]


@dataclass(frozen=True)
class Selection:
    """How well confidence tells right answers from wrong ones.

    Attributes:
        aurc: mean risk over all coverages; e_aurc, what of it a better order would spare.
        augrc: mean share of all answers that are accepted and wrong (Traub et al. 2024).
        auroc_of_errors: how often a right answer is surer than a wrong one; None without either.
        default_target_risk: of the threshold that holds where a caller names none.
    """

    aurc: float
    e_aurc: float
    augrc: float
    auroc_of_errors: float | None
    default_target_risk: float | None
    thresholds: tuple[Tried, ...]
    curve: Curve


def measure_selection(answers: Answers) -> Selection:
    """Measure what accepting only the surer answers does."""
    wrong = _by_confidence(answers.confidences, answers.correct)
    risk, oracle = _risks(wrong), _risks(np.sort(wrong))
    kept = np.unique(np.linspace(0, len(wrong) - 1, _POINTS).round().astype(np.int64))
    facts = answers.evidence.facts if answers.evidence is not None else None
    return Selection(
        aurc=float(risk.mean()),
        e_aurc=float(risk.mean() - oracle.mean()),
        augrc=float((np.cumsum(wrong) / len(wrong)).mean()),
        auroc_of_errors=auroc(answers.confidences[answers.correct], answers.confidences[~answers.correct]),
        default_target_risk=None if facts is None else facts.default_target_risk,
        thresholds=_try_thresholds(answers),
        curve=Curve(
            tuple(((kept + 1) / len(wrong)).tolist()),
            tuple(risk[kept].tolist()),
            tuple(oracle[kept].tolist()),
        ),
    )


def auroc(high: Floats, low: Floats) -> float | None:
    """Return how often a value of the first kind is larger than one of the second; ties count half.

    None where there is none of a kind.
    """
    if not len(high) or not len(low):
        return None
    ranks = stats.rankdata(np.concatenate([high, low]))[: len(high)]
    return float((ranks.sum() - len(high) * (len(high) + 1) / 2) / (len(high) * len(low)))


def accepted_by(answers: Answers, threshold: float) -> Bools:
    """Return (n,) whether the rule of `:confidence` accepts each answer; there must be evidence."""
    assert answers.evidence is not None
    assert answers.novelty is not None
    familiar = answers.novelty > answers.evidence.facts.novelty_alpha
    return np.asarray(familiar & (answers.confidences >= threshold))


def _try_thresholds(answers: Answers) -> tuple[Tried, ...]:
    found = []
    for each in answers.evidence.facts.thresholds if answers.evidence is not None else ():
        accepted = accepted_by(answers, each.threshold)
        n, errors = int(accepted.sum()), int((~answers.correct[accepted]).sum())
        found.append(
            Tried(
                target_risk=each.target_risk,
                delta=each.delta,
                threshold=each.threshold,
                learned_coverage=each.coverage,
                coverage=n / len(accepted),
                n=n,
                errors=errors,
                risk=errors / n if n else None,
                ci95=share_interval(errors, n),
            )
        )
    return tuple(found)


def _by_confidence(confidences: Floats, correct: Bools) -> Bools:
    """Whether each answer is wrong, the surest first."""
    return ~correct[np.argsort(-confidences, kind="stable")]


def _risks(wrong: Bools) -> Floats:
    """The share of wrong ones among the first 1, 2, … answers."""
    return np.asarray(np.cumsum(wrong) / np.arange(1, len(wrong) + 1))
