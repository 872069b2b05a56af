from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from service.agreement import LEAST, MOST, SIGNIFICANCE, Agreement, _fewest_flips


def after(flips: int, n: int, bound: float) -> Agreement:
    """The flips come last."""
    agreement = Agreement(bound)
    for i in range(n):
        agreement.note(agreed=i < n - flips)
    return agreement


@pytest.mark.parametrize("n", [LEAST, 731, MOST])
@pytest.mark.parametrize("bound", [0.5, 0.9, 0.99, 0.999, 0.99999])
def test_the_bound_is_broken_where_the_exact_test_says_so_and_no_flip_sooner(n: int, bound: float) -> None:
    fewest = int(stats.binom.isf(SIGNIFICANCE, n, 1 - bound)) + 1
    assert stats.binom.sf(fewest - 1, n, 1 - bound) < SIGNIFICANCE <= stats.binom.sf(fewest - 2, n, 1 - bound)
    assert not after(fewest - 1, n, bound).is_broken
    assert after(fewest, n, bound).is_broken
    # The same in other words: the upper limit of Clopper and Pearson is below the bound.
    limit = stats.binomtest(n - fewest, n).proportion_ci(1 - 2 * SIGNIFICANCE, "exact").high
    assert limit < bound


def test_fewer_comparisons_prove_nothing() -> None:
    assert not after(LEAST - 1, LEAST - 1, 0.9).is_broken
    assert after(LEAST, LEAST, 0.9).is_broken


def test_a_bound_that_no_number_of_flips_can_break_is_not_broken() -> None:
    assert _fewest_flips(LEAST, 0.999) == LEAST + 1
    assert not after(LEAST, LEAST, 0.001).is_broken


def test_only_the_last_comparisons_count() -> None:
    agreement = after(300, MOST, 0.5)
    for _ in range(MOST - 100):
        agreement.note(agreed=True)
    assert (agreement.n, agreement.share) == (MOST, 0.9)


def test_an_agreement_just_at_its_bound_is_nearly_never_broken() -> None:
    """Although it is asked after every comparison: 50 models of 10,000 comparisons each."""
    random = np.random.default_rng(5)
    broken = 0
    for _ in range(50):
        agreement = Agreement(0.99)
        for agreed in (random.random(10_000) < 0.99).tolist():
            agreement.note(agreed=agreed)
            if agreement.is_broken:
                broken += 1
                break
    assert broken <= 1
