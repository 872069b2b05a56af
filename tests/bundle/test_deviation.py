"""How far arrays are from each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bundle.bfloat16 import bits_from_floats
from bundle.deviation import as_numbers, deviation

FINITE = hnp.arrays(np.float32, hnp.array_shapes(min_dims=0), elements=st.floats(-1e6, 1e6, width=32))


@given(FINITE)
def test_nothing_deviates_from_itself(array: np.ndarray) -> None:
    assert deviation("FP32", array, array.copy()) == 0


@given(FINITE, st.floats(-10, 10))
def test_a_shift_is_measured_against_the_largest_value_or_one(array: np.ndarray, shift: float) -> None:
    found = array.astype(np.float64) + shift
    expected = abs(found - array).max(initial=0) / max(1, abs(array).max(initial=0))
    assert deviation("FP64", array.astype(np.float64), found) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("datatype", "expected", "found"),
    [
        ("INT64", np.array([1, 2]), np.array([1, 3])),
        ("BOOL", np.array([True]), np.array([False])),
        ("BYTES", np.array(["a", "b"], object), np.array(["a", "c"], object)),
        ("FP32", np.zeros((2, 1)), np.zeros((1, 2))),
        ("FP32", np.array([0.0]), np.array([np.nan])),
        ("FP32", np.array([np.nan]), np.array([0.0])),
        ("FP32", np.array([np.inf]), np.array([-np.inf])),
    ],
)
def test_what_knows_no_nearly_is_infinitely_far(
    datatype: str, expected: np.ndarray, found: np.ndarray
) -> None:
    assert deviation(datatype, expected, found) == math.inf  # type: ignore[arg-type]
    assert deviation(datatype, expected, expected.copy()) == 0  # type: ignore[arg-type]


def test_the_ends_of_a_type_do_not_overflow_into_a_warning() -> None:
    ends = np.array([np.finfo(np.float64).max])
    assert deviation("FP64", ends, -ends) == math.inf


def test_bfloat16_is_compared_by_its_numbers_and_not_by_its_bits() -> None:
    a, b = bits_from_floats(np.array([1.0, -2.0])), bits_from_floats(np.array([1.0078125, -2.0]))
    assert deviation("BF16", a, b) == pytest.approx(0.0078125 / 2)
    assert as_numbers("BF16", a).tolist() == [1.0, -2.0]
