"""`octet review`: the store as a person at a terminal sees it, while a service may be writing to it."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bundle.repository import read_bundle
from service.review.store import open_store
from tests import tiny
from tests.service.review.test_export import keep, pixels, sounds
from training.importing.data import read_data

Octet = Callable[..., Any]
A, B, _ = tiny.LABELS


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with four images, and a sound that has a label."""
    monkeypatch.delenv("OCTET_REVIEW_URL", raising=False)
    image = read_bundle(tiny.make_image_bundle(tmp_path / "models")).manifest
    audio = read_bundle(tiny.make_audio_bundle(tmp_path / "models")).manifest
    path = tmp_path / "review.db"
    with open_store(str(path), create=True) as opened:
        keep(opened, image, pixels(4), [None] * 4)
        keep(opened, audio, sounds(1), [B], "c")
    return path


def test_what_is_kept_is_listed(octet: Octet, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = octet("review", "list", "--store", store, "--json").json
    assert [row["model"] for row in rows].count("tiny-image") == 4
    monkeypatch.setenv("OCTET_REVIEW_URL", f"sqlite:///{store}")
    assert len(octet("review", "list", "tiny-image", "--json").json) == 4
    assert len(octet("review", "list", "--limit", 2, "--json").json) == 2
    (labelled,) = octet("review", "list", "--labelled", "--json").json
    assert (labelled["model"], labelled["label"]) == ("tiny-audio", B)
    assert len(octet("review", "list", "--unlabelled", "--json").json) == 4
    ran = octet("review", "list")
    assert "5 of 5 inputs, 1 of which have a label" in ran.err
    assert labelled["id"][:12] in ran.out


def test_an_input_is_shown_and_written_to_a_file(octet: Octet, store: Path, tmp_path: Path) -> None:
    (row, *_) = octet("review", "list", "tiny-image", "--store", store, "--json").json
    shown = octet("review", "show", row["id"], "--store", store, "--json").json
    assert shown == {**row, "labels": list(tiny.LABELS), "inputs": {"pixels": [4, 4]}}
    assert octet("review", "show", row["id"][:8], "--store", store, "--out", tmp_path / "x.png").code == 0
    assert octet("review", "show", row["id"][:8], "--store", store, "--out", tmp_path / "x.npz").code == 0
    picture = np.asarray(Image.open(tmp_path / "x.png"))
    np.testing.assert_array_equal(picture, np.load(tmp_path / "x.npz")["pixels"])
    failed = octet("review", "show", row["id"], "--store", store, "--out", "x.wav")
    assert failed.error == "error: x.wav: this input can be written as .npz or .png"


def test_inputs_are_labelled_exported_and_deleted(octet: Octet, store: Path, tmp_path: Path) -> None:
    at = ("--store", store)
    ids = [row["id"] for row in octet("review", "list", "tiny-image", *at, "--json").json]
    assert octet("review", "label", ids[0], B, *at).code == 0
    assert octet("review", "label", ids[1][:10], A, *at, "--json").json["label"] == A
    assert octet("review", "label", ids[2], A, *at).code == 0
    assert octet("review", "label", ids[2], "--remove", *at, "--json").json["label"] is None

    ran = octet("review", "export", "tiny-image", "set.npz", *at)
    assert ran.out == "wrote 2 items to set.npz\n"
    with np.load("set.npz") as arrays:
        assert arrays["labels"].tolist() == [1, 0]
    assert {path.name for path in tmp_path.glob("*set*")} == {"set.npz"}
    exported = octet("review", "list", "tiny-image", "--labelled", *at, "--json").json
    assert all(row["exported_at"] is not None for row in exported)

    assert octet("review", "delete", ids[0][:9], ids[3], *at).out == f"deleted {ids[0]}\ndeleted {ids[3]}\n"
    left = octet("review", "list", "tiny-image", *at, "--json").json
    assert {row["id"] for row in left} == {ids[1], ids[2]}


def test_a_data_set_of_many_is_measured_by_evaluate(octet: Octet, store: Path, tmp_path: Path) -> None:
    manifest = read_bundle(tmp_path / "models" / "tiny-audio" / "1").manifest
    with open_store(str(store)) as opened:
        keep(opened, manifest, sounds(20)[1:], [A] * 19, "c")
    assert (
        octet("review", "export", "tiny-audio/1", "set.npz", "--store", store, "--json").json["items"] == 20
    )
    assert len(read_data(Path("set.npz"), manifest).rows) == 20
    rows = octet("evaluate", "tiny-audio", "--data", "set.npz", "--models", "models", "--json").json
    assert {row["n"] for row in rows} == {20}


def test_what_cannot_be_done_is_one_line(octet: Octet, store: Path, tmp_path: Path) -> None:
    at = ("--store", store)
    (row, *_) = octet("review", "list", "tiny-image", *at, "--json").json
    assert "which store? name it with --store or OCTET_REVIEW_URL" in octet("review", "list").error
    assert "there is no review store nowhere.db" in octet("review", "list", "--store", "nowhere.db").error
    assert "no input 'zzz'" in octet("review", "show", "zzz", *at).error
    assert "several inputs" in octet("review", "delete", "", *at).error
    assert (
        f"there is no label 'cat'; there are {', '.join(tiny.LABELS)}"
        in octet("review", "label", row["id"], "cat", *at).error
    )
    assert "give a label, or --remove" in octet("review", "label", row["id"], *at).error
    assert "give a label, or --remove" in octet("review", "label", row["id"], A, "--remove", *at).error
    assert "must end in .npz" in octet("review", "export", "tiny-image", "folder", *at).error
    assert "no labelled inputs of tiny-image" in octet("review", "export", "tiny-image", "x.npz", *at).error
    assert (
        "no/x.npz cannot be written: No such file or directory"
        in octet("review", "export", "tiny-audio", "no/x.npz", *at).error
    )
    assert not list(tmp_path.glob("*x.npz*"))
    assert octet("review", "delete", row["id"], "zzz", *at).code == 1
    assert len(octet("review", "list", "tiny-image", *at, "--json").json) == 4  # none has gone


def test_a_store_that_may_only_be_read_can_be_looked_at(octet: Octet, store: Path) -> None:
    store.chmod(0o400)
    assert len(octet("review", "list", "--store", store, "--json").json) == 5
    assert stat.S_IMODE(store.stat().st_mode) == 0o400
