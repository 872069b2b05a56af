from __future__ import annotations

import re

import numpy as np
from matplotlib.figure import Figure

from training.report.drawing import draw, heat_map, montage


def paint(figure: Figure) -> None:
    axes = figure.subplots()
    heat_map(axes, np.array([[1.0, -2.0], [0.0, 0.5]]), both_ways=True, rows=["a", "b"])
    axes.set_title("0.0001 of <all> & more")
    axes.plot([0, 1], [0.123456, 1], marker="o")


def test_a_picture_takes_its_ink_from_the_page_and_nothing_from_elsewhere() -> None:
    svg = draw("a name", (4, 3), paint)
    assert svg.startswith('<svg role="img" aria-label="a name" viewBox="0 0 288 216"')
    assert "currentColor" in svg
    assert "http" not in svg
    assert not re.search(r"#000000|#010203", svg)
    assert re.findall(r'xlink:href="(?!#|data:image/png;base64,)', svg) == []
    assert "<style" not in svg


def test_text_stays_text_as_it_was_written() -> None:
    svg = draw("x", (4, 3), paint)
    assert "0.0001 of &lt;all&gt; &amp; more" in svg


def test_no_two_pictures_of_a_page_share_a_name_inside() -> None:
    ids = [re.findall(r' id="([^"]+)"', draw(name, (4, 3), paint)) for name in ("one", "two")]
    assert ids[0]
    assert not set(ids[0]) & set(ids[1])


def test_the_same_picture_is_drawn_the_same() -> None:
    first, second = (draw("x", (4, 3), paint) for _ in range(2))
    assert first == second


def test_images_lie_side_by_side_with_nothing_between() -> None:
    sheet = montage([np.full((2, 3), value) for value in (1.0, 2.0, 3.0)], columns=2)
    assert sheet.shape == (5, 7)
    assert (sheet[:2, :3] == 1).all()
    assert (sheet[:2, 4:] == 2).all()
    assert (sheet[3:, :3] == 3).all()
    assert np.isnan(sheet[3:, 4:]).all()
    assert np.isnan(sheet[2]).all()
    assert np.isnan(sheet[:, 3]).all()
