import asyncio
import time

import pytest

from service.deadlines import Deadlines
from tests.service.fakes import until

pytestmark = pytest.mark.anyio


class Waiter:
    def __init__(self, name: str, seconds: float, expired: list[str]) -> None:
        self.name = name
        self.due_s = time.monotonic() + seconds
        self._expired = expired

    def expire(self) -> None:
        assert time.monotonic() >= self.due_s
        self._expired.append(self.name)


async def test_each_is_ended_once_soon_after_it_is_due_in_whatever_order_they_came() -> None:
    deadlines, expired = Deadlines(), []
    began_s = time.monotonic()
    for name, seconds in (("late", 0.2), ("soon", 0.02), ("now", 0.0)):
        deadlines.add(Waiter(name, seconds, expired))
    await until(lambda: "soon" in expired)
    assert expired == ["now", "soon"]
    await until(lambda: "late" in expired)
    assert time.monotonic() - began_s >= 0.2
    await asyncio.sleep(0.05)
    assert expired == ["now", "soon", "late"]


async def test_who_is_answered_in_time_is_not_ended() -> None:
    deadlines, expired = Deadlines(), []
    answered, other = Waiter("answered", 0.02, expired), Waiter("other", 0.05, expired)
    deadlines.add(answered)
    deadlines.add(other)
    deadlines.discard(answered)
    deadlines.discard(answered)  # twice does no harm
    await until(lambda: bool(expired))
    await asyncio.sleep(0.05)
    assert expired == ["other"]


async def test_a_deadline_may_move_in_both_directions() -> None:
    deadlines, expired = Deadlines(), []
    sooner, later = Waiter("sooner", 60, expired), Waiter("later", 0.01, expired)
    deadlines.add(sooner)
    deadlines.add(later)
    sooner.due_s = time.monotonic() + 0.03
    later.due_s += 60
    await until(lambda: bool(expired))
    await asyncio.sleep(0.05)
    assert expired == ["sooner"]


async def test_one_that_fails_keeps_no_other_waiting() -> None:
    failures: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context["exception"]))

    class Broken(Waiter):
        def expire(self) -> None:
            raise ValueError("broken")

    deadlines, expired = Deadlines(), []
    for waiter in (Broken("broken", 0, expired), Waiter("sound", 0, expired)):
        deadlines.add(waiter)
    await until(lambda: bool(expired) and bool(failures))
    assert expired == ["sound"]
    assert [str(failure) for failure in failures] == ["broken"]
