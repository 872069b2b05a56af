"""How figures stand in the pages."""

from __future__ import annotations

ABSENT = "–"


def percent(value: float | None, digits: int = 1) -> str:
    """Return a share as a percentage."""
    return ABSENT if value is None else f"{100 * value:.{digits}f} %"


def figure(value: float | None) -> str:
    """Return a number with as many digits as tell something."""
    if value is None:
        return ABSENT
    return f"{value:.4f}".rstrip("0").rstrip(".") if abs(value) >= 1e-3 or value == 0 else f"{value:.2g}"


def interval(low: float, high: float) -> str:
    """Return an interval of shares."""
    return f"{100 * low:.1f} – {100 * high:.1f} %"


def bounds(low: float | None, high: float | None) -> str:
    """Return between which bounds a figure must lie."""
    if low is not None and high is not None:
        return f"{low:g} – {high:g}"
    return f"≥ {low:g}" if low is not None else f"≤ {high:g}"


def milliseconds(value: float) -> str:
    """Return a time."""
    return f"{value:.2f} ms"
