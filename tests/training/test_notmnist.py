from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest

from training.data import notmnist
from training.data.notmnist import FOLDER, IMAGES, find_notmnist


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Two small letters where the published file lies."""
    found = np.random.default_rng(0).integers(0, 256, (2, 28, 28), dtype=np.uint8)
    content = gzip.compress(struct.pack(">HBB3I", 0, 8, 3, *found.shape) + found.tobytes())
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / IMAGES).write_bytes(content)
    monkeypatch.setattr(notmnist, "CHECKSUMS", {IMAGES: hashlib.sha256(content).hexdigest()})
    return found


def test_letters_are_found_where_they_lie(images: np.ndarray, tmp_path: Path) -> None:
    (items,) = find_notmnist(tmp_path).values()
    np.testing.assert_array_equal(np.stack(items), images)


def test_without_the_published_file_there_are_none(images: np.ndarray, tmp_path: Path) -> None:
    assert find_notmnist(tmp_path / "elsewhere") == {}
    (tmp_path / FOLDER / IMAGES).write_bytes(b"another")
    assert find_notmnist(tmp_path) == {}
