"""The IDX format, and MNIST's splits on a small forged data set."""

from __future__ import annotations

import gzip
import hashlib
import inspect
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from training.data import mnist
from training.data.mnist import load_mnist, read_idx
from training.errors import DataError

SPLIT_SIZES = {"train": 20, "validation": 5, "temperature": 4, "conformal": 6}


def idx(array: np.ndarray) -> bytes:
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(header + array.tobytes(), mtime=0)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("idx") / "file.gz"


@settings(max_examples=50, deadline=None)
@given(array=hnp.arrays(np.uint8, hnp.array_shapes(max_dims=4, max_side=7)))
def test_an_idx_file_gives_back_what_was_written(path: Path, array: np.ndarray) -> None:
    path.write_bytes(idx(array))
    found = read_idx(path)
    assert found.dtype == np.uint8
    assert np.array_equal(found, array)


BODY = gzip.decompress(idx(np.arange(60, dtype=np.uint8).reshape(3, 4, 5)))


# Without the time, so that a test has the same name in every process.
PACKED = gzip.compress(BODY, mtime=0)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no gzip",
        gzip.compress(b"", mtime=0),
        gzip.compress(BODY[:3], mtime=0),
        gzip.compress(BODY[:10], mtime=0),
        gzip.compress(BODY[:-1], mtime=0),
        gzip.compress(BODY + b"\0", mtime=0),
        gzip.compress(b"\0\0\x0d" + BODY[3:], mtime=0),
        gzip.compress(b"\1" + BODY[1:], mtime=0),
        gzip.compress(b"\0\0\x08\xff" + BODY[4:], mtime=0),
        PACKED[:-12],
        PACKED[:30] + b"\xff" * 8 + PACKED[38:],
    ],
)
def test_a_damaged_idx_file_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "damaged.gz").write_bytes(content)
    with pytest.raises(DataError, match=r"damaged\.gz is not"):
        read_idx(tmp_path / "damaged.gz")


def test_a_missing_idx_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing\.gz"):
        read_idx(tmp_path / "missing.gz")


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data directory with 35 + 7 items in the files of MNIST; an item's first pixel is its number."""
    random = np.random.default_rng(0)
    arrays = {}
    for prefix, start, n in (("train", 0, 35), ("t10k", 35, 7)):
        pixels = random.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        pixels[:, 0, 0] = np.arange(start, start + n)
        arrays[f"{prefix}-images-idx3-ubyte.gz"] = pixels
        arrays[f"{prefix}-labels-idx1-ubyte.gz"] = (pixels[:, 0, 0] % 10).astype(np.uint8)
    (tmp_path / "mnist").mkdir()
    for name, array in arrays.items():
        (tmp_path / "mnist" / name).write_bytes(idx(array))
    checksums = {name: hashlib.sha256(idx(array)).hexdigest() for name, array in arrays.items()}
    monkeypatch.setattr(mnist, "CHECKSUMS", checksums)
    monkeypatch.setattr(mnist, "SPLIT_SIZES", SPLIT_SIZES)
    monkeypatch.setattr(mnist, "URL", "http://127.0.0.1:1")
    return tmp_path


def test_mnist_is_cut_into_five_disjoint_splits_of_matching_items(data_dir: Path) -> None:
    splits = load_mnist(data_dir)
    assert {name: len(part) for name, part in splits} == {**SPLIT_SIZES, "test": 7}
    everything = np.concatenate([part.ids for _, part in splits])
    assert sorted(everything) == list(range(42))
    for _, part in splits:
        assert [item[0, 0] for item in part.items] == list(part.ids)
        assert list(part.labels) == [i % 10 for i in part.ids]
        assert part.labels.dtype == np.int64
        assert {(item.shape, item.dtype) for item in part.items} == {((28, 28), np.dtype(np.uint8))}


def test_the_test_split_is_the_official_one(data_dir: Path) -> None:
    assert list(load_mnist(data_dir).test.ids) == list(range(35, 42))


def test_the_splits_are_mixed_and_always_the_same(data_dir: Path) -> None:
    first, second = load_mnist(data_dir), load_mnist(data_dir)
    for (_, a), (_, b) in zip(first, second, strict=True):
        assert np.array_equal(a.ids, b.ids)
    assert list(first.train.ids) != list(range(20))
    order = np.random.default_rng(20_240_601).permutation(35)
    assert set(first.train.ids) == set(order[:20])
    assert list(inspect.signature(load_mnist).parameters) == ["data_dir"]  # no seed comes in


def test_a_file_that_was_changed_is_fetched_anew_and_named_where_that_fails(data_dir: Path) -> None:
    (data_dir / "mnist" / "t10k-images-idx3-ubyte.gz").write_bytes(b"changed")
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte\.gz is not the published file"):
        load_mnist(data_dir)


def test_the_published_checksums_and_sizes_cover_mnist() -> None:
    assert sorted(mnist.CHECKSUMS) == sorted(
        f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
    )
    assert {len(digest) for digest in mnist.CHECKSUMS.values()} == {64}
    assert sum(mnist.SPLIT_SIZES.values()) == 60_000
    assert len(mnist.data_sha256()) == 64
