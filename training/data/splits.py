"""The five disjoint splits that every recipe has, and what each may be used for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Examples:
    """Labelled items of one split.

    Attributes:
        ids: (n,) int64, the item's number in the data set: what disjointness is checked by.
        items: n arrays, each one row of the model's data input, as decoded for serving.
        labels: (n,) int64 indices into the model's labels.
    """

    ids: NDArray[np.int64]
    items: Sequence[NDArray[Any]]
    labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        if not len(self.ids) == len(self.items) == len(self.labels):
            raise ValueError("ids, items and labels differ in number")

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Splits:
    """The splits of one data set. No item stands in two of them.

    Attributes:
        train: the weights are fitted on it.
        validation: early stopping and every publishing gate.
        temperature: the temperature is fitted on it.
        conformal: kept for conformal scores and thresholds; nothing else may look at it.
        test: reported only, never chosen on.
    """

    train: Examples
    validation: Examples
    temperature: Examples
    conformal: Examples
    test: Examples

    def __post_init__(self) -> None:
        ids = np.concatenate([split.ids for _, split in self])
        if len(np.unique(ids)) != len(ids):
            raise ValueError("an item stands in two splits")

    def __iter__(self) -> Iterator[tuple[str, Examples]]:
        return ((field.name, getattr(self, field.name)) for field in fields(self))
