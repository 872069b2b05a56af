"""How the report's pictures are drawn: SVG that takes its text colour from the page, light or dark."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

# Legible on white and on near black.
BLUE, ORANGE, GREEN, RED, GREY = "#3f7fd6", "#e07b39", "#3a9d6e", "#d2504b", "#8a8f98"
# Stands for the page's own text colour until the picture is written.
_TEXT = "#010203"
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",  # text stays text, in the page's font
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "lines.linewidth": 1.6,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _TEXT),
}

# What is 0 lets the page shine through, so that both lie well on light and on dark.
SHADES = LinearSegmentedColormap.from_list("shades", [(0.25, 0.5, 0.84, 0.0), (0.25, 0.5, 0.84, 0.85)])
BOTH_WAYS = LinearSegmentedColormap.from_list(
    "both ways",
    [(0.25, 0.5, 0.84, 0.95), (0.25, 0.5, 0.84, 0.35), (0.5, 0.5, 0.5, 0.0), (0.88, 0.48, 0.22, 0.35),
     (0.88, 0.48, 0.22, 0.95)],
)  # fmt: skip


@contextmanager
def _styled() -> Iterator[None]:
    with mpl.rc_context(_STYLE):  # type: ignore[arg-type]  # it wants each name as a literal
        yield


def draw(name: str, size: tuple[float, float], paint: Callable[[Figure], None]) -> str:
    """Return a picture as SVG to stand within HTML.

    Args:
        name: of the picture, for those who cannot see it; pictures of one page have different ones.
        size: in inches; it only matters for proportions.
        paint: draws into a figure.
    """
    buffer = io.StringIO()
    with _styled(), mpl.rc_context({"svg.hashsalt": name}):
        figure = Figure(figsize=size, layout="constrained")
        figure.patch.set_alpha(0)
        paint(figure)
        for axes in figure.axes:
            axes.patch.set_alpha(0)
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=nothing)
    return _embed(buffer.getvalue(), name, size)


def _embed(svg: str, name: str, size: tuple[float, float]) -> str:
    """Strip a file down to what a page needs: no header, namespaces or names of groups, rounded numbers."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)  # the page has it
    svg = re.sub(r"font-family: [^;\"]*(; |(?=\"))", "", svg)
    svg = re.sub(r' transform="rotate\(-0[^"]*"', "", svg)
    svg = re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\d+\.\d{3})\d+", r"\1", tag[0]), svg)
    svg = re.sub(r"\s*\n\s*", "\n", svg).replace(_TEXT, "currentColor")
    width, height = (round(72 * side) for side in size)
    box = f'viewBox="0 0 {width} {height}" style="max-width:{width * 1.45:.0f}px"'
    return re.sub(r"<svg[^>]*>", f'<svg role="img" aria-label="{name}" {box}>', svg, count=1)


def heat_map(
    axes: Axes,
    values: NDArray[np.floating],
    *,
    both_ways: bool = False,
    rows: list[str] | None = None,
    limit: float | None = None,
) -> Any:
    """Draw a matrix; return the image, for a colour bar.

    Args:
        both_ways: around 0; otherwise from 0 up.
        limit: of the colours; by default the largest value.
    """
    top = limit or float(np.nanmax(np.abs(values))) or 1.0
    image = axes.imshow(
        values,
        aspect="auto",
        interpolation="none",
        cmap=BOTH_WAYS if both_ways else SHADES,
        vmin=-top if both_ways else 0,
        vmax=top,
    )
    if rows is not None:
        axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(True)
        side.set_alpha(0.3)
    return image


def montage(images: Sequence[NDArray[np.floating]], columns: int, gap: int = 1) -> NDArray[np.floating]:
    """Lay images of one size side by side; what lies between them is NaN, which is not drawn."""
    height, width = images[0].shape
    rows = -(-len(images) // columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap), np.nan)
    for place, image in enumerate(images):
        top, left = (place // columns) * (height + gap), (place % columns) * (width + gap)
        sheet[top : top + height, left : left + width] = image
    return sheet


def show_sheet(axes: Axes, sheet: NDArray[np.floating], cmap: Any, low: float, high: float) -> None:
    """Draw a montage without axes."""
    axes.imshow(sheet, cmap=cmap, vmin=low, vmax=high, interpolation="none")
    axes.set_axis_off()
