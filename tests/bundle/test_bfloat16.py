import ml_dtypes
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bundle.bfloat16 import LARGEST, bits_from_floats, floats_from_bits

NUMBERS = st.floats(-LARGEST, LARGEST, width=32)


@given(arrays.arrays(np.float32, arrays.array_shapes(min_dims=0, min_side=0), elements=NUMBERS))
def test_numbers_are_rounded_as_another_implementation_rounds_them(numbers: np.ndarray) -> None:
    expected = numbers.astype(ml_dtypes.bfloat16)
    bits = bits_from_floats(numbers)
    np.testing.assert_array_equal(bits, expected.view(np.uint16))
    np.testing.assert_array_equal(floats_from_bits(bits), expected.astype(np.float32))


def test_every_number_comes_back_as_it_was() -> None:
    bits = np.arange(2**16, dtype=np.uint16)
    numbers = floats_from_bits(bits)
    finite = np.isfinite(numbers)
    np.testing.assert_array_equal(bits_from_floats(numbers[finite]), bits[finite])
    assert numbers[finite].max() == LARGEST
