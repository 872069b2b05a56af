"""Measure both graphs of an unpublished bundle through the predictor that will serve them.

The order matters: gates look at validation only, the temperature at its own split, and the test
split is scored last, when nothing is chosen any more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bundle.manifest import Metrics, Precision, Temperature
from bundle.predictor import Predictor, create_predictor
from bundle.repository import Bundle
from bundle.rows import collate
from training.calibrate import TemperatureFit, fit_temperature
from training.config import GateConfig
from training.data.splits import Examples, Splits
from training.errors import GateError
from training.isolation import allowed_shift, find_worst_mates
from training.latency import measure_latency
from training.scores import score

PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")
LATENCY_BATCHES = (1, 8, 32)
GATE_BATCH = 8

Logits = dict[Precision, NDArray[np.float32]]
Latencies = dict[Precision, dict[int, float]]


@dataclass(frozen=True)
class Evaluation:
    """What was measured of one graph."""

    temperature: Temperature
    metrics: Metrics


def evaluate(bundle: Bundle, splits: Splits, gates: GateConfig) -> dict[Precision, Evaluation]:
    """Gate, calibrate and score both graphs of a bundle.

    Args:
        bundle: with graphs and facts, but without temperatures and metrics.

    Raises:
        GateError: the int8 graph is slower, less accurate or less faithful than allowed, or rows that
            run together change each other's answers.
    """
    predictors = {precision: create_predictor(bundle, precision) for precision in PRECISIONS}
    latencies = _latencies(predictors, splits.validation)
    check_gates(_logits(predictors, splits.validation), splits.validation.labels, latencies, gates)
    fits = {
        precision: fit_temperature(logits, splits.temperature.labels)
        for precision, logits in _logits(predictors, splits.temperature).items()
    }
    shifts = {
        precision: check_isolation(predictors[precision], splits.validation, fits[precision].value)
        for precision in PRECISIONS
    }
    test = _logits(predictors, splits.test)
    return {
        precision: Evaluation(
            temperature=_describe_temperature(fits[precision], test[precision], splits.test.labels),
            metrics=_describe_graph(
                predictors[precision], fits[precision].value, test, splits, latencies, shifts[precision]
            ),
        )
        for precision in PRECISIONS
    }


def check_gates(logits: Logits, labels: NDArray[np.int64], latencies: Latencies, gates: GateConfig) -> None:
    """Refuse an int8 graph that is not worth publishing.

    Args:
        logits: of both graphs on the validation split.
        latencies: precision -> batch size -> milliseconds.

    Raises:
        GateError: names the first figure that misses its bound.
    """
    fp32, int8 = score(logits["fp32"], labels), score(logits["int8"], labels)
    agreement = float((logits["fp32"].argmax(1) == logits["int8"].argmax(1)).mean())
    ratio = latencies["int8"][GATE_BATCH] / latencies["fp32"][GATE_BATCH]
    if not ratio <= gates.max_latency_ratio:
        raise GateError(
            f"int8 is not published: its latency at batch {GATE_BATCH} is {ratio:.2f} of fp32, "
            f"allowed is {gates.max_latency_ratio:g}"
        )
    if not fp32.accuracy - int8.accuracy <= gates.max_accuracy_loss:
        raise GateError(
            f"int8 is not published: it loses {fp32.accuracy - int8.accuracy:.4f} of accuracy on validation "
            f"({fp32.accuracy:.4f} to {int8.accuracy:.4f}), allowed is {gates.max_accuracy_loss:g}"
        )
    if not agreement >= gates.min_agreement:
        raise GateError(
            f"int8 is not published: it agrees with fp32 on {agreement:.4f} of validation, "
            f"required is {gates.min_agreement:g}"
        )


def check_isolation(predictor: Predictor, examples: Examples, temperature: float) -> float | None:
    """Refuse a graph whose rows change each other's answers when they run together.

    Returns:
        The largest shift of a probability that was found; None where rows never run together.

    Raises:
        GateError: it is above its bound, or a label changed.
    """
    manifest, precision = predictor.bundle.manifest, predictor.precision
    if manifest.max_batch_size == 1:
        return None
    found = find_worst_mates(predictor, examples.items, manifest.max_batch_size, temperature)
    allowed = allowed_shift(manifest.graphs[precision])
    if found.flips or not found.shift <= allowed:
        raise GateError(
            f"{precision} is not published for batches of {manifest.max_batch_size}: batch-mates were found "
            f"that change {found.flips} labels and move a probability by {found.shift:.2g}; "
            f"allowed are 0 and {allowed:g}"
        )
    return found.shift


def _logits(predictors: dict[Precision, Predictor], examples: Examples) -> Logits:
    return {
        precision: predictor.run_all(predictor.rows(examples.items)).logits
        for precision, predictor in predictors.items()
    }


def _latencies(predictors: dict[Precision, Predictor], examples: Examples) -> Latencies:
    manifest = predictors["int8"].bundle.manifest
    found: Latencies = {precision: {} for precision in predictors}
    for size in LATENCY_BATCHES:
        items = [examples.items[i % len(examples)] for i in range(size)]
        feeds = collate(manifest, predictors["int8"].rows(items))
        for precision, milliseconds in measure_latency(predictors, feeds).items():
            found[precision][size] = round(milliseconds, 4)
    return found


def _describe_temperature(
    fit: TemperatureFit, logits: NDArray[np.float32], labels: NDArray[np.int64]
) -> Temperature:
    return Temperature(
        value=fit.value,
        method="temperature_map" if fit.kept else "identity",
        n=fit.n,
        n_errors=fit.n_errors,
        ece_before=score(logits, labels).ece,
        ece_after=score(logits, labels, fit.value).ece,
    )


def _describe_graph(
    predictor: Predictor,
    temperature: float,
    test: Logits,
    splits: Splits,
    latencies: Latencies,
    mate_shift: float | None,
) -> Metrics:
    precision = predictor.precision
    scores = score(test[precision], splits.test.labels, temperature)
    return Metrics(
        n=scores.n,
        accuracy=scores.accuracy,
        nll=scores.nll,
        brier=scores.brier,
        agreement=float((test[precision].argmax(1) == test["fp32"].argmax(1)).mean()),
        latency_ms=latencies[precision],
        size_bytes=len(predictor.bundle.graph(precision)),
        mate_shift=mate_shift,
    )
