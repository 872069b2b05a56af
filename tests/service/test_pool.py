import pytest

from service.pool import RunPool


class Asker:
    """Asks for slots, and takes or gives up as a test says."""

    def __init__(self, pool: RunPool) -> None:
        self.pool = pool
        self.called = 0

    def call(self) -> None:
        self.called += 1

    def take(self) -> bool:
        return self.pool.take_slot(self.call)

    def withdraw(self) -> None:
        self.pool.withdraw(self.call)


@pytest.fixture
def askers() -> list[Asker]:
    pool = RunPool(1)
    return [Asker(pool) for _ in range(3)]


@pytest.mark.parametrize("threads", [1, 3])
def test_there_are_as_many_slots_as_threads(threads: int) -> None:
    pool = RunPool(threads)
    asker = Asker(pool)
    assert pool.threads == threads
    assert [asker.take() for _ in range(threads + 2)] == [True] * threads + [False] * 2
    pool.give_back_slot()
    assert asker.called == 1
    assert asker.take()
    assert not asker.take()
    assert list(pool.executor.map(abs, [-1])) == [1]
    pool.executor.shutdown()


def test_who_asked_first_is_called_when_a_slot_is_free(askers: list[Asker]) -> None:
    one, two, three = askers
    assert [each.take() for each in askers] == [True, False, False]
    assert not two.take()  # asking again changes nothing
    one.pool.give_back_slot()
    assert [each.called for each in askers] == [0, 1, 0]
    assert two.take()
    two.pool.give_back_slot()
    assert [each.called for each in askers] == [0, 1, 1]
    assert three.take()


def test_nobody_takes_the_slot_of_one_that_was_called_before(askers: list[Asker]) -> None:
    """One that gives its slot back and has more to run comes after those that wait."""
    one, two, three = askers
    assert one.take()
    assert not two.take()
    one.pool.give_back_slot()
    assert not one.take()
    assert not three.take()
    assert two.take()
    two.pool.give_back_slot()
    assert (one.called, three.called) == (1, 0)
    assert not three.take()
    assert one.take()


def test_when_one_that_was_called_needs_no_slot_any_more_the_next_is_called(askers: list[Asker]) -> None:
    one, two, three = askers
    assert [each.take() for each in askers] == [True, False, False]
    one.pool.give_back_slot()
    two.withdraw()
    assert three.called == 1
    assert three.take()
    three.pool.give_back_slot()
    assert one.take()


def test_who_withdraws_before_it_is_called_loses_its_place_and_nobody_is_called(askers: list[Asker]) -> None:
    one, two, _ = askers
    assert [each.take() for each in askers] == [True, False, False]
    two.withdraw()
    two.withdraw()
    assert [each.called for each in askers] == [0, 0, 0]
    one.pool.give_back_slot()
    assert [each.called for each in askers] == [0, 0, 1]


def test_several_that_wait_are_called_as_several_slots_are_free() -> None:
    pool = RunPool(2)
    one, two, three, four = (Asker(pool) for _ in range(4))
    assert [each.take() for each in (one, two, three, four)] == [True, True, False, False]
    pool.give_back_slot()
    pool.give_back_slot()
    assert three.take()
    assert four.called == 1
    assert four.take()
