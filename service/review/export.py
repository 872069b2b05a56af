"""Labelled inputs as a data set: one `.npz` that `octet train --review` and `octet evaluate --data` read.

It holds each input of the graph, the items one behind the other in its first dimension, and "labels", their
indices into the model's labels. Where items differ in length, they are padded with zeros and the input that
carries the lengths stands beside them. It is written item by item, so that its size in memory is that of one.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

import numpy as np

from bundle.datatypes import Array
from bundle.errors import InputError, ManifestError
from bundle.manifest import Manifest
from service.errors import ReviewStoreError, UnknownItemError
from service.review.items import Item, unpack
from service.review.store import Store

LABELS = "labels"
_AT_ONCE = 500


class _Column(NamedTuple):
    """All items of one input: shape without padding of each, and what they are padded to."""

    shapes: list[tuple[int, ...]]
    dtype: np.dtype[np.generic]

    @property
    def shape(self) -> tuple[int, ...]:
        longest = tuple(max(sizes) for sizes in zip(*self.shapes, strict=True))
        return (len(self.shapes), *longest)


def export(store: Store, model: str, file: BinaryIO, version: str | None = None) -> list[Item]:
    """Write the labelled inputs of a model, oldest label first; return what was written.

    Args:
        version: only those that this version answered for.

    Raises:
        UnknownItemError: there are none.
        InputError: they are not of one kind: the versions that answered take other inputs or have other
            labels, or the items differ in a size and the model takes no lengths.
        ReviewStoreError: the store cannot be read.
    """
    with store.snapshot():
        items = _labelled(store, model, version)
        manifest = _common_manifest(store, items)
        columns = _measure(store, manifest, items)
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for tensor in manifest.data_inputs:
                _write(archive, tensor.name, columns[tensor.name], _arrays(store, items, tensor.name))
            for tensor in manifest.inputs:
                if tensor.lengths_of is not None:
                    axis = _free_axis(manifest, tensor.lengths_of)
                    lengths = [shape[axis] for shape in columns[tensor.lengths_of].shapes]
                    _write_numbers(archive, tensor.name, lengths)
            _write_numbers(archive, LABELS, [manifest.labels.index(str(item.label)) for item in items])
    return items


def manifest_of(store: Store, item: Item) -> Manifest:
    """Return the manifest of the bundle that answered for an input.

    Raises:
        ReviewStoreError: it is not there, or cannot be understood.
    """
    try:
        return Manifest.model_validate_json(store.manifest(item.bundle_sha256))
    except (ValueError, ManifestError) as error:
        raise ReviewStoreError(
            f"the review store holds a manifest of {item.model}/{item.version} that cannot be understood"
        ) from error


def read_row(store: Store, item: Item) -> dict[str, Array]:
    """Return the arrays of an input.

    Raises:
        UnknownItemError: it is not there any more.
        ReviewStoreError: they are damaged.
    """
    try:
        return unpack(store.payload(item.id))
    except ValueError as error:
        raise ReviewStoreError(f"the input {item.id} {error}") from error


def _labelled(store: Store, model: str, version: str | None) -> list[Item]:
    items: list[Item] = []
    while page := store.page(model, labelled=True, order="newest", limit=_AT_ONCE, offset=len(items)):
        items += page
    items = [item for item in items if version in (None, item.version)]
    if not items:
        of = model if version is None else f"{model}/{version}"
        raise UnknownItemError(f"the review queue holds no labelled inputs of {of}")
    return sorted(items, key=lambda item: (item.labelled_s or 0, item.id))


def _common_manifest(store: Store, items: Sequence[Item]) -> Manifest:
    """Return a manifest that all items fit."""
    first, *others = {item.bundle_sha256: manifest_of(store, item) for item in items}.values()
    for other in others:
        if (other.inputs, other.labels) != (first.inputs, first.labels):
            raise InputError(
                f"the versions {first.version} and {other.version} of {first.name} differ in their inputs or "
                "labels, so their items are no one data set; name a version"
            )
    return first


def _measure(store: Store, manifest: Manifest, items: Sequence[Item]) -> dict[str, _Column]:
    columns: dict[str, _Column] = {}
    for tensor in manifest.data_inputs:
        arrays = [(array.shape, _plain(array).dtype) for array in _arrays(store, items, tensor.name)]
        column = _Column([shape for shape, _ in arrays], np.result_type(*{dtype for _, dtype in arrays}))
        has_lengths = any(other.lengths_of == tensor.name for other in manifest.inputs)
        if len(set(column.shapes)) > 1 and not has_lengths:
            raise InputError(
                f"{tensor.name}: the items differ in shape, and {manifest.name} takes no lengths"
            )
        columns[tensor.name] = column
    return columns


def _arrays(store: Store, items: Sequence[Item], name: str) -> Iterator[Array]:
    return (read_row(store, item)[name] for item in items)


def _write(archive: zipfile.ZipFile, name: str, column: _Column, arrays: Iterator[Array]) -> None:
    _, *longest = column.shape
    with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
        header = {
            "descr": np.lib.format.dtype_to_descr(column.dtype),
            "fortran_order": False,
            "shape": column.shape,
        }
        np.lib.format.write_array_header_1_0(entry, header)
        for array in arrays:
            padded = np.zeros(longest, column.dtype)
            padded[tuple(map(slice, array.shape))] = array
            entry.write(padded.tobytes())


def _write_numbers(archive: zipfile.ZipFile, name: str, numbers: Sequence[int]) -> None:
    with archive.open(f"{name}.npy", "w") as entry:
        np.lib.format.write_array(entry, np.array(numbers, np.int64), allow_pickle=False)


def _plain(array: Array) -> Array:
    """Texts, which are objects in memory, in numpy's own fixed width."""
    return array.astype(np.str_) if array.dtype == object else array


def _free_axis(manifest: Manifest, name: str) -> int:
    tensor = next(tensor for tensor in manifest.inputs if tensor.name == name)
    return next(axis for axis, size in enumerate(tensor.row_shape) if isinstance(size, str))
