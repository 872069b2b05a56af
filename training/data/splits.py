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
        groups: (n,) names of whom or what each item comes from, such as its speaker; None where that is
            not known. Items of one group are more alike than those of two.
    """

    ids: NDArray[np.int64]
    items: Sequence[NDArray[Any]]
    labels: NDArray[np.int64]
    groups: NDArray[np.str_] | None = None

    def __post_init__(self) -> None:
        if not len(self.ids) == len(self.items) == len(self.labels):
            raise ValueError("ids, items and labels differ in number")
        if self.groups is not None and len(self.groups) != len(self.labels):
            raise ValueError("groups and labels differ in number")

    def __len__(self) -> int:
        return len(self.labels)

    def where(self, chosen: NDArray[np.bool_]) -> Examples:
        """Return the items that (n,) booleans choose."""
        places = np.flatnonzero(chosen).tolist()
        return Examples(
            ids=self.ids[places],
            items=[self.items[i] for i in places],
            labels=self.labels[places],
            groups=None if self.groups is None else self.groups[places],
        )


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

    def hold_out(self, group: str) -> Splits:
        """Return splits that show how the model does on a group it never met.

        The test split is all that the group has, from every split; the others go on without the group. What
        the old test split has of other groups stands in none.

        Raises:
            ValueError: the groups are not known, or this one is in no split.
        """
        own = [part.where(_groups_of(part) == group) for _, part in self]
        test = Examples(
            ids=np.concatenate([part.ids for part in own]),
            items=[item for part in own for item in part.items],
            labels=np.concatenate([part.labels for part in own]),
            groups=np.concatenate([_groups_of(part) for part in own]),
        )
        if not len(test):
            raise ValueError(f"no item comes from {group}")
        others = {name: part.where(_groups_of(part) != group) for name, part in self if name != "test"}
        return Splits(**others, test=test)


def _groups_of(examples: Examples) -> NDArray[np.str_]:
    if examples.groups is None:
        raise ValueError("it is not known what groups the items come from")
    return examples.groups
