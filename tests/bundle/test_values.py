from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bundle.datatypes import DTYPES, Datatype
from bundle.errors import InputError
from bundle.manifest import TensorSpec
from bundle.rows import tensor_from_values
from bundle.values import array_of, cast

NUMERIC: list[Datatype] = [
    "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64",
]  # fmt: skip


def spec(datatype: Datatype, *shape: int | str) -> TensorSpec:
    return TensorSpec(name="x", datatype=datatype, shape=shape)


@given(st.data())
def test_whatever_array_is_written_as_lists_comes_back(data: st.DataObject) -> None:
    datatype = data.draw(st.sampled_from([*NUMERIC, "BOOL"]))
    shape = data.draw(arrays.array_shapes(min_dims=0, max_dims=3, min_side=1, max_side=4))
    elements = {"allow_nan": False, "allow_infinity": False} if datatype.startswith("FP") else None
    array = data.draw(arrays.arrays(DTYPES[datatype], shape, elements=elements))
    found = tensor_from_values(spec(datatype, *shape), array.tolist())
    assert found.dtype == DTYPES[datatype]
    np.testing.assert_array_equal(found, array)


@given(arrays.arrays(object, arrays.array_shapes(min_dims=0, max_dims=3), elements=st.text(max_size=5)))
def test_texts_come_back(array: np.ndarray) -> None:
    found = tensor_from_values(spec("BYTES", *array.shape), array.tolist())
    assert found.dtype == object
    np.testing.assert_array_equal(found, array)


@given(
    st.lists(st.lists(st.integers(0, 255), min_size=3, max_size=3), min_size=1, max_size=4),
    st.lists(st.floats(-1, 1), min_size=1, max_size=9),
)
def test_the_short_way_for_numbers_gives_what_the_long_one_does(
    pixels: list[list[int]], samples: list[float]
) -> None:
    for tensor, values, dimensions in (
        (spec("UINT8", "batch", 4, 3), pixels, 2),
        (spec("FP32", "batch", "time"), samples, 1),
    ):
        quick = array_of(tensor, values, dimensions, only_numbers=True)
        np.testing.assert_array_equal(quick, array_of(tensor, values, dimensions))


@pytest.mark.parametrize(
    ("datatype", "values", "words"),
    [
        ("BOOL", [[1]], "expected true or false (BOOL), got integers"),
        ("BOOL", [["true"]], "got text"),
        ("BYTES", [[1.5]], "expected texts (BYTES), got fractions"),
        ("BYTES", [[None]], "got null"),
        ("BYTES", [["a"], ["b", "c"]], "no regular shape"),
        ("FP16", [[65520.0]], "holds values from 65520.0 to 65520.0; -65504 to 65504 are allowed"),
        ("BF16", [[3.4e38]], "3.38953e+38 are allowed"),
        ("BF16", [[True]], "expected numbers (BF16), got true or false"),
        ("FP32", [[1e39]], "are allowed"),
        ("UINT8", [[256]], "0 to 255 are allowed"),
        ("INT64", [[2**63]], "are allowed"),
        ("UINT64", [[2**64]], "got fractions or integers beyond 64 bits"),
        ("INT8", [[0.5]], "expected integers (INT8), got fractions"),
        ("FP32", [[1, 2], [3]], "no regular shape"),
        ("FP32", [[[1]]], "got lists nested too deeply"),
    ],
)
def test_what_is_no_element_of_the_type_is_refused(datatype: Datatype, values: Any, words: str) -> None:
    if values == [[2**64]]:
        values = [[float(2**64)]]  # as orjson gives it
    with pytest.raises(InputError) as refused:
        tensor_from_values(spec(datatype, "batch", "n"), values)
    assert words in str(refused.value)


def test_a_bfloat16_is_kept_as_the_bits_of_the_nearest_one() -> None:
    bits = cast("BF16", array_of(spec("BF16", "batch"), [1.0, 3.14159], 1))
    assert bits.dtype == np.uint16
    assert bits.tolist() == [0x3F80, 0x4049]
