"""The int8 graph beside the fp32 graph that it was made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bundle.manifest import Manifest, Precision
from training.report.answers import Answers, Floats

# Edges of the histogram of the largest difference of a probability.
SHIFT_EDGES = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)


@dataclass(frozen=True)
class Flip:
    """Rows of one right label whose answer is another one in int8."""

    label: str
    n: int
    flips: int


@dataclass(frozen=True)
class Comparison:
    """How int8 differs from fp32 on the test split.

    Attributes:
        agreement: share of rows with the same label.
        mean_shift, max_shift: of the probability that moves most, over rows.
        shifts: rows whose largest difference lies between each two of `SHIFT_EDGES`.
        gained, lost: rows that only int8 has right, and only fp32.
        size_ratio: int8 / fp32 of the file; latency_ratio, batch size -> the same of the median latency, as
            it was measured before the bundle was published.
        difference: [right label][label] -> mean of p(int8) - p(fp32).
    """

    agreement: float
    flips: tuple[Flip, ...]
    gained: int
    lost: int
    mean_shift: float
    max_shift: float
    shifts: tuple[int, ...]
    size_bytes: Mapping[str, int]
    size_ratio: float
    latency_ms: Mapping[str, Mapping[int, float]]
    latency_ratio: Mapping[int, float]
    difference: tuple[tuple[float, ...], ...]


def compare(
    manifest: Manifest, sizes: Mapping[Precision, int], answers: Mapping[Precision, Answers]
) -> Comparison | None:
    """Compare the answers of both graphs; None where there is one alone.

    Args:
        sizes: bytes of each graph.
    """
    if not {"int8", "fp32"} <= set(answers):
        return None
    int8, fp32 = answers["int8"], answers["fp32"]
    same = int8.chosen == fp32.chosen
    shift = np.abs(int8.probabilities - fp32.probabilities).max(axis=1)
    latencies = _latencies(manifest)
    both = latencies.get("int8", {}).keys() & latencies.get("fp32", {}).keys()
    return Comparison(
        agreement=float(same.mean()),
        flips=_flips(manifest.labels, int8, fp32),
        gained=int((int8.correct & ~fp32.correct).sum()),
        lost=int((fp32.correct & ~int8.correct).sum()),
        mean_shift=float(shift.mean()),
        max_shift=float(shift.max()),
        shifts=tuple(np.histogram(shift, SHIFT_EDGES)[0].tolist()),
        size_bytes={"int8": sizes["int8"], "fp32": sizes["fp32"]},
        size_ratio=sizes["int8"] / sizes["fp32"],
        latency_ms=latencies,
        latency_ratio={size: latencies["int8"][size] / latencies["fp32"][size] for size in sorted(both)},
        difference=tuple(tuple(row) for row in mean_difference(int8, fp32).tolist()),
    )


def mean_difference(int8: Answers, fp32: Answers) -> Floats:
    """Return (labels, labels): for rows of each right label, the mean of p(int8) - p(fp32) of every label."""
    difference = int8.probabilities - fp32.probabilities
    count = difference.shape[1]
    sums = np.zeros((count, count))
    np.add.at(sums, int8.labels, difference)
    return np.asarray(sums / np.maximum(1, np.bincount(int8.labels, minlength=count))[:, np.newaxis])


def _flips(labels: Sequence[str], int8: Answers, fp32: Answers) -> tuple[Flip, ...]:
    flipped = int8.chosen != fp32.chosen
    return tuple(
        Flip(label, int((int8.labels == i).sum()), int((flipped & (int8.labels == i)).sum()))
        for i, label in enumerate(labels)
    )


def _latencies(manifest: Manifest) -> dict[str, dict[int, float]]:
    return {
        precision: dict(graph.metrics.latency_ms)
        for precision, graph in manifest.graphs.items()
        if graph.metrics is not None
    }
