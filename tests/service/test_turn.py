import asyncio
from collections.abc import Callable

import pytest

from service.turn import Together
from tests.service.fakes import LIMIT_S

pytestmark = pytest.mark.anyio


async def turns(n: int) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


async def test_what_many_ask_for_is_done_once_and_after_what_is_ready_now() -> None:
    events: list[str] = []
    together = Together(lambda: events.append("work"))
    loop = asyncio.get_running_loop()
    loop.call_soon(events.append, "ready")
    for _ in range(5):
        together.ask()
    loop.call_soon(events.append, "later")
    assert events == []
    await turns(1)
    assert events == ["ready", "work", "later"]
    await turns(3)
    assert events.count("work") == 1


async def test_who_asks_after_it_was_done_has_it_done_again() -> None:
    done: list[int] = []
    together = Together(lambda: done.append(1))
    for n in range(1, 4):
        together.ask()
        await turns(2)
        assert len(done) == n


async def test_the_work_itself_may_ask_and_is_done_in_the_next_turn() -> None:
    times = 0

    def work() -> None:
        nonlocal times
        times += 1
        together.ask()
        together.ask()

    together = Together(work)
    together.ask()
    for turn in range(1, 5):
        await turns(1)
        assert times == turn


async def test_work_that_fails_is_done_again_when_it_is_asked_for() -> None:
    failures: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context["exception"]))
    done: list[int] = []

    def work() -> None:
        done.append(1)
        raise ValueError("broken")

    together = Together(work)
    for _ in range(2):
        together.ask()
        await turns(2)
    assert len(done) == len(failures) == 2


async def test_it_may_be_put_off_so_that_more_can_ask() -> None:
    done = asyncio.Event()
    times = 0

    def work() -> None:
        nonlocal times
        times += 1
        done.set()

    together = Together(work, 0.02)
    began_s = asyncio.get_running_loop().time()
    for _ in range(5):
        together.ask()
        await asyncio.sleep(0.001)
    assert times == 0
    await asyncio.wait_for(done.wait(), LIMIT_S)
    assert asyncio.get_running_loop().time() - began_s >= 0.019
    await asyncio.sleep(0.03)
    assert times == 1
    done.clear()
    together.ask()
    await asyncio.wait_for(done.wait(), LIMIT_S)
    assert times == 2


@pytest.mark.parametrize("after_s", [0.0, 0.001])
async def test_nothing_is_done_where_nobody_asks(after_s: float) -> None:
    works: list[Callable[[], None]] = []
    Together(lambda: works.append(print), after_s)
    await asyncio.sleep(0.005)
    assert works == []
