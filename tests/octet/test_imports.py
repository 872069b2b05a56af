"""`octet import`: options reach the import, and what it found is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle.manifest import parse_manifest
from tests import onnx_models as made

Octet = Callable[..., Any]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return made.save(tmp_path, made.perceptron(hidden=512))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    np.savez(tmp_path / "data.npz", **made.perceptron_data())
    return tmp_path / "data.npz"


def test_options_reach_the_bundle(octet: Octet, model: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("red\ngreen\n\nblue\n")
    options = [
        "--labels",
        "labels.txt",
        "--input-range",
        "-4,4",
        "--max-batch-size",
        3,
        "--description",
        "Hm.",
    ]
    ran = octet("import", model, "--name", "colours", *options, "--json")
    assert ran.code == 0, ran.err
    directory = tmp_path / ran.json["directory"]
    assert directory == tmp_path / "models" / "colours" / "1"
    manifest = parse_manifest((directory / "manifest.json").read_bytes(), directory)
    assert manifest.labels == ("red", "green", "blue")
    assert manifest.inputs[0].allowed_range == (-4, 4)
    assert (manifest.max_batch_size, manifest.description) == (3, "Hm.")
    assert ran.json["precisions"] == ["fp32"]


def test_what_was_found_is_told_and_the_bundle_is_the_next_version(
    octet: Octet, model: Path, tmp_path: Path
) -> None:
    for version in (1, 2):
        ran = octet("import", model, "--name", "x", "--labels", "a, b, c")
        assert ran.code == 0
        assert "Its output 'scores' holds probabilities; 'logits' are their logarithms." in ran.out
        assert ran.out.splitlines()[-1] == f"published models/x/{version} (fp32)"
    assert "input x: FP32 [batch x 16]" in ran.out


def test_an_int8_graph_that_is_not_good_enough_is_a_failure_unless_fp32_is_kept(
    octet: Octet, data: Path, tmp_path: Path
) -> None:
    made.save(
        tmp_path, made.perceptron(), "small.onnx"
    )  # its rows share a scale when it is quantized as it runs
    options = ["--name", "x", "--labels", "a,b,c", "--calibration-data", data, "--quantize", "dynamic"]
    ran = octet("import", "small.onnx", *options)
    assert "int8 is not published" in ran.error
    assert not (tmp_path / "models").exists()
    kept = octet("import", "small.onnx", *options, "--keep-fp32")
    assert kept.code == 0
    assert kept.err.startswith("warning: int8 is not published")
    assert kept.err.endswith("fp32 is published alone\n")


def test_a_file_that_cannot_be_served_is_one_line(octet: Octet, tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("hello")
    assert (
        "text.onnx: it cannot be read: this is no ONNX file"
        in octet("import", "text.onnx", "--name", "x").error
    )


@pytest.mark.parametrize(
    "options",
    [
        ["--quantize", "int4", "--calibration-data", "x.npz"],
        ["--quantize", "static"],
        ["--input-range", "3"],
        ["--input-range", "x=4,1"],
        ["--max-batch-size", "0"],
    ],
)
def test_options_that_make_no_sense_are_misunderstandings(
    octet: Octet, model: Path, options: list[str]
) -> None:
    assert octet("import", model, "--name", "x", *options).code == 2
