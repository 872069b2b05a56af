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
    first, second = assess(np.array([[scale, 0, -scale], [-scale, -scale, -scale]], np.float32), 0.5)
    assert first.probabilities == first.raw == [1, 0, 0]
    np.testing.assert_allclose(second.probabilities, [1 / 3] * 3)
    assert first.entropy_bits == 0
    assert (first.margin, second.margin) == (1, 0)


@given(LOGITS, TEMPERATURES)
def test_entropy_is_that_of_scipy_in_bits_and_within_its_bounds(
    logits: np.ndarray, temperature: float
) -> None:
    for row in assess(logits, temperature):
        expected = scipy.stats.entropy(row.probabilities, base=2)
        np.testing.assert_allclose(row.entropy_bits, expected, rtol=1e-9, atol=1e-12)
        assert 0 <= row.entropy_bits <= np.log2(logits.shape[1]) + 1e-12


@given(LOGITS, TEMPERATURES)
def test_order_falls_and_equal_logits_keep_the_order_of_the_labels(
    logits: np.ndarray, temperature: float
) -> None:
    for values, row in zip(logits, assess(logits, temperature), strict=True):
        assert row.logits == values.tolist()
        assert row.order == sorted(range(len(values)), key=lambda label: (-values[label], label))
        assert row.order[0] == values.argmax()


@given(LOGITS, TEMPERATURES)
def test_margin_is_the_difference_of_the_two_largest_probabilities(
    logits: np.ndarray, temperature: float
) -> None:
    for row in assess(logits, temperature):
        *_, second, first = sorted(row.probabilities)
        assert row.margin == pytest.approx(first - second, rel=0, abs=1e-15)
        assert row.margin >= 0


@given(LOGITS, TEMPERATURES)
def test_probabilities_are_the_softmax_and_raw_ones_know_no_temperature(
    logits: np.ndarray, temperature: float
) -> None:
    rows = assess(logits, temperature)
    np.testing.assert_array_equal([row.probabilities for row in rows], softmax(logits, temperature))
    np.testing.assert_allclose([row.raw for row in rows], softmax(logits), rtol=1e-12, atol=1e-300)


@given(LOGITS)
def test_a_higher_temperature_never_makes_the_answer_surer(logits: np.ndarray) -> None:
    for cold, warm in zip(assess(logits, 1.0), assess(logits, 2.0), strict=True):
        assert max(warm.probabilities) <= max(cold.probabilities) + 1e-12
        assert warm.entropy_bits >= cold.entropy_bits - 1e-9


@given(st.integers(0, 1_000))
def test_the_raw_confidence_is_the_largest_of_the_raw_probabilities(seed: int) -> None:
    logits = np.random.default_rng(seed).normal(size=(3, 7)) * 50
    for row in assess(logits, 1.7):
        assert row.raw_confidence == pytest.approx(max(row.raw), rel=1e-12)
        assert row.raw_confidence == pytest.approx(row.raw[row.order[0]], rel=1e-12)
