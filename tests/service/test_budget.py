from __future__ import annotations

import pytest

from service.budget import Budget


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.mark.parametrize("per_s", [0.5, 5, 80])
def test_over_time_no_more_is_allowed_than_so_much_a_second(per_s: float) -> None:
    clock = Clock()
    budget = Budget(per_s, clock)
    taken = 0
    for _ in range(10_000):
        taken += budget.take()
        clock.now_s += 0.01
    assert taken == pytest.approx(100 * per_s, abs=per_s + 1)


def test_a_second_s_worth_is_allowed_at_once_and_no_more_after_a_long_rest() -> None:
    clock = Clock()
    budget = Budget(5, clock)
    for _ in range(2):
        assert sum(budget.take() for _ in range(20)) == 5
        clock.now_s += 1_000


def test_what_is_taken_beyond_the_rest_is_missing_later() -> None:
    clock = Clock()
    budget = Budget(10, clock)
    assert budget.take(30)
    clock.now_s += 2
    assert not budget.take()
    clock.now_s += 0.1
    assert budget.take()


def test_nothing_a_second_is_nothing() -> None:
    clock = Clock()
    budget = Budget(0, clock)
    clock.now_s += 1_000
    assert not budget.take()


def test_it_can_be_changed() -> None:
    clock = Clock()
    budget = Budget(10, clock)
    budget.per_s = 2
    assert sum(budget.take() for _ in range(20)) == 2
