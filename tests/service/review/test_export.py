"""The data set that labelled inputs become: `octet evaluate --data` and numpy read it."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle.errors import InputError
from bundle.manifest import Manifest
from bundle.repository import read_bundle
from bundle.rows import Row
from service.errors import ReviewStoreError, UnknownItemError
from service.review.export import export
from service.review.items import Item, identify, pack
from service.review.store import New, Store
from tests import tiny
from tests.service.review.kept import WIDE
from training.importing.data import read_data


def keep(store: Store, manifest: Manifest, rows: list[Row], labels: list[str | None], sha: str = "b") -> None:
    """Store rows, and label them one after the other."""
    for row, label in zip(rows, labels, strict=True):
        payload = pack(row)
        item = Item(
            id=identify(manifest.name, row), model=manifest.name, version=str(manifest.version),
            bundle_sha256=sha * 64, precision="int8", created_s=time.time(), answer="a", confidence=0.5,
            confidence_raw=0.5, novelty_p_value=None, reasons=("below_bound",), sureness=0.5,
            size_bytes=len(payload),
        )  # fmt: skip
        store.add([New(item, payload)], {sha * 64: manifest.model_dump_json()}, WIDE)
        if label is not None:
            store.label(item.id, label)


def pixels(n: int) -> list[Row]:
    random = np.random.default_rng(0)
    return [{"pixels": random.integers(0, 256, (4, 4), dtype=np.uint8)} for _ in range(n)]


def sounds(n: int) -> list[Row]:
    random = np.random.default_rng(0)
    return [{"samples": random.uniform(-1, 1, 10 + 7 * i).astype(np.float32)} for i in range(n)]


def exported(store: Store, *arguments: Any) -> dict[str, np.ndarray]:
    file = io.BytesIO()
    export(store, *arguments[:1], file, *arguments[1:])
    with np.load(io.BytesIO(file.getvalue())) as archive:
        return dict(archive)


def test_images_are_exported_in_the_order_of_their_labels(store: Store, tmp_path: Path) -> None:
    manifest = read_bundle(tiny.make_image_bundle(tmp_path)).manifest
    rows = pixels(20)
    labels: list[str | None] = [manifest.labels[i % 3] for i in range(20)]
    keep(
        store,
        manifest,
        [*rows, *({"pixels": 255 - row["pixels"]} for row in rows[:5])],
        [*labels, *[None] * 5],
    )
    arrays = exported(store, manifest.name)
    assert set(arrays) == {"pixels", "labels"}
    np.testing.assert_array_equal(arrays["pixels"], np.stack([row["pixels"] for row in rows]))
    np.testing.assert_array_equal(arrays["labels"], [i % 3 for i in range(20)])
    assert (arrays["pixels"].dtype, arrays["labels"].dtype) == (np.uint8, np.int64)


def test_sounds_of_differing_lengths_are_padded_and_their_lengths_told(store: Store, tmp_path: Path) -> None:
    manifest = read_bundle(tiny.make_audio_bundle(tmp_path / "models")).manifest
    rows = sounds(20)
    keep(store, manifest, rows, ["b"] * 20 if "b" in manifest.labels else [manifest.labels[1]] * 20)
    file = tmp_path / "x.npz"
    with file.open("wb") as content:
        items = export(store, manifest.name, content)
    assert len(items) == 20
    with np.load(file) as archive:
        assert archive["samples"].shape == (20, 10 + 7 * 19)
        assert archive["lengths"].tolist() == [10 + 7 * i for i in range(20)]
    data = read_data(file, manifest)  # as `octet evaluate --data` reads it
    for row, back in zip(rows, data.rows, strict=True):
        np.testing.assert_array_equal(row["samples"], back["samples"])
    assert data.labels is not None
    assert data.labels.tolist() == [1] * 20


def test_the_same_items_are_the_same_bytes(store: Store, tmp_path: Path) -> None:
    manifest = read_bundle(tiny.make_image_bundle(tmp_path)).manifest
    keep(store, manifest, pixels(3), list(manifest.labels))
    files = [io.BytesIO(), io.BytesIO()]
    for file in files:
        export(store, manifest.name, file)
    assert files[0].getvalue() == files[1].getvalue()


def test_items_of_several_versions_are_one_data_set_if_they_are_alike(store: Store, tmp_path: Path) -> None:
    first = read_bundle(tiny.make_image_bundle(tmp_path, version=1)).manifest
    second = read_bundle(tiny.make_image_bundle(tmp_path, version=2)).manifest
    other = second.model_copy(update={"version": 3, "labels": ("b", "a", "c")})
    rows = pixels(3)
    keep(store, first, rows[:1], [first.labels[0]], "1")
    keep(store, second, rows[1:2], [first.labels[1]], "2")
    assert exported(store, first.name)["labels"].tolist() == [0, 1]
    keep(store, other, rows[2:], ["a"], "3")
    with pytest.raises(InputError, match="differ in their inputs or labels"):
        exported(store, first.name)
    assert exported(store, first.name, "3")["labels"].tolist() == [1]


def test_without_labels_there_is_nothing_to_export(store: Store, tmp_path: Path) -> None:
    manifest = read_bundle(tiny.make_image_bundle(tmp_path)).manifest
    keep(store, manifest, pixels(1), [None])
    with pytest.raises(UnknownItemError, match="no labelled inputs of tiny-image"):
        exported(store, manifest.name)
    keep(store, manifest, pixels(2)[1:], [manifest.labels[0]])
    with pytest.raises(UnknownItemError, match="no labelled inputs of tiny-image/7"):
        exported(store, manifest.name, "7")


def test_what_is_damaged_is_named(store: Store, tmp_path: Path) -> None:
    manifest = read_bundle(tiny.make_image_bundle(tmp_path)).manifest
    keep(store, manifest, pixels(1), [manifest.labels[0]])
    (item,) = store.page()
    store._database.execute("UPDATE review_items SET payload = :broken", broken=b"broken")
    with pytest.raises(ReviewStoreError, match=f"the input {item.id} cannot be read"):
        exported(store, manifest.name)
    store._database.execute("UPDATE review_bundles SET manifest = '{}'")
    with pytest.raises(ReviewStoreError, match="a manifest of tiny-image/1 that cannot be understood"):
        exported(store, manifest.name)
