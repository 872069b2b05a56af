"""Prediction sets on the test split: how often they hold the right label, and how large they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from training.report.answers import Answers, Bools
from training.report.calibration import share_interval

ALPHAS = (0.1, 0.05, 0.01)
SCOPES = ("marginal", "label")
BAND = 0.99


@dataclass(frozen=True)
class LabelCoverage:
    """How often the sets of inputs of one label hold it; no answer is put in."""

    label: str
    n: int
    coverage: float | None
    ci95: tuple[float, float]


@dataclass(frozen=True)
class Sets:
    """The sets at one alpha.

    Attributes:
        scope: "marginal", from all scores of the conformal split; "label", from those of each label.
        coverage: share of sets that hold the right label, before the answer itself is put in; and with it.
        band99: where the coverage lies for all but one of a hundred such pairs of splits; only for
            "marginal".
        mean_size: before the answer itself is put in; and with it, as `:confidence` tells.
        sizes: sets of 0, 1, 2, … labels, with the answer.
    """

    alpha: float
    scope: str
    n_calibration: int
    coverage: float
    coverage_with_answer: float
    band99: tuple[float, float] | None
    mean_size: float
    mean_size_with_answer: float
    empty: float
    sizes: tuple[int, ...]
    by_label: tuple[LabelCoverage, ...]


def measure_sets(answers: Answers, labels: Sequence[str]) -> tuple[Sets, ...]:
    """Measure the sets at every alpha and scope; nothing where there is no evidence."""
    if answers.evidence is None:
        return ()
    return tuple(_measure(answers, labels, scope, alpha) for scope in SCOPES for alpha in ALPHAS)


def coverage_band(
    n_calibration: int, n_test: int, alpha: float, level: float = BAND
) -> tuple[float, float] | None:
    """Return where the observed coverage of n_test inputs lies with a probability of `level`.

    The covered ones are Beta-binomial with k and n + 1 - k, k = ceil((n + 1)(1 - alpha)), over draws of both
    splits (Vovk 2012; Angelopoulos and Bates 2021, section 3.2). None where so few scores exclude nothing.
    """
    k = math.ceil(round((n_calibration + 1) * (1 - alpha), 9))
    if k > n_calibration:
        return None
    law = stats.betabinom(n_test, k, n_calibration + 1 - k)
    tail = (1 - level) / 2
    return float(law.ppf(tail) / n_test), float(law.ppf(1 - tail) / n_test)


def _measure(answers: Answers, labels: Sequence[str], scope: str, alpha: float) -> Sets:
    assert answers.evidence is not None
    p_values = answers.p_values(scope)
    assert p_values is not None
    rows = np.arange(len(answers.labels))
    inside = p_values > alpha
    completed = inside.copy()
    completed[rows, answers.chosen] = True
    covered = inside[rows, answers.labels]
    n_calibration = len(answers.evidence.lac)
    return Sets(
        alpha=alpha,
        scope=scope,
        n_calibration=n_calibration,
        coverage=float(covered.mean()),
        coverage_with_answer=float(completed[rows, answers.labels].mean()),
        band99=coverage_band(n_calibration, len(rows), alpha) if scope == "marginal" else None,
        mean_size=float(inside.sum(axis=1).mean()),
        mean_size_with_answer=float(completed.sum(axis=1).mean()),
        empty=float((~inside.any(axis=1)).mean()),
        sizes=tuple(np.bincount(completed.sum(axis=1)).tolist()),
        by_label=_by_label(covered, answers, labels),
    )


def _by_label(covered: Bools, answers: Answers, labels: Sequence[str]) -> tuple[LabelCoverage, ...]:
    found = []
    for index, label in enumerate(labels):
        own = covered[answers.labels == index]
        share = float(own.mean()) if len(own) else None
        found.append(LabelCoverage(label, len(own), share, share_interval(int(own.sum()), len(own))))
    return tuple(found)
