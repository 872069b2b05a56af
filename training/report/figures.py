"""The figures that the project's own models must reach: each with its bounds, and whether it holds.

They are told of the int8 graph, which serves. Nothing is refused for them here: the report says how it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from training.report.comparison import Comparison
from training.report.measures import Measures
from training.report.sets import Sets
from training.report.strangers import Stranger


@dataclass(frozen=True)
class Figure:
    """One figure and its bounds.

    Attributes:
        value: None where it was not measured.
        low, high: bounds, inclusive; None where there is none.
        held: None where nothing was measured.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    held: bool | None


Value = Callable[[Measures], float | None]
# Name, how it is measured, and its bounds.
Bound = tuple[str, Value, float | None, float | None]


def check_figures(
    recipe: str, measures: Measures | None, comparison: Comparison | None
) -> tuple[Figure, ...]:
    """Hold the figures of a recipe's model against its bounds; nothing for other models.

    Args:
        measures: of the int8 graph.
    """
    if measures is None or recipe not in BOUNDS:
        return ()
    agreement = None if comparison is None else comparison.agreement
    checked = [_check("agreement with fp32", agreement, LEAST_AGREEMENT[recipe], None)]
    return (*(_check(name, of(measures), low, high) for name, of, low, high in BOUNDS[recipe]), *checked)


def _check(name: str, value: float | None, low: float | None, high: float | None) -> Figure:
    held = None
    if value is not None:
        held = (low is None or value >= low) and (high is None or value <= high)
    return Figure(name, value, low, high, held)


def _of_sets(alpha: float, value: Callable[[Sets], float]) -> Value:
    def measure(measures: Measures) -> float | None:
        found = measures.sets_at(alpha)
        return None if found is None else value(found)

    return measure


def _coverage(alpha: float) -> Value:
    return _of_sets(alpha, lambda sets: sets.coverage)


def _size(alpha: float) -> Value:
    return _of_sets(alpha, lambda sets: sets.mean_size_with_answer)


def _stranger(name: str) -> Value:
    def measure(measures: Measures) -> float | None:
        kinds: tuple[Stranger, ...] = () if measures.novelty is None else measures.novelty.strangers
        return next((each.auroc for each in kinds if each.name == name), None)

    return measure


def _accepted(target_risk: float) -> Value:
    def measure(measures: Measures) -> float | None:
        found = measures.threshold_for(target_risk)
        return None if found is None else found.coverage

    return measure


def _risk(target_risk: float) -> Value:
    def measure(measures: Measures) -> float | None:
        found = measures.threshold_for(target_risk)
        return None if found is None else found.risk

    return measure


def _false_flags(measures: Measures) -> float | None:
    return None if measures.novelty is None else measures.novelty.false_flags


LEAST_AGREEMENT: Mapping[str, float] = {"mnist-cnn": 0.999, "spoken-digits-lstm": 0.99}
BOUNDS: Mapping[str, tuple[Bound, ...]] = {
    "mnist-cnn": (
        ("accuracy", lambda m: m.accuracy, 0.99, None),
        ("negative log likelihood", lambda m: m.nll, None, 0.03),
        ("Brier score (0..2)", lambda m: m.brier, None, 0.015),
        ("calibration error (15 bins)", lambda m: m.calibration.ece15, None, 0.003),
        ("p-value of being calibrated", lambda m: m.calibration.null_p_value, 0.01, None),
        ("coverage of sets at alpha .1, answer not put in", _coverage(0.1), 0.886, 0.913),
        ("coverage of sets at alpha .05, answer not put in", _coverage(0.05), 0.940, 0.959),
        ("mean size of sets at alpha .05, with the answer", _size(0.05), None, 1.01),
        ("mean size of sets at alpha .01, with the answer", _size(0.01), None, 1.05),
        ("AUROC of novelty: turned by 90 degrees", _stranger("turned by 90 degrees"), 0.98, None),
        ("AUROC of novelty: notMNIST", _stranger("notMNIST"), 0.99, None),
        ("familiar inputs flagged at .05", _false_flags, 0.03, 0.06),
        ("area under the risk-coverage curve", lambda m: m.selection.aurc, None, 0.25e-3),
        ("accepted at target risk .5 %", _accepted(0.005), 0.96, None),
        ("wrong among them", _risk(0.005), None, 0.005),
    ),
    "spoken-digits-lstm": (
        ("accuracy", lambda m: m.accuracy, 0.965, None),
        ("negative log likelihood", lambda m: m.nll, None, 0.10),
        ("Brier score (0..2)", lambda m: m.brier, None, 0.045),
        ("calibration error (15 bins)", lambda m: m.calibration.ece15, None, 0.03),
        ("p-value of being calibrated", lambda m: m.calibration.null_p_value, 0.01, None),
        ("coverage of sets at alpha .1, answer not put in", _coverage(0.1), 0.830, 0.957),
        ("coverage of sets at alpha .05, answer not put in", _coverage(0.05), 0.897, 0.987),
        ("mean size of sets at alpha .05, with the answer", _size(0.05), None, 1.10),
        ("AUROC of novelty: white noise", _stranger("white noise as loud"), 0.99, None),
        ("AUROC of novelty: played backwards", _stranger("played backwards"), 0.90, None),
        ("familiar inputs flagged at .05", _false_flags, 0.02, 0.09),
        ("area under the risk-coverage curve", lambda m: m.selection.aurc, None, 3e-3),
        ("accepted at target risk 2 %", _accepted(0.02), 0.90, None),
        ("wrong among them", _risk(0.02), None, 0.02),
    ),
}
