"""Listing, verifying and publishing bundles."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bundle.manifest import MANIFEST_FILE
from bundle.predictor import load_predictor
from bundle.serving import Serving, write_serving
from bundle.trusted import list_digests, read_trusted
from tests import tiny
from tests.calibrated import make_calibrated_bundle
from tests.conftest import LiveServer

Octet = Callable[..., Any]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A repository of its own: tiny-image 1 and 2, of which 1 is stable; tiny-audio 1."""
    folder = tmp_path / "models"
    tiny.make_image_bundle(folder, version=1)
    tiny.make_image_bundle(folder, version=2)
    tiny.make_audio_bundle(folder)
    write_serving(folder, "tiny-image", Serving(aliases={"stable": 1, "canary": 2}))
    return folder


def damage(directory: Path) -> None:
    (directory / "model.fp32.onnx").write_bytes(b"other")


def test_models_lists_what_a_repository_holds(octet: Octet, models: Path) -> None:
    ran = octet("models", "--json")
    assert ran.code == 0
    found = {(row["name"], row["version"]): row for row in ran.json}
    assert set(found) == {("tiny-image", 1), ("tiny-image", 2), ("tiny-audio", 1)}
    first = found["tiny-image", 1]
    assert first["aliases"] == ["stable"]
    assert first["accuracy"] == 0.9
    assert first["precisions"] == ["int8", "fp32"]
    assert first["size_bytes"] == (models / "tiny-image" / "1" / "model.int8.onnx").stat().st_size
    assert {row["state"] for row in ran.json} == {"ok"}


def test_the_table_says_the_same_as_the_json(octet: Octet, models: Path) -> None:
    lines = [line.split() for line in octet("models", "--models", models).out.splitlines()]
    assert lines[0][:3] == ["name", "version", "task"]
    assert ["tiny-image", "2", "classification", "int8,", "fp32"] in [line[:5] for line in lines]
    assert "canary" in lines[3]


def test_a_manifest_that_cannot_be_understood_is_listed_with_its_reason(octet: Octet, models: Path) -> None:
    (models / "tiny-image" / "2" / MANIFEST_FILE).write_text("{}")
    ran = octet("models", "--json")
    assert ran.code == 1
    states = {(row["name"], row["version"]): row["state"] for row in ran.json}
    assert "Field required" in states["tiny-image", 2]
    assert states["tiny-image", 1] == "ok"


def test_a_repository_that_is_not_there_is_one_line(octet: Octet) -> None:
    assert octet("models").error == "error: the model repository models is not a directory"


def test_models_asks_a_running_server(
    octet: Octet, models: Path, start_service: Callable[..., LiveServer]
) -> None:
    server = start_service("--models", str(models))
    ran = octet("models", "--url", server.url, "--json")
    assert ran.code == 0, ran.err
    assert {(row["name"], row["version"], row["state"]) for row in ran.json} == {
        ("tiny-image", 1, "ready"), ("tiny-image", 2, "ready"), ("tiny-audio", 1, "ready")
    }  # fmt: skip
    assert ran.json[0]["precision"] == "int8"


def test_a_server_that_is_not_there_is_one_line(octet: Octet) -> None:
    assert "no server answers at http://127.0.0.1:1" in octet("models", "--url", "http://127.0.0.1:1").error
    assert "must begin with http" in octet("models", "--url", "file:///etc/passwd").error


# verify


def test_verify_prints_the_lines_that_a_list_of_trusted_digests_has(
    octet: Octet, models: Path, tmp_path: Path
) -> None:
    ran = octet("verify")
    assert (ran.code, ran.err) == (0, "")
    (tmp_path / "trusted").write_text(ran.out)
    assert read_trusted(tmp_path / "trusted").digests == list_digests(models)
    assert octet("verify", "--trusted", tmp_path / "trusted").code == 0


def test_verify_finds_what_the_list_does_not_have(octet: Octet, models: Path, tmp_path: Path) -> None:
    trusted = tmp_path / "trusted"
    trusted.write_text(octet("verify", "tiny-audio").out)
    ran = octet("verify", "--trusted", trusted)
    assert ran.code == 1
    assert ran.out == trusted.read_text()
    assert all("does not list tiny-image/" in line for line in ran.err.splitlines())
    assert len(ran.err.splitlines()) == 2


def test_verify_goes_on_after_a_bundle_that_is_damaged(octet: Octet, models: Path) -> None:
    damage(models / "tiny-image" / "1")
    ran = octet("verify")
    assert ran.code == 1
    assert [line.split()[1] for line in ran.out.splitlines()] == ["tiny-audio/1", "tiny-image/2"]
    assert "it was changed" in ran.err
    found = octet("verify", "--json").json
    assert [row["state"] == "ok" for row in found] == [True, False, True]


def test_verify_tests_every_graph_and_not_only_the_one_that_serves(octet: Octet, models: Path) -> None:
    tiny.make_image_bundle(models, name="wrong-fp32", fp32_error=3)
    assert "fp32: a golden logit differs by 3" in octet("verify", "wrong-fp32").error


def test_verify_tells_of_a_graph_that_does_not_run_as_published_here(octet: Octet, models: Path) -> None:
    tiny.make_image_bundle(models, name="wrong-int8", int8_error=9)
    ran = octet("verify", "wrong-int8/1")
    assert "golden" in ran.err


def test_names_that_are_not_there_are_listed_beside_those_that_are(octet: Octet, models: Path) -> None:
    assert (
        "there is no tiny-image/3 in models; there are tiny-audio/1, "
        in octet("verify", "tiny-image/3").error
    )


# publish


def test_publish_puts_a_bundle_into_another_repository_as_its_next_version(
    octet: Octet, models: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    for expected in (1, 2):
        ran = octet("publish", models / "tiny-image" / "2", "--models", other)
        assert (ran.code, ran.out) == (0, f"published {other}/tiny-image/{expected}\n")
        predictor = load_predictor(other / "tiny-image" / str(expected))
        assert predictor.bundle.manifest.version == expected
    before = hashlib.sha256((models / "tiny-image" / "2" / "model.int8.onnx").read_bytes()).hexdigest()
    assert predictor.bundle.manifest.files["model.int8.onnx"] == before


def test_publish_refuses_what_does_not_pass_its_checks(octet: Octet, models: Path, tmp_path: Path) -> None:
    damage(models / "tiny-image" / "2")
    assert (
        "it was changed"
        in octet("publish", models / "tiny-image" / "2", "--models", tmp_path / "other").error
    )
    tiny.make_image_bundle(models, name="wrong-int8", int8_error=9)
    assert "golden" in octet("publish", models / "wrong-int8" / "1", "--models", tmp_path / "other").error
    assert not (tmp_path / "other").exists()


def test_a_report_is_published_with_its_bundle(octet: Octet, tmp_path: Path) -> None:
    directory = make_calibrated_bundle(tmp_path / "built")
    ran = octet("publish", directory, "--models", tmp_path / "models")
    assert ran.code == 0, ran.err
    for name in ("report.json", "report.html"):
        published = tmp_path / "models" / directory.parent.name / "1" / name
        assert published.read_bytes() == (directory / name).read_bytes()
