import pytest

from training.report.numbers import ABSENT, bounds, figure, interval, percent


def test_figures_read_well() -> None:
    assert [percent(0.99617, 2), percent(0.05), percent(None)] == ["99.62 %", "5.0 %", ABSENT]
    assert [figure(0.0), figure(1.0), figure(0.98245), figure(3.5261e-05), figure(None)] == [
        "0", "1", "0.9825", "3.5e-05", ABSENT,
    ]  # fmt: skip
    assert interval(0.9434, 0.951) == "94.3 – 95.1 %"


@pytest.mark.parametrize(
    ("low", "high", "text"), [(0.9, None, "≥ 0.9"), (None, 0.00025, "≤ 0.00025"), (0.03, 0.06, "0.03 – 0.06")]
)
def test_bounds_read_well(low: float | None, high: float | None, text: str) -> None:
    assert bounds(low, high) == text
