"""Splits are disjoint or do not exist."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.splits import Examples, Splits

NAMES = ("train", "validation", "temperature", "conformal", "test")


def examples(*ids: int) -> Examples:
    return Examples(np.array(ids, np.int64), [np.zeros(2)] * len(ids), np.zeros(len(ids), np.int64))


def test_ids_items_and_labels_must_be_equally_many() -> None:
    one, two = np.zeros(1, np.int64), np.zeros(2, np.int64)
    for ids, items, labels in ((one, [two] * 2, two), (two, [two], two), (two, [two] * 2, one)):
        with pytest.raises(ValueError, match="differ in number"):
            Examples(ids, items, labels)
    assert len(examples(3, 4)) == 2


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 30), max_size=6), min_size=5, max_size=5))
def test_splits_are_accepted_just_where_no_item_stands_twice(ids: list[list[int]]) -> None:
    parts = {name: examples(*part) for name, part in zip(NAMES, ids, strict=True)}
    flat = [i for part in ids for i in part]
    if len(set(flat)) == len(flat):
        assert dict(Splits(**parts)) == parts
    else:
        with pytest.raises(ValueError, match="stands in two splits"):
            Splits(**parts)
