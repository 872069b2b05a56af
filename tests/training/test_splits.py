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


def test_groups_must_be_as_many_as_labels() -> None:
    one, two = np.zeros(1, np.int64), np.zeros(2, np.int64)
    assert Examples(one, [one], one, np.array(["ann"])).groups is not None
    with pytest.raises(ValueError, match="groups and labels differ in number"):
        Examples(two, [two] * 2, two, np.array(["ann"]))


def test_chosen_items_keep_their_number_label_and_group() -> None:
    whole = Examples(np.arange(3), [np.full(2, i) for i in range(3)], np.arange(3) + 5, np.array(list("aba")))
    part = whole.where(np.array([True, False, True]))
    assert part.groups is not None
    assert (part.ids.tolist(), part.labels.tolist(), part.groups.tolist()) == ([0, 2], [5, 7], ["a", "a"])
    assert [int(item[0]) for item in part.items] == [0, 2]
    assert examples(1, 2).where(np.array([False, True])).groups is None


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


def parts_of(*speakers: str) -> Splits:
    """Each split has one item of each speaker, whose label is its number."""
    parts = {}
    for i, name in enumerate(NAMES):
        ids = np.arange(len(speakers)) + i * len(speakers)
        parts[name] = Examples(ids, [np.full(1, k) for k in ids], ids % 10, np.array(speakers))
    return Splits(**parts)


def test_a_group_that_is_held_out_is_the_whole_test_split_and_in_no_other() -> None:
    held = parts_of("ann", "bob", "eve").hold_out("bob")
    for name, part in held:
        assert part.groups is not None
        expected = {"bob"} if name == "test" else {"ann", "eve"}
        assert set(part.groups.tolist()) == expected
        assert [int(item[0]) for item in part.items] == part.ids.tolist()
        assert (part.labels == part.ids % 10).all()
    assert held.test.ids.tolist() == [1, 4, 7, 10, 13]
    assert [len(part) for _, part in held] == [2, 2, 2, 2, 5]


def test_what_cannot_be_held_out_is_named() -> None:
    with pytest.raises(ValueError, match="no item comes from zoe"):
        parts_of("ann", "bob").hold_out("zoe")
    with pytest.raises(ValueError, match="not known what groups"):
        Splits(**{name: examples(i) for i, name in enumerate(NAMES)}).hold_out("ann")
