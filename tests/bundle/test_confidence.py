from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bundle.confidence import assess, softmax

LOGITS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(2, 12)),
    elements=st.floats(-1e4, 1e4, width=32) | st.floats(-5, 5, width=32) | st.sampled_from([0.0, 1.0]),
)
TEMPERATURES = st.floats(0.05, 20)


@given(LOGITS, TEMPERATURES)
def test_softmax_is_that_of_scipy_and_sums_to_one(logits: np.ndarray, temperature: float) -> None:
    found = softmax(logits, temperature)
    expected = scipy.special.softmax(logits.astype(np.float64) / temperature, axis=-1)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-300)
    np.testing.assert_allclose(found.sum(axis=-1), 1, rtol=1e-12)
    assert found.dtype == np.float64


@pytest.mark.parametrize("scale", [1e4, 1e30, 3e38])
def test_extreme_logits_give_finite_answers(scale: float) -> None:
    found = assess(np.array([[scale, 0, -scale], [-scale, -scale, -scale]], np.float32), 0.5)
    np.testing.assert_array_equal(found.probabilities[0], [1, 0, 0])
    np.testing.assert_allclose(found.probabilities[1], [1 / 3] * 3)
    assert found.entropy_bits[0] == 0
    assert found.margin.tolist() == [1, 0]


@given(LOGITS, TEMPERATURES)
def test_entropy_is_that_of_scipy_in_bits_and_within_its_bounds(
    logits: np.ndarray, temperature: float
) -> None:
    found = assess(logits, temperature)
    expected = scipy.stats.entropy(found.probabilities, base=2, axis=-1)
    np.testing.assert_allclose(found.entropy_bits, expected, rtol=1e-9, atol=1e-12)
    assert (found.entropy_bits >= 0).all()
    assert (found.entropy_bits <= np.log2(logits.shape[1]) + 1e-12).all()


@given(LOGITS, TEMPERATURES)
def test_order_falls_and_equal_logits_keep_the_order_of_the_labels(
    logits: np.ndarray, temperature: float
) -> None:
    found = assess(logits, temperature)
    for row, order in zip(logits, found.order, strict=True):
        assert order.tolist() == sorted(range(len(row)), key=lambda label: (-row[label], label))
    np.testing.assert_array_equal(found.order[:, 0], logits.argmax(axis=1))


@given(LOGITS, TEMPERATURES)
def test_margin_is_the_difference_of_the_two_largest_probabilities(
    logits: np.ndarray, temperature: float
) -> None:
    found = assess(logits, temperature)
    largest = np.sort(found.probabilities, axis=-1)
    np.testing.assert_allclose(found.margin, largest[:, -1] - largest[:, -2], rtol=0, atol=1e-15)
    assert (found.margin >= 0).all()


@given(LOGITS)
def test_raw_probabilities_know_no_temperature(logits: np.ndarray) -> None:
    np.testing.assert_array_equal(assess(logits, 3.0).raw, softmax(logits))
    np.testing.assert_array_equal(assess(logits, 1.0).raw, assess(logits, 1.0).probabilities)


@given(LOGITS)
def test_a_higher_temperature_never_makes_the_answer_surer(logits: np.ndarray) -> None:
    cold, warm = assess(logits, 1.0), assess(logits, 2.0)
    assert (warm.probabilities.max(axis=1) <= cold.probabilities.max(axis=1) + 1e-12).all()
    assert (warm.entropy_bits >= cold.entropy_bits - 1e-9).all()
