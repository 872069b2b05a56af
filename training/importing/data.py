"""The data that somebody brings to an import: an `.npz` file of graph inputs, and maybe of true labels."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bundle.archive import load_arrays
from bundle.datatypes import DTYPES, Array
from bundle.decoding import Limits
from bundle.errors import InputError
from bundle.manifest import Manifest, TensorSpec
from bundle.rows import Row, rows_from_tensors
from training.errors import DataError

LABELS = "labels"
MIN_ROWS = 16
_ALL = Limits(max_rows=sys.maxsize)


@dataclass(frozen=True)
class Data:
    """Rows, or whole calls of a model without rows.

    Attributes:
        rows: as callers send them.
        labels: (n,) int64 true indices, or None.
        sha256: of the file.
    """

    rows: list[Row]
    labels: NDArray[np.int64] | None
    sha256: str

    def split(self) -> tuple[list[Row], Data]:
        """Return the rows that give the quantization ranges, and the data that the gates look at."""
        labels = self.labels[1::2] if self.labels is not None else None
        return self.rows[::2], Data(self.rows[1::2], labels, self.sha256)


def read_data(path: Path, manifest: Manifest) -> Data:
    """Read the data and check them as a request of a caller is checked.

    Args:
        path: an `.npz` file: input -> array, whose first dimension counts the items, also of a model that
            has no rows; and maybe "labels".

    Raises:
        DataError: it cannot be read, an array is missing or unknown, or does not fit the model.
    """
    try:
        content = path.read_bytes()
        arrays = load_arrays(content)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{path} {error}") from error
    inputs = {spec.name for spec in manifest.inputs}
    labels = arrays.pop(LABELS) if LABELS in arrays and LABELS not in inputs else None
    specs = {spec.name: spec for spec in manifest.inputs if spec.name in arrays}
    try:
        if unknown := sorted(set(arrays) - inputs):
            raise InputError(f"there is no input {unknown[0]!r}; there are {', '.join(sorted(inputs))}")
        tensors = {name: _cast(spec, arrays[name]) for name, spec in specs.items()}
        rows = _rows(manifest, tensors)
    except InputError as error:
        raise DataError(f"{path}: {error}") from error
    if len(rows) < MIN_ROWS:
        raise DataError(f"{path}: holds {len(rows)} items; at least {MIN_ROWS} are needed to judge a graph")
    return Data(rows, _check_labels(path, labels, manifest, len(rows)), hashlib.sha256(content).hexdigest())


def _rows(manifest: Manifest, tensors: dict[str, Array]) -> list[Row]:
    if manifest.batched:
        return rows_from_tensors(manifest, tensors, _ALL)
    counts = {name: len(array) if array.ndim else 0 for name, array in tensors.items()}
    if len(set(counts.values())) != 1:
        raise InputError(f"the arrays differ in their number of items: {counts}")
    return [
        row
        for i in range(next(iter(counts.values())))
        for row in rows_from_tensors(manifest, {name: each[i, ...] for name, each in tensors.items()}, _ALL)
    ]


def _cast(spec: TensorSpec, array: Array) -> Array:
    """Bring an array into the type of its input where that changes no more than the rounding of fractions."""
    dtype = DTYPES[spec.datatype]
    kinds = {"f": "fiu", "i": "iu", "u": "iu"}.get(dtype.kind, dtype.kind)
    if array.dtype.kind not in kinds:
        raise InputError(f"{spec.name}: elements of {array.dtype} are no {spec.datatype}")
    with np.errstate(over="ignore"):  # it shows as infinity
        cast = array.astype(dtype)
    exact = dtype.kind == "f" or np.array_equal(cast, array)
    if not exact or (dtype.kind == "f" and not np.isfinite(cast[np.isfinite(array)]).all()):
        raise InputError(f"{spec.name}: holds values beyond {spec.datatype}")
    return cast


def _check_labels(
    path: Path, labels: Array | None, manifest: Manifest, count: int
) -> NDArray[np.int64] | None:
    if labels is None:
        return None
    if not manifest.labels:
        raise DataError(f"{path}: holds labels, but the model has none; name them with --labels")
    highest = len(manifest.labels) - 1
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise DataError(f"{path}: labels must be {count} integers, one for each item")
    if labels.min() < 0 or labels.max() > highest:
        raise DataError(f"{path}: labels must be from 0 to {highest}, indices into the model's labels")
    return labels.astype(np.int64)
