"""`octet evaluate`: figures through the code that serves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle.confidence import softmax
from tests import tiny

Octet = Callable[..., Any]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    tiny.make_image_bundle(tmp_path / "models")
    return tmp_path / "models"


def write_data(folder: Path, *, labelled: bool = True) -> tuple[np.ndarray, np.ndarray]:
    pixels = np.random.default_rng(5).integers(0, 256, (40, 4, 4), dtype=np.uint8)
    labels = np.random.default_rng(6).integers(0, 3, 40)
    np.savez(folder / "data.npz", pixels=pixels, **({"labels": labels} if labelled else {}))
    return pixels, labels


def test_both_graphs_are_measured_on_data_of_ones_own(octet: Octet, models: Path, tmp_path: Path) -> None:
    pixels, labels = write_data(tmp_path)
    ran = octet("evaluate", "tiny-image", "--data", "data.npz", "--json")
    assert ran.code == 0, ran.err
    logits = tiny.image_logits(pixels)
    right = softmax(logits, tiny.TEMPERATURE)[np.arange(40), labels]
    for row in ran.json:
        assert row["n"] == 40
        assert row["accuracy"] == (logits.argmax(axis=1) == labels).mean()
        assert row["nll"] == pytest.approx(-np.log(right).mean(), rel=1e-4)
        assert (row["temperature"], row["published"]) == (tiny.TEMPERATURE, 0.9)
    assert [row["precision"] for row in ran.json] == ["int8", "fp32"]
    assert "accuracy" in octet("evaluate", "tiny-image", "--data", "data.npz").out


def test_what_cannot_be_measured_is_one_line(octet: Octet, models: Path, tmp_path: Path) -> None:
    assert "has no test split here; give labelled items with --data" in octet("evaluate", "tiny-image").error
    write_data(tmp_path, labelled=False)
    assert "holds no labels" in octet("evaluate", "tiny-image", "--data", "data.npz").error


def test_the_report_of_a_bundle_is_written_where_one_wants_it(
    octet: Octet, models: Path, tmp_path: Path
) -> None:
    pixels, labels = write_data(tmp_path)
    ran = octet("evaluate", "tiny-image", "--data", "data.npz", "--out", "told", "--json")
    assert ran.code == 0, ran.err
    assert [row["precision"] for row in ran.json] == ["int8", "fp32"]
    names = ["report.json", "report.html", "gallery.html"]
    assert ran.err.splitlines() == [f"wrote {Path('told') / name}" for name in names]
    assert {path.name for path in (tmp_path / "told").iterdir()} == set(names)
    content = json.loads((tmp_path / "told" / "report.json").read_bytes())
    assert content["splits"] == {"test": 40}
    for row in ran.json:
        graph = content["graphs"][row["precision"]]
        assert graph["accuracy"] == row["accuracy"] == (tiny.image_logits(pixels).argmax(1) == labels).mean()
        assert graph["calibration"]["ece15"] == pytest.approx(row["ece"], rel=1e-5)
        assert graph["sets"] == []  # the bundle holds no evidence
    assert b"data:image/png" in (tmp_path / "told" / "gallery.html").read_bytes()
    again = octet("evaluate", "tiny-image", "--data", "data.npz", "--out", "told")
    assert "wrote told/report.html" in again.out
    assert "accuracy" in again.out


def test_a_folder_that_cannot_be_written_to_is_one_line(octet: Octet, models: Path, tmp_path: Path) -> None:
    write_data(tmp_path)
    (tmp_path / "told").write_text("a file")
    assert "told" in octet("evaluate", "tiny-image", "--data", "data.npz", "--out", "told").error
