"""The pictures of figures: reliability, risk over coverage, mistakes, sets, slices, int8 beside fp32."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from training.report.comparison import SHIFT_EDGES, Comparison
from training.report.drawing import BLUE, GREEN, GREY, ORANGE, draw, heat_map
from training.report.measures import Measures
from training.report.slices import Slice

# With more labels their names are too small to read.
MAX_LABELS = 50
_MAX_NUMBERS = 20


def draw_reliability(measures: Measures) -> str:
    """Draw how often answers were right, over how sure they were, with the number of each below."""
    bins = measures.calibration.bins
    middles = np.array([(each.low + each.high) / 2 for each in bins])
    width = bins[0].high - bins[0].low
    counts = np.array([each.n for each in bins])

    def paint(figure: Figure) -> None:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        above.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="as sure as right")
        filled = [each for each in bins if each.accuracy is not None and each.confidence is not None]
        accuracies = np.array([each.accuracy for each in filled], np.float64)
        ends = np.abs(np.array([each.ci95 for each in filled]).T - accuracies)
        above.bar(
            [(each.low + each.high) / 2 for each in filled], accuracies, width * 0.94, color=BLUE, alpha=0.35
        )
        above.errorbar(
            [each.confidence for each in filled], accuracies, ends, fmt="o", color=BLUE, markersize=4,
            elinewidth=1.3, capsize=2.5, label="share right, 95 % interval",
        )  # fmt: skip
        above.set(ylabel="share of right answers", xlim=(0, 1), ylim=(0, 1.03))
        above.legend(loc="upper left")
        below.bar(middles, np.maximum(counts, 0.5), width * 0.94, color=GREY, alpha=0.7)
        below.set(yscale="log", ylabel="answers", xlabel="confidence", ylim=(0.7, counts.max() * 2))

    return draw("reliability diagram", (5.2, 4.6), paint)


def draw_selection(measures: Measures) -> str:
    """Draw the share of wrong answers among the surest, the best possible one, and the chosen threshold."""
    selection = measures.selection
    curve = selection.curve
    chosen = measures.threshold_for(selection.default_target_risk)

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot(curve.coverage, curve.risk, color=BLUE, label="by confidence")
        axes.plot(curve.coverage, curve.oracle, color=GREY, linestyle="--", label="best possible order")
        if chosen is not None and chosen.risk is not None:
            axes.axhline(chosen.target_risk, color=ORANGE, linewidth=1, linestyle=":", label="target risk")
            axes.plot(
                [chosen.coverage], [chosen.risk], "o", color=ORANGE, label=f"accepted: {chosen.coverage:.1%}"
            )
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1))
        axes.set(xlabel="share of answers, the surest first", ylabel="share of wrong ones among them")
        axes.set_xlim(0, 1.01)
        axes.set_ylim(bottom=0)
        axes.legend(loc="upper left")

    return draw("risk over coverage", (5.2, 3.6), paint)


def draw_confusion(measures: Measures, labels: Sequence[str]) -> str:
    """Draw which labels were answered for which: shares as shades, numbers as text."""
    counts = np.array(measures.confusion)
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        # The root, so that the few mistakes of a good model can be seen at all.
        heat_map(axes, np.sqrt(shares), rows=list(labels), limit=1.0)
        axes.set_xticks(range(len(labels)), labels, rotation=90 if max(map(len, labels)) > 3 else 0)
        axes.set(xlabel="answer", ylabel="right label")
        if len(labels) <= _MAX_NUMBERS:
            _write_counts(axes, counts)

    side = 2.2 + 0.36 * len(labels) if len(labels) <= _MAX_NUMBERS else 8.0
    return draw("confusion matrix", (side, side * 0.92), paint)


def _write_counts(axes: Axes, counts: np.ndarray) -> None:
    for (row, column), count in np.ndenumerate(counts):
        if count:
            axes.text(column, row, f"{count:,}", ha="center", va="center", fontsize=8)


def draw_sets(measures: Measures) -> str:
    """Draw the coverage of the sets at each alpha with its band, and for each label."""
    marginal = [each for each in measures.sets if each.scope == "marginal"]

    def paint(figure: Figure) -> None:
        panels = figure.subplots(1, len(marginal), sharey=True, squeeze=False)[0]
        for axes, sets in zip(panels, marginal, strict=True):
            if sets.band99 is not None:
                axes.axvspan(*sets.band99, color=GREY, alpha=0.25, linewidth=0)
            axes.axvline(1 - sets.alpha, color=GREY, linewidth=1, linestyle="--")
            axes.axvline(sets.coverage, color=BLUE)
            known = [each for each in sets.by_label if each.coverage is not None]
            places = [i for i, each in enumerate(sets.by_label) if each.coverage is not None]
            shares = np.array([each.coverage for each in known], np.float64)
            ends = np.abs(np.array([each.ci95 for each in known]).T - shares)
            axes.errorbar(
                shares, places, xerr=ends, fmt="o", color=ORANGE, markersize=3.5, elinewidth=1, alpha=0.9
            )
            axes.xaxis.set_major_formatter(PercentFormatter(1))
            axes.locator_params(axis="x", nbins=5)
            axes.set_title(f"alpha {sets.alpha:g}: {sets.coverage:.1%}")
        panels[0].set_yticks(range(len(marginal[0].by_label)), [each.label for each in marginal[0].by_label])
        panels[0].invert_yaxis()
        panels[0].set_ylabel("right label")
        figure.supxlabel("share of sets that hold the right label", fontsize=9)

    height = 1.5 + 0.19 * min(MAX_LABELS, len(marginal[0].by_label))
    return draw("coverage of prediction sets", (7.6, height), paint)


def draw_slices(kind: str, slices: Sequence[Slice]) -> str:
    """Draw the accuracy of each slice with its interval, beside how sure its answers were."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        places = np.arange(len(slices))
        accuracies = np.array([each.accuracy for each in slices])
        ends = np.abs(np.array([each.ci95 for each in slices]).T - accuracies)
        axes.errorbar(
            accuracies,
            places,
            xerr=ends,
            fmt="o",
            color=BLUE,
            markersize=4.5,
            label="share right, 95 % interval",
        )
        axes.plot([each.confidence for each in slices], places, "|", color=ORANGE, markersize=11,
                  markeredgewidth=2, label="mean confidence")  # fmt: skip
        axes.set_yticks(places, [f"{each.name}  ({each.n:,})" for each in slices])
        axes.invert_yaxis()
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        figure.legend(loc="outside lower center", ncols=2)

    return draw(f"accuracy by {kind}", (5.4, 1.1 + 0.25 * len(slices)), paint)


def draw_shifts(comparison: Comparison) -> str:
    """Draw how far the probability that moves most moves from fp32 to int8, over rows."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        shares = np.array(comparison.shifts) / sum(comparison.shifts)
        axes.bar(range(len(shares)), shares, 0.9, color=BLUE, alpha=0.75)
        names = [f"< {high:g}" for high in SHIFT_EDGES[1:-1]] + [f"≥ {SHIFT_EDGES[-2]:g}"]
        axes.set_xticks(range(len(shares)), names)
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.set(xlabel="largest change of a probability", ylabel="share of the test split")

    return draw("change of probabilities", (5.2, 2.7), paint)


def draw_difference(comparison: Comparison, labels: Sequence[str]) -> str:
    """Draw the mean difference of the probabilities, for each right label and each label."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        image = heat_map(axes, np.array(comparison.difference), both_ways=True, rows=list(labels))
        axes.set_xticks(range(len(labels)), labels, rotation=90 if max(map(len, labels)) > 3 else 0)
        axes.set(xlabel="label", ylabel="right label")
        bar = figure.colorbar(image, shrink=0.8, format="%.0e")
        bar.outline.set_visible(False)

    return draw("difference map", (4.9, 3.9), paint)


def draw_latencies(comparison: Comparison) -> str:
    """Draw the latency of both graphs by batch size."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for offset, (precision, color) in zip((-0.2, 0.2), (("int8", GREEN), ("fp32", GREY)), strict=True):
            times = comparison.latency_ms[precision]
            sizes = sorted(times)
            bars = axes.bar(
                np.arange(len(sizes)) + offset, [times[size] for size in sizes], 0.38, color=color,
                alpha=0.8, label=precision,
            )  # fmt: skip
            axes.bar_label(bars, fmt="%.2f", fontsize=8, padding=2)
            axes.set_xticks(range(len(sizes)), [f"batch {size}" for size in sizes])
        axes.set_ylabel("milliseconds a run")
        axes.legend(loc="upper left")

    return draw("latency by batch size", (5.2, 2.7), paint)
