from __future__ import annotations

import math
import struct
from typing import Any, get_args

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bundle.datatypes import (
    BINARY_ONLY,
    DATATYPES,
    DTYPES,
    Datatype,
    array_from_bytes,
    array_from_values,
    array_to_bytes,
    array_to_values,
    check_json_form,
    check_shape,
)
from bundle.errors import InputError

SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
JSON_TYPES = [datatype for datatype in DATATYPES if datatype not in BINARY_ONLY]


def arrays(datatype: Datatype, *, finite: bool = False) -> st.SearchStrategy[np.ndarray]:
    """Arrays of any shape of a datatype."""
    dtype = DTYPES[datatype]
    if datatype == "BYTES":
        return hnp.arrays(object, SHAPES, elements=TEXTS)
    if dtype.kind == "f" and finite:
        elements = st.floats(allow_nan=False, allow_infinity=False, width=dtype.itemsize * 8)  # type: ignore[call-overload]
        return hnp.arrays(dtype, SHAPES, elements=elements)
    return hnp.arrays(dtype, SHAPES)


def nested(array: np.ndarray, *, flat: bool) -> Any:
    return array.ravel().tolist() if flat else array.tolist()


@pytest.mark.parametrize("datatype", DATATYPES)
@given(data=st.data())
def test_a_tensor_of_any_type_and_shape_comes_back_from_its_bytes(
    datatype: Datatype, data: st.DataObject
) -> None:
    array = data.draw(arrays(datatype))
    content = array_to_bytes(datatype, array)
    found = array_from_bytes("x", datatype, array.shape, memoryview(content))
    assert (found.shape, found.dtype) == (array.shape, DTYPES[datatype])
    assert array_to_bytes(datatype, found) == content
    if datatype != "BYTES":
        assert content == array.tobytes()
        assert len(content) == array.size * DTYPES[datatype].itemsize


@pytest.mark.parametrize("datatype", JSON_TYPES)
@given(data=st.data(), flat=st.booleans())
def test_a_tensor_of_any_type_and_shape_comes_back_from_json(
    datatype: Datatype, data: st.DataObject, flat: bool
) -> None:
    array = data.draw(arrays(datatype, finite=True))
    values = orjson.loads(orjson.dumps(nested(array, flat=flat)))
    found = array_from_values("x", datatype, array.shape, values)
    assert (found.shape, found.dtype) == (array.shape, DTYPES[datatype])
    np.testing.assert_array_equal(found, array)
    again = orjson.loads(orjson.dumps(array_to_values("x", datatype, found)))
    np.testing.assert_array_equal(array_from_values("x", datatype, array.shape, again), array)


def test_bytes_are_little_endian_and_row_major() -> None:
    array = np.array([[1, 2], [3, 4]], ">u2").T
    assert array_to_bytes("UINT16", array) == struct.pack("<4H", 1, 3, 2, 4)
    assert array_to_bytes("BOOL", np.array([True, False])) == b"\x01\x00"
    texts = np.array(["ä", ""], object)
    assert array_to_bytes("BYTES", texts) == b"\x02\x00\x00\x00\xc3\xa4\x00\x00\x00\x00"
    assert set(DTYPES) == set(DATATYPES) == set(get_args(Datatype))


@pytest.mark.parametrize("datatype", DATATYPES)
@given(data=st.data())
def test_too_few_or_too_many_bytes_are_refused(datatype: Datatype, data: st.DataObject) -> None:
    array = data.draw(arrays(datatype))
    content = array_to_bytes(datatype, array)
    cut = data.draw(st.integers(0, len(content)))
    more = data.draw(st.binary(max_size=20))
    odd = content[:cut] + more
    if len(odd) == len(content) or (datatype == "BYTES" and odd.startswith(content)):
        odd = content + b"\0\0\0\0"
    with pytest.raises(InputError, match=r"^x: "):
        array_from_bytes("x", datatype, array.shape, odd)


@given(content=st.binary(max_size=40), count=st.integers(0, 4))
def test_any_bytes_are_texts_of_that_number_or_refused(content: bytes, count: int) -> None:
    try:
        found = array_from_bytes("x", "BYTES", [count], content)
    except InputError:
        return
    assert array_to_bytes("BYTES", found) == content
    assert found.shape == (count,)


@pytest.mark.parametrize(
    ("content", "shape", "reason"),
    [
        (b"\x05\x00\x00\x00abc", [1], "cut off"),
        (b"\x01\x00", [1], "cut off"),
        (b"\xff\xff\xff\xff", [1], "cut off"),
        (b"\x01\x00\x00\x00a", [2], "has 2 elements, the data have 1"),
        (b"\x01\x00\x00\x00a" * 3, [2], "has 2 elements, the data have more"),
        (b"\x01\x00\x00\x00a", [0], "has 0 elements, the data have more"),
        (b"\x01\x00\x00\x00\xff", [1], "not UTF-8"),
    ],
)
def test_damaged_texts_are_refused_for_their_reason(content: bytes, shape: list[int], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        array_from_bytes("x", "BYTES", shape, content)


def test_a_bool_that_is_no_bool_is_refused() -> None:
    with pytest.raises(InputError, match="0 or 1"):
        array_from_bytes("x", "BOOL", [2], b"\x01\x02")


@pytest.mark.parametrize(
    ("datatype", "shape", "values", "reason"),
    [
        ("UINT8", [2], [1, 256], "integers beyond UINT8"),
        ("INT8", [2], [1, -129], "beyond INT8"),
        ("UINT64", [2], [2**64 - 1, -1], "beyond UINT64"),
        ("INT64", [1], [2**63], "beyond INT64"),
        ("INT64", [1], [1e30], "fractions or integers beyond 64 bits"),
        ("INT32", [1], [1.0], "fractions"),
        ("FP32", [1], [1e39], "beyond FP32"),
        ("FP64", [1], [math.inf], "beyond FP64"),
        ("FP32", [1], [True], "true or false"),
        ("FP32", [1], [None], "null"),
        ("FP32", [1], "1", "text"),
        ("FP32", [1], {"b64": ""}, "an object"),
        ("BOOL", [1], [1], "integers cannot be an element of BOOL"),
        ("BYTES", [1], [1], "integers cannot be an element of BYTES"),
        ("BYTES", [2, 1], [["a"], ["b", "c"]], "no regular shape"),
        ("BYTES", [2], [["a"], ["b", "c"]], "lists nested too deeply"),
        ("INT32", [2, 2], [[1, 2], [3]], "no regular shape"),
        ("INT32", [2, 2], [[1, 2], 3, 4], "no regular shape"),
        ("INT32", [2, 2], [1, 2, 3], r"\[3\] do not fit \[2, 2\]"),
        ("INT32", [1, 4], [[1, 2], [3, 4]], r"\[2, 2\] do not fit \[1, 4\]"),
        ("INT32", [], [1, 2], r"do not fit \[\]"),
        ("INT32", [0], [1], "do not fit"),
        ("INT32", [2**40], [1], "do not fit"),
        ("FP16", [1], [1.0], "as bytes only"),
        ("BF16", [1], [1.0], "as bytes only"),
    ],
)
def test_json_that_does_not_fit_is_refused_for_its_reason(
    datatype: Datatype, shape: list[int], values: object, reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        array_from_values("x", datatype, shape, values)


def test_lists_nested_without_end_are_refused() -> None:
    values: object = 1
    for _ in range(5000):
        values = [values]
    with pytest.raises(InputError, match="nested too deeply"):
        array_from_values("x", "INT64", [1, 1], values)


def test_a_scalar_may_stand_alone() -> None:
    for values in (3, [3]):
        assert array_from_values("x", "INT64", [], values) == np.int64(3)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
def test_what_is_not_finite_has_no_form_in_json(datatype: Datatype, value: float) -> None:
    array = np.array([0, value], DTYPES[datatype])
    with pytest.raises(InputError, match="ask for binary data"):
        array_to_values("x", datatype, array)
    np.testing.assert_array_equal(array_from_bytes("x", datatype, [2], array.tobytes()), array)


@pytest.mark.parametrize("datatype", sorted(BINARY_ONLY))
def test_short_fractions_have_no_form_in_json(datatype: Datatype) -> None:
    with pytest.raises(InputError, match="as bytes only"):
        check_json_form("x", datatype, np.zeros(1, DTYPES[datatype]))


@given(st.lists(st.integers(-1, 2**62) | st.sampled_from([True, 1.0, None, "1"]), max_size=40))
def test_a_shape_is_refused_or_one_that_an_array_can_have(shape: list[Any]) -> None:
    try:
        check_shape("x", shape)
    except InputError:
        return
    if 0 in shape:
        assert np.zeros(0).reshape(shape).shape == tuple(shape)
    assert all(type(size) is int and size >= 0 for size in shape)
    assert len(shape) <= 32


@pytest.mark.parametrize(
    "shape", [[-1], [2, -5], [2**4, 2**60 + 2], [0, 2**60], [1] * 33, [1.0], [True], ["1"]]
)
def test_odd_shapes_are_refused(shape: list[Any]) -> None:
    with pytest.raises(InputError, match="shape"):
        check_shape("x", shape)
