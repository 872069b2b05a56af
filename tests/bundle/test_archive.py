"""Arrays in a file: what goes in comes out, and what could run code does not."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bundle.archive import load_arrays, save_arrays

DTYPES = st.sampled_from([np.dtype(code) for code in ("?", "u1", "i2", "u4", "i8", "f2", "f4", "f8")])
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0)
# numpy's texts of a fixed width cannot end in NUL.
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5)


@given(st.dictionaries(st.sampled_from("abcd"), DTYPES.flatmap(lambda kind: hnp.arrays(kind, SHAPES))))
def test_booleans_and_numbers_come_back_as_they_were(arrays: dict[str, np.ndarray]) -> None:
    found = load_arrays(save_arrays(arrays))
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()


@given(hnp.arrays(object, SHAPES, elements=TEXTS))
def test_texts_come_back_as_objects(array: np.ndarray) -> None:
    found = load_arrays(save_arrays({"texts": array}))["texts"]
    assert found.dtype == object
    assert found.shape == array.shape
    assert found.tolist() == array.tolist()


def test_pickled_objects_are_refused_before_they_can_run_anything() -> None:

    buffer = io.BytesIO()
    np.savez(buffer, harmful=np.array([{"a": 1}], object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        load_arrays(buffer.getvalue())
