"""Labelled items of a review queue: what `octet review export` wrote, as more examples to train on.

They go into the train split and into no other: they were picked because a model was not sure of them, so they
are like no random draw, and figures measured on them would say nothing about the inputs that come.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bundle.archive import load_arrays
from bundle.checks import check_values, fits, text_of
from bundle.datatypes import DTYPES, Array
from bundle.errors import InputError
from bundle.manifest import ReviewedItems, TensorSpec
from training.config import RecipeConfig
from training.data.splits import Examples, Splits
from training.errors import DataError

logger = logging.getLogger(__name__)

AnyRecipe = TypeVar("AnyRecipe", bound=RecipeConfig)

LABELS = "labels"
# Whom such an item comes from is not known.
GROUP = "review"


@dataclass(frozen=True)
class Reviewed:
    """Labelled items, in the order of the file.

    Attributes:
        items: n arrays, each one row of the model's data input, without padding.
        labels: (n,) int64 indices into the model's labels.
        sha256: of the file.
    """

    items: Sequence[Array]
    labels: NDArray[np.int64]
    sha256: str


def read_reviewed(path: Path, inputs: Sequence[TensorSpec], labels: Sequence[str]) -> Reviewed:
    """Read a data set of labelled items, and check that a model can take them.

    Args:
        path: an `.npz` file: the data input -> its items, one behind the other; "labels" -> (n,); and the
            input that carries lengths, where the model has one -> (n,) how much of each item is no padding.
        inputs: of the model, with one data input.
        labels: of the model.

    Raises:
        DataError: it cannot be read, or something in it does not fit the model.
    """
    try:
        content = path.read_bytes()
        arrays = load_arrays(content)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{path} {error}") from error
    (data,) = (tensor for tensor in inputs if tensor.lengths_of is None)
    known = {LABELS, *(tensor.name for tensor in inputs)}
    if set(arrays) != known:
        found = ", ".join(sorted(arrays)) or "nothing"
        raise DataError(f"{path}: holds {found}; expected are {', '.join(sorted(known))}")
    counts = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if len(set(counts.values())) > 1 or not counts[LABELS]:
        raise DataError(f"{path}: the arrays differ in their number of items, or have none: {counts}")
    items = _cut(path, data, inputs, arrays)
    try:
        _check(data, arrays[data.name])
    except InputError as error:
        raise DataError(f"{path}: {error}") from error
    found_labels = _check_labels(path, arrays[LABELS], labels)
    return Reviewed(items, found_labels, hashlib.sha256(content).hexdigest())


def with_reviewed(
    config: AnyRecipe, splits: Splits, path: Path, inputs: Sequence[TensorSpec], labels: Sequence[str]
) -> tuple[AnyRecipe, Splits]:
    """Return a recipe's configuration and splits with the labelled items of a file to be trained on too.

    Runs and bundles that are made so are told apart by the configuration, whose digest is another one then.

    Raises:
        DataError: as `read_reviewed` and `add_reviewed`.
    """
    reviewed = read_reviewed(path, inputs, labels)
    more, added = add_reviewed(splits, reviewed)
    return config.model_copy(update={"reviewed": ReviewedItems(n=added, sha256=reviewed.sha256)}), more


def add_reviewed(splits: Splits, reviewed: Reviewed) -> tuple[Splits, int]:
    """Add labelled items to the train split.

    An item that stands in another split, bit for bit, is left out: it came back through the service, and a
    network must not be fitted on what it is judged by.

    Returns:
        The splits, and how many items were added.

    Raises:
        DataError: there is none to add.
    """
    judged_by = {_digest(item) for name, part in splits if name != "train" for item in part.items}
    new = np.array([_digest(item) not in judged_by for item in reviewed.items])
    added = int(new.sum())
    if left_out := len(new) - added:
        logger.warning(
            "%d reviewed items stand in a split that is not trained on; they are left out", left_out
        )
    if not added:
        raise DataError("none of the reviewed items can be added: all stand in splits that judge the network")
    first = max(int(part.ids.max()) for _, part in splits if len(part)) + 1
    chosen = np.flatnonzero(new).tolist()
    train = splits.train
    groups = train.groups
    examples = Examples(
        ids=np.concatenate([train.ids, first + np.arange(added)]),
        items=[*train.items, *(reviewed.items[place] for place in chosen)],
        labels=np.concatenate([train.labels, reviewed.labels[new]]),
        groups=None if groups is None else np.concatenate([groups, np.full(added, GROUP)]),
    )
    logger.info("%d reviewed items were added to %d items of the train split", added, len(train))
    return replace(splits, train=examples), added


def _cut(path: Path, data: TensorSpec, inputs: Sequence[TensorSpec], arrays: dict[str, Array]) -> list[Array]:
    """Return the items without their padding."""
    whole = arrays[data.name]
    lengths = next((arrays[tensor.name] for tensor in inputs if tensor.lengths_of == data.name), None)
    if lengths is None:
        return list(whole)
    longest = whole.shape[1] if whole.ndim > 1 else 0
    if lengths.dtype.kind not in "iu" or lengths.min() < 1 or lengths.max() > longest:
        raise DataError(f"{path}: the lengths must be whole numbers from 1 to {longest}")
    # A copy, so that the padding of all the others is not kept for it.
    return [item[:length].copy() for item, length in zip(whole, lengths.tolist(), strict=True)]


def _check(data: TensorSpec, whole: Array) -> None:
    if whole.dtype != DTYPES[data.datatype]:
        raise InputError(f"{data.name}: elements of {whole.dtype} are no {data.datatype}")
    if not fits(data.row_shape, whole.shape[1:], smallest=1):
        found, expected = text_of(whole.shape[1:]), text_of(data.row_shape)
        raise InputError(f"{data.name}: an item has the shape {found}, expected {expected}")
    check_values(data, whole)


def _check_labels(path: Path, found: Array, labels: Sequence[str]) -> NDArray[np.int64]:
    highest = len(labels) - 1
    if found.ndim != 1 or found.dtype.kind not in "iu" or found.min() < 0 or found.max() > highest:
        raise DataError(f"{path}: labels must be whole numbers from 0 to {highest}")
    return found.astype(np.int64)


def _digest(item: Array) -> bytes:
    return hashlib.sha256(f"{item.dtype.str}{item.shape}".encode() + item.tobytes()).digest()
