"""The pictures of a network: weights, averages over answers, and what synthetic inputs do in it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training.report.answers import Floats
from training.report.drawing import BLUE, BOTH_WAYS, GREEN, GREY, ORANGE, draw, heat_map, montage, show_sheet
from training.report.network import Contributions, DrawnImage, SungSound, Units

_GATES = ["input", "output", "forget", "cell"]
_MAPS_SHOWN = 12
# Of the differences of states, how many lie within the shades: the few largest would hide the others.
_USUAL = 0.99


def draw_filters(filters: Floats) -> str:
    """Draw the kernels of the first convolution."""
    columns = min(16, len(filters))
    rows = -(-len(filters) // columns)
    scaled = [kernel / max(float(np.abs(kernel).max()), 1e-12) for kernel in filters]

    def paint(figure: Figure) -> None:
        show_sheet(figure.subplots(), montage(scaled, columns), BOTH_WAYS, -1, 1)

    return draw("kernels of the first convolution", (7.6, 7.6 / columns * rows), paint)


def draw_gates(weights: Floats) -> str:
    """Draw how strongly each input of an LSTM drives its gates."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for gate, row, color in zip(_GATES, weights, (BLUE, GREEN, ORANGE, GREY), strict=True):
            axes.plot(row, color=color, label=gate)
        axes.set(xlabel="input (mel band, low to high)", ylabel="mean |weight|")
        axes.set_ylim(bottom=0)
        axes.legend(ncols=4, loc="lower center")

    return draw("weights from inputs to gates", (6.2, 2.6), paint)


def order_units(contributions: Contributions) -> np.ndarray:
    """Return units in an order that puts those of one label together, the strongest first."""
    owner = contributions.mean.argmax(axis=0)
    strength = contributions.mean.max(axis=0)
    return np.lexsort((-strength, owner))


def draw_contributions(contributions: Contributions, labels: Sequence[str]) -> str:
    """Draw what each feature adds to the logit of each label, over the inputs of that label."""
    order = order_units(contributions)

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        image = heat_map(axes, contributions.mean[:, order], both_ways=True, rows=list(labels))
        axes.set(xlabel="feature, by the label that it speaks for most", ylabel="label")
        bar = figure.colorbar(image, shrink=0.9, pad=0.01)
        bar.outline.set_visible(False)

    return draw("contributions to the logits", (7.8, 1.4 + 0.18 * min(50, len(labels))), paint)


def draw_units(units: Units) -> str:
    """Draw mean, spread and activity of every feature, the strongest first."""
    order = np.argsort(-units.mean)
    places = np.arange(len(order))

    rests = bool((units.active < 1).any())

    def paint(figure: Figure) -> None:
        panels = figure.subplots(1 + rests, 1, sharex=True, height_ratios=[2, 1][: 1 + rests], squeeze=False)
        above, below = panels[0, 0], panels[-1, 0]
        mean, deviation = units.mean[order], units.deviation[order]
        above.fill_between(places, mean - deviation, mean + deviation, color=BLUE, alpha=0.25, linewidth=0)
        above.plot(places, mean, color=BLUE)
        above.set_ylabel("mean ± deviation")
        if rests:
            below.fill_between(places, units.active[order], color=GREEN, alpha=0.6, linewidth=0, step="mid")
            below.set(ylabel="share not 0", ylim=(0, 1.05))
        below.set(xlabel="feature, by its mean", xlim=(0, max(1, len(order) - 1)))

    return draw("activation of every feature", (7.6, 2.0 + rests), paint)


def draw_unit_shift(units: Units, labels: Sequence[str]) -> str:
    """Draw how far each feature moves from fp32 to int8, for the inputs of each label."""
    assert units.shift is not None
    shift = units.shift[:, np.argsort(-units.mean)]

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        image = heat_map(axes, shift, rows=list(labels))
        axes.set(xlabel="feature, by its mean", ylabel="right label")
        bar = figure.colorbar(image, shrink=0.9, pad=0.01)
        bar.outline.set_visible(False)

    return draw("features int8 less fp32", (7.8, 1.4 + 0.18 * min(50, len(labels))), paint)


def draw_maps(maps: Sequence[Floats]) -> str:
    """Draw the strongest maps of a few layers; a row is a layer."""

    def paint(figure: Figure) -> None:
        for axes, layer in zip(figure.subplots(len(maps), 1, squeeze=False)[:, 0], maps, strict=True):
            strongest = np.argsort(-layer.std(axis=(1, 2)))[:_MAPS_SHOWN]
            sheet = montage([layer[i] / max(float(layer[i].max()), 1e-12) for i in strongest], _MAPS_SHOWN)
            show_sheet(axes, sheet, "magma", 0, 1)
            axes.set_title(f"{layer.shape[0]} maps of {layer.shape[1]} × {layer.shape[2]}")

    return draw("maps of a drawn seven", (7.6, 0.9 * len(maps)), paint)


def draw_occlusions(images: Sequence[DrawnImage]) -> str:
    """Draw what the answers to drawn digits rest on: the digits, the falls, and int8 less fp32."""
    precisions = list(images[0].falls)
    first = [each.falls[precisions[0]] for each in images]
    sheets = [("drawn", [_grey(each.image) for each in images], "gray", 0.0, 255.0)]
    top = max(float(np.abs(fall).max()) for fall in first) or 1.0
    sheets.append((f"fall of the probability, {precisions[0]}", first, "BOTH", -top, top))
    if {"int8", "fp32"} <= set(precisions):
        differences = [each.falls["int8"] - each.falls["fp32"] for each in images]
        widest = max(float(np.abs(each).max()) for each in differences) or 1e-12
        sheets.append((f"int8 less fp32 (at most {widest:.2g})", differences, "BOTH", -widest, widest))

    def paint(figure: Figure) -> None:
        panels = figure.subplots(len(sheets), 1, squeeze=False)[:, 0]
        for axes, (title, pictures, shades, low, high) in zip(panels, sheets, strict=True):
            colors = BOTH_WAYS if shades == "BOTH" else shades
            show_sheet(axes, montage(pictures, len(pictures), gap=2), colors, low, high)
            axes.set_title(title)

    return draw("what answers to drawn digits rest on", (7.6, 1.0 * len(sheets)), paint)


def draw_sound(sound: SungSound, labels: Sequence[str]) -> str:
    """Draw what an LSTM makes of a sound over time: its inputs, its states, and the answer so far."""
    hidden = sound.states.hidden
    order = np.argsort(np.abs(hidden).argmax(axis=0), kind="stable")
    panels = 2 + (sound.running is not None) + (sound.shift is not None)
    heights = [
        1.0,
        2.0,
        *([0.9] if sound.shift is not None else []),
        *([0.9] if sound.running is not None else []),
    ]

    def paint(figure: Figure) -> None:
        axes = iter(figure.subplots(panels, 1, sharex=True, height_ratios=heights))
        frames = next(axes)
        frames.imshow(
            sound.states.frames.T, aspect="auto", origin="lower", cmap="magma", interpolation="none"
        )
        frames.set(ylabel="mel band")
        states = next(axes)
        heat_map(states, hidden[:, order].T, both_ways=True, limit=1.0)
        states.set_ylabel("unit, by when it is strongest")
        if sound.shift is not None:
            shift = next(axes)
            usual = float(np.quantile(np.abs(sound.shift), _USUAL))
            heat_map(shift, sound.shift[:, order].T, both_ways=True, limit=usual or None)
            shift.set_ylabel(f"int8 less fp32\n(at most {np.abs(sound.shift).max():.2g})")
        last = states
        if sound.running is not None:
            last = next(axes)
            _draw_running(last, sound.running, labels)
        last.set_xlabel("step")

    return draw("states over time", (7.6, 1.5 * sum(heights)), paint)


def _draw_running(axes: Axes, running: Floats, labels: Sequence[str]) -> None:
    """Draw the probabilities of the labels that lead at some time."""
    leading = sorted(set(running.argmax(axis=1).tolist()), key=lambda label: -running[-1, label])[:5]
    for label, color in zip(leading, (BLUE, ORANGE, GREEN, "#9467bd", GREY), strict=False):
        axes.plot(running[:, label], color=color, label=labels[label])
    axes.set(ylabel="answer so far", ylim=(0, 1.03))
    axes.legend(loc="upper right", ncols=5)


def _grey(image: np.ndarray) -> Floats:
    wide = np.asarray(image, np.float64)
    return wide if wide.ndim == 2 else wide.mean(axis=2)
