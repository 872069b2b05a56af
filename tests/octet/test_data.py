"""`octet data`: which data sets there are, and whether they lie where they should."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from training.data import fsdd, mnist

Octet = Callable[..., Any]
FILES = {"a.gz": b"first", "b.gz": b"second"}


@pytest.fixture(autouse=True)
def _published(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two small published files, in a folder, instead of the real ones on a server."""
    source = tmp_path / "published"
    source.mkdir()
    for name, content in FILES.items():
        (source / name).write_bytes(content)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
    monkeypatch.setattr(mnist, "CHECKSUMS", digests)
    monkeypatch.setattr(mnist, "URL", source.as_uri())
    monkeypatch.setattr(fsdd, "URL", "http://127.0.0.1:1/archive.tar.gz")


def test_the_data_sets_are_listed_with_their_licences(octet: Octet) -> None:
    rows = {row["name"]: row for row in octet("data", "list", "--json").json}
    assert {name: row["licence"] for name, row in rows.items()} == {
        "mnist": mnist.LICENCE, "fsdd": fsdd.LICENCE
    }  # fmt: skip
    assert rows["fsdd"]["files"] == 3000
    assert mnist.LICENCE in octet("data", "list").out


def test_data_are_downloaded_and_then_whole(octet: Octet, tmp_path: Path) -> None:
    before = octet("data", "verify", "mnist", "--json")
    assert before.code == 1
    assert before.json[0]["missing"] == 2
    assert octet("data", "download", "mnist").code == 0
    assert (tmp_path / "data" / "mnist" / "a.gz").read_bytes() == b"first"
    after = octet("data", "verify", "mnist", "--json")
    assert (after.code, after.json[0]["state"]) == (0, "ok")


def test_a_changed_file_is_found(octet: Octet, tmp_path: Path) -> None:
    octet("data", "download", "mnist", "--data-dir", tmp_path / "d")
    (tmp_path / "d" / "mnist" / "b.gz").write_bytes(b"other")
    ran = octet("data", "verify", "mnist", "--data-dir", tmp_path / "d")
    assert ran.code == 1
    assert "1 of 2 files are missing or changed" in ran.out


def test_what_cannot_be_fetched_or_is_not_known_is_one_line(octet: Octet) -> None:
    assert (
        "could not be downloaded from http://127.0.0.1:1/archive.tar.gz"
        in octet("data", "download", "fsdd").error
    )
    assert "there is no data set 'cats'; there are mnist, fsdd" in octet("data", "verify", "cats").error
