"""Measure how long graphs take, fairly on a noisy machine: interleaved runs, one thread, medians."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping

from bundle.datatypes import Array
from bundle.manifest import Precision
from bundle.predictor import Predictor

ROUNDS = 60


def measure_latency(
    predictors: Mapping[Precision, Predictor], feeds: dict[str, Array], rounds: int = ROUNDS
) -> dict[Precision, float]:
    """Return the median milliseconds of one run of each graph on the same inputs.

    The graphs take turns, so that whatever slows the machine down slows them all; only their ratio
    means anything elsewhere.
    """
    times: dict[Precision, list[float]] = {precision: [] for precision in predictors}
    for predictor in predictors.values():
        predictor.run_feeds(feeds)
    for _ in range(rounds):
        for precision, predictor in predictors.items():
            start = time.perf_counter()
            predictor.run_feeds(feeds)
            times[precision].append((time.perf_counter() - start) * 1e3)
    return {precision: statistics.median(values) for precision, values in times.items()}
