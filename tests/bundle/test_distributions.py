import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bundle.distributions import beta_binomial_band, beta_binomial_tail, chi_square_tail


@given(x=st.floats(0, 2_000), degrees=st.integers(1, 60))
def test_the_chi_square_tail_is_scipys(x: float, degrees: int) -> None:
    assert chi_square_tail(x, degrees) == pytest.approx(stats.chi2.sf(x, degrees), rel=1e-9, abs=1e-13)


def test_a_negative_statistic_is_no_surprise() -> None:
    assert chi_square_tail(-1e-12, 3) == chi_square_tail(0, 3) == 1.0


@given(data=st.data(), n=st.integers(1, 5_000), a=st.integers(1, 200), b=st.integers(1, 5_000))
def test_the_beta_binomial_tail_is_scipys(data: st.DataObject, n: int, a: int, b: int) -> None:
    x = data.draw(st.integers(0, n))
    expected = stats.betabinom.sf(x - 1, n, a, b)
    assert beta_binomial_tail(x, n, a, b) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_with_many_held_out_inputs_it_is_the_binomial_tail() -> None:
    for x in (0, 5, 10, 20, 30):
        expected = stats.binom.sf(x - 1, 500, 0.02)
        assert beta_binomial_tail(x, 500, 2e7, 98e7) == pytest.approx(expected, rel=1e-4)


def test_the_tail_of_a_whole_day_is_found_at_once() -> None:
    expected = stats.norm.sf(210_000, 200_000, (1e7 * 0.02 * 0.98 * (1 + (1e7 - 1) / 50_001)) ** 0.5)
    assert beta_binomial_tail(210_000, 10_000_000, 1_000, 49_000) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(("n", "a", "b"), [(1, 5, 1), (300, 286, 15), (1_000, 4_751, 250), (50, 1, 1)])
@pytest.mark.parametrize("level", [0.95, 0.99])
def test_a_band_is_that_of_scipys_quantiles(n: int, a: int, b: int, level: float) -> None:
    low, high = stats.betabinom.ppf(((1 - level) / 2, (1 + level) / 2), n, a, b)
    assert beta_binomial_band(n, a, b, level) == (int(low), int(high))
