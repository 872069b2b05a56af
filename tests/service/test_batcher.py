import asyncio
import logging
import math
import socket
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle.rows import Row
from service.batcher import Batcher
from service.errors import QueueFullError
from service.metrics import Metrics
from service.pool import RunPool
from tests.service.fakes import LIMIT_S, Echo, until

pytestmark = pytest.mark.anyio


class Harness:
    """A batcher in front of an echo, and what its metrics say."""

    def __init__(
        self,
        pool: RunPool,
        batch: int,
        queue: int,
        seconds_per_element: float = math.inf,
        elements: float = math.inf,
    ) -> None:
        self.echo = Echo(batch, seconds_per_element, elements)
        self.metrics = Metrics()
        self.batcher = Batcher(self.echo.runner, pool, queue, self.metrics)

    def submit(self, *values: float, length: int = 1) -> "asyncio.Future[list[float]]":
        return self.batcher.submit(rows(values, length))

    async def hold(self) -> "asyncio.Future[list[float]]":
        """Occupy a runner with the value 1000; it stays until the gate opens."""
        busy = self.submit(1000)
        await until(lambda: [1000] in self.echo.runs)
        return busy

    def sample(self, name: str) -> float | None:
        self.metrics.gather()
        self.metrics.gather()
        return self.metrics.registry.get_sample_value(name, {"model": "echo", "version": "1"})


@asynccontextmanager
async def running(
    batch: int = 4,
    queue: int = 100,
    runners: int = 1,
    seconds_per_element: float = math.inf,
    elements: float = math.inf,
) -> AsyncIterator[Harness]:
    pool = RunPool(runners)
    with pool.executor:
        harness = Harness(pool, batch, queue, seconds_per_element, elements)
        try:
            async with asyncio.timeout(LIMIT_S):
                yield harness
        finally:
            harness.echo.gate.set()
            await harness.batcher.stop()


@asynccontextmanager
async def running_inline(batch: int = 4, longest: int = 100, queue: int = 100) -> AsyncIterator[Harness]:
    """Batches of so many elements, or fewer, run on the event loop, where nothing waits at the gate."""
    async with running(batch, queue, seconds_per_element=0.005 / longest) as harness:
        harness.echo.gate.set()
        yield harness


def rows(values: Sequence[float], length: int = 1) -> list[Row]:
    return [{"x": np.full(length, value)} for value in values]


def echoed(*values: float) -> list[float]:
    return list(values)


async def test_a_lone_request_runs_at_once_without_company() -> None:
    async with running() as harness:
        harness.echo.gate.set()
        assert (await harness.batcher.submit(rows([3]))) == echoed(3)
        assert harness.echo.runs == [[3]]


async def test_what_arrives_while_the_runner_is_busy_runs_together_up_to_the_limit() -> None:
    async with running(batch=4) as harness:
        busy = await harness.hold()
        callers = [harness.submit(value) for value in range(6)]
        await until(lambda: harness.sample("octet_queue_depth") == 6)
        harness.echo.gate.set()
        answers = await asyncio.gather(busy, *callers)
        assert answers == [echoed(1000), *(echoed(n) for n in range(6))]
        assert harness.echo.runs == [[1000], [0, 1, 2, 3], [4, 5]]


async def test_callers_of_different_sizes_in_one_run_each_get_their_own_rows() -> None:
    async with running(batch=8) as harness:
        busy = await harness.hold()
        callers = [harness.submit(1, 2), harness.submit(3, 4, 5), harness.submit(6)]
        await until(lambda: harness.sample("octet_queue_depth") == 6)
        harness.echo.gate.set()
        answers = await asyncio.gather(*callers)
        assert answers == [echoed(1, 2), echoed(3, 4, 5), echoed(6)]
        assert harness.echo.runs == [[1000], [1, 2, 3, 4, 5, 6]]
        await busy


async def test_a_request_that_does_not_fit_beside_others_waits_for_the_next_run() -> None:
    async with running(batch=4) as harness:
        busy = await harness.hold()
        callers = [harness.submit(1, 2, 3), harness.submit(4, 5), harness.submit(6)]
        await until(lambda: harness.sample("octet_queue_depth") == 6)
        harness.echo.gate.set()
        await asyncio.gather(busy, *callers)
        assert harness.echo.runs == [[1000], [1, 2, 3], [4, 5, 6]]


async def test_a_request_larger_than_a_batch_is_split_and_comes_back_in_order() -> None:
    async with running(batch=4) as harness:
        harness.echo.gate.set()
        assert (await harness.batcher.submit(rows(range(10)))) == echoed(*range(10))
        assert harness.echo.runs == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


async def test_a_caller_that_cannot_be_told_harms_no_other_of_its_batch(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running() as harness:
        busy = await harness.hold()
        told: list[object] = []

        def broken(outcome: object) -> None:
            told.append(outcome)
            raise ValueError("broken")

        harness.batcher.ask(rows([1]), broken)
        other = harness.submit(2)
        harness.echo.gate.set()
        assert await other == echoed(2)
        assert told == [echoed(1)]
        assert "could not be told" in caplog.text
        await busy


async def test_who_asks_is_told_once_and_after_cancelling_never() -> None:
    async with running(batch=2) as harness:
        busy = await harness.hold()
        told: dict[str, list[object]] = {"waits": [], "gone": [], "large": [], "large and gone": []}
        harness.batcher.ask(rows([1]), told["waits"].append)
        gone = harness.batcher.ask(rows([2]), told["gone"].append)
        harness.batcher.ask(rows([3, 4, 5]), told["large"].append)
        large = harness.batcher.ask(rows([6, 7, 8]), told["large and gone"].append)
        for asked in (gone, large, gone):
            asked.cancel()
        harness.echo.gate.set()
        await busy
        await until(lambda: bool(told["large"]))
        assert await harness.submit(9) == echoed(9)
        assert told == {
            "waits": [echoed(1)],
            "gone": [],
            "large": [echoed(3, 4, 5)],
            "large and gone": [],
        }
        assert not {2, 6, 7, 8} & {value for run in harness.echo.runs for value in run}


async def test_as_many_batches_run_at_the_same_time_as_there_are_runners() -> None:
    async with running(batch=1, runners=2) as harness:
        callers = [harness.submit(value) for value in range(3)]
        await until(lambda: len(harness.echo.runs) == 2)
        assert harness.sample("octet_queue_depth") == 1
        harness.echo.gate.set()
        await asyncio.gather(*callers)
        assert sorted(harness.echo.runs) == [[0], [1], [2]]


async def test_a_batch_still_grows_while_another_model_holds_the_only_thread() -> None:
    pool = RunPool(1)
    with pool.executor:
        slow, fast = Harness(pool, batch=4, queue=100), Harness(pool, batch=4, queue=100)
        fast.echo.gate.set()
        async with asyncio.timeout(LIMIT_S):
            busy = await slow.hold()
            first = fast.submit(1)
            await until(lambda: fast.sample("octet_queue_depth") == 1)
            second = fast.submit(2)
            await until(lambda: fast.sample("octet_queue_depth") == 2)
            slow.echo.gate.set()
            await asyncio.gather(busy, first, second)
        assert fast.echo.runs == [[1, 2]]
        for harness in (slow, fast):
            await harness.batcher.stop()


@asynccontextmanager
async def sharing(models: int, seconds_per_element: float = math.inf) -> AsyncIterator[list[Harness]]:
    """Several models on one thread, of which the first is busy until its gate opens."""
    pool = RunPool(1)
    with pool.executor:
        harnesses = [Harness(pool, 4, 100, seconds_per_element if i else math.inf) for i in range(models)]
        for harness in harnesses[1:]:
            harness.echo.gate.set()
        try:
            async with asyncio.timeout(LIMIT_S):
                busy = await harnesses[0].hold()
                yield harnesses
                harnesses[0].echo.gate.set()
                await busy
        finally:
            for harness in harnesses:
                harness.echo.gate.set()
                await harness.batcher.stop()


async def test_models_that_wait_for_the_only_thread_get_it_in_the_order_of_their_asking() -> None:
    async with sharing(4) as (first, *others):
        order: list[int] = []
        for i in (2, 0, 1):
            future = others[i].submit(i)
            future.add_done_callback(lambda _, i=i: order.append(i))
            await asyncio.sleep(0)
        first.submit(5)
        first.echo.gate.set()
        await until(lambda: len(order) == 3)
        assert order == [2, 0, 1]


async def test_a_model_whose_callers_have_gone_does_not_keep_the_thread_from_the_next() -> None:
    async with sharing(3) as (first, gone, waits):
        left = gone.submit(1)
        await asyncio.sleep(0)
        answer = waits.submit(2)
        await asyncio.sleep(0)
        left.cancel()
        await asyncio.sleep(0)
        first.echo.gate.set()
        assert await answer == [2]
        assert gone.echo.runs == []


async def test_a_model_that_was_stopped_does_not_keep_the_thread_from_the_next() -> None:
    async with sharing(3) as (first, stopped, waits):
        dropped = stopped.submit(1)
        await asyncio.sleep(0)
        answer = waits.submit(2)
        await asyncio.sleep(0)
        await stopped.batcher.stop()
        first.echo.gate.set()
        assert await answer == [2]
        assert dropped.cancelled()


async def test_a_busy_model_does_not_starve_another() -> None:
    """Even when a request for it has just come whenever its batch is ready."""
    async with sharing(2) as (busy, other):
        waiting = other.submit(1)
        await asyncio.sleep(0)
        give_back = busy.batcher._pool.give_back_slot

        def with_company() -> None:
            if not waiting.done() and len(busy.echo.runs) < 10:
                busy.submit(2)  # asks for its turn before the slot is free
            give_back()

        busy.batcher._pool.give_back_slot = with_company  # type: ignore[method-assign]
        busy.submit(2)
        busy.echo.gate.set()
        assert await waiting == [1]
        assert len(busy.echo.runs) <= 2
        busy.batcher._pool.give_back_slot = give_back  # type: ignore[method-assign]


async def test_rows_of_a_caller_that_has_gone_are_left_out_of_the_run() -> None:
    async with running() as harness:
        busy = await harness.hold()
        gone, stays = harness.submit(1, 2), harness.submit(3)
        await until(lambda: harness.sample("octet_queue_depth") == 3)
        gone.cancel()
        await asyncio.wait({gone})
        harness.echo.gate.set()
        assert (await stays) == echoed(3)
        await busy
        assert harness.echo.runs == [[1000], [3]]


async def test_a_caller_that_has_gone_makes_room_in_the_queue_at_once() -> None:
    async with running(batch=2, queue=2) as harness:
        busy = await harness.hold()
        gone = harness.submit(1, 2)
        await until(lambda: harness.sample("octet_queue_depth") == 2)
        gone.cancel()
        await asyncio.wait({gone})
        assert harness.sample("octet_queue_depth") == 0
        stays = harness.submit(3, 4)
        harness.echo.gate.set()
        assert (await stays) == echoed(3, 4)
        await busy
        assert harness.sample("octet_queue_depth") == 0


async def test_when_a_part_of_a_request_fails_its_other_parts_are_not_run() -> None:
    async with running(batch=2) as harness:
        busy = await harness.hold()
        fails = harness.submit(1, -2, 3, 4, 5)
        await until(lambda: harness.sample("octet_queue_depth") == 5)
        harness.echo.gate.set()
        with pytest.raises(RuntimeError, match="cannot run -2"):
            await fails
        await busy
        assert (await harness.batcher.submit(rows([6]))) == echoed(6)
        assert harness.echo.runs[:2] == [[1000], [1, -2]]
        assert [5] not in harness.echo.runs
        assert harness.sample("octet_queue_depth") == 0


@pytest.mark.parametrize("turns", range(4))
async def test_a_large_request_whose_caller_goes_soon_is_not_run(turns: int) -> None:
    async with running(batch=2) as harness:
        busy = await harness.hold()
        gone = harness.submit(1, 2, 3, 4, -5)
        for _ in range(turns):
            await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait({gone})
        await asyncio.sleep(0)
        assert harness.sample("octet_queue_depth") == 0
        harness.echo.gate.set()
        await busy
        assert await harness.submit(6) == [6]
        assert harness.echo.runs == [[1000], [6]]


async def test_a_caller_that_goes_during_the_run_harms_nobody() -> None:
    async with running() as harness:
        busy = await harness.hold()
        busy.cancel()
        other = harness.submit(5)
        harness.echo.gate.set()
        assert (await other) == echoed(5)
        assert busy.cancelled()


async def test_a_failing_batch_is_rerun_one_by_one_so_that_only_the_guilty_request_fails(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running(batch=8) as harness:
        busy = await harness.hold()
        callers = [harness.submit(1, 2), harness.submit(-3), harness.submit(4)]
        await until(lambda: harness.sample("octet_queue_depth") == 4)
        with caplog.at_level(logging.WARNING, "service.batcher"):
            harness.echo.gate.set()
            answers = await asyncio.gather(busy, *callers, return_exceptions=True)
        assert answers[1] == echoed(1, 2)  # type: ignore[union-attr]
        assert isinstance(answers[2], RuntimeError)
        assert answers[3] == echoed(4)  # type: ignore[union-attr]
        assert harness.echo.runs == [[1000], [1, 2, -3, 4], [1, 2], [-3], [4]]
        assert "a batch of 3 requests failed (cannot run -3)" in caplog.text


async def test_a_failing_caller_that_has_gone_harms_nobody() -> None:
    async with running() as harness:
        gone = harness.submit(-1)
        await until(lambda: harness.echo.runs == [[-1]])
        gone.cancel()
        harness.echo.gate.set()
        assert (await harness.batcher.submit(rows([2]))) == echoed(2)


async def test_a_full_queue_refuses_until_there_is_room() -> None:
    async with running(batch=2, queue=3) as harness:
        busy = await harness.hold()
        waiting = harness.submit(1, 2)
        await until(lambda: harness.sample("octet_queue_depth") == 2)
        with pytest.raises(QueueFullError, match="2 rows are waiting"):
            await harness.batcher.submit(rows([3, 4]))
        fits = harness.submit(5)
        await until(lambda: harness.sample("octet_queue_depth") == 3)
        harness.echo.gate.set()
        await asyncio.gather(busy, waiting, fits)
        assert (await harness.batcher.submit(rows([3, 4]))) == echoed(3, 4)


async def test_a_request_larger_than_the_queue_is_let_in_when_nothing_waits() -> None:
    async with running(batch=2, queue=3) as harness:
        harness.echo.gate.set()
        assert (await harness.batcher.submit(rows(range(7)))) == echoed(*range(7))


async def test_stop_cancels_what_waits_and_what_runs() -> None:
    async with running() as harness:
        runs, waits = await harness.hold(), harness.submit(1)
        await until(lambda: harness.sample("octet_queue_depth") == 1)
        await harness.batcher.stop()
        done, _ = await asyncio.wait({runs, waits}, timeout=20)
        assert done == {runs, waits}
        assert runs.cancelled()
        assert waits.cancelled()
        assert harness.sample("octet_queue_depth") == 0


async def test_stop_in_the_middle_of_a_rerun_cancels_the_rest_of_the_batch() -> None:
    async with running() as harness:
        gate = harness.echo.gates[(1,)] = threading.Event()
        busy = await harness.hold()
        callers = {harness.submit(1), harness.submit(-2)}
        await until(lambda: harness.sample("octet_queue_depth") == 2)
        harness.echo.gate.set()
        await until(lambda: [1] in harness.echo.runs)
        await harness.batcher.stop()
        done, _ = await asyncio.wait(callers, timeout=20)
        gate.set()
        assert done == callers
        assert all(caller.cancelled() for caller in callers)
        assert (await busy) == echoed(1000)


async def test_rows_runs_and_waits_are_counted() -> None:
    async with running(batch=4) as harness:
        busy = await harness.hold()
        callers = [harness.submit(1, 2), harness.submit(3)]
        await until(lambda: harness.sample("octet_queue_depth") == 3)
        harness.echo.gate.set()
        await asyncio.gather(busy, *callers)
        assert harness.sample("octet_rows_total") == 4
        assert harness.sample("octet_batch_rows_count") == 2
        assert harness.sample("octet_batch_rows_sum") == 4
        assert harness.sample("octet_run_seconds_count") == 2
        assert harness.sample("octet_queue_seconds_count") == 3
        assert harness.sample("octet_queue_depth") == 0


# Quick batches, on the event loop.


async def test_a_quick_batch_runs_on_the_event_loop_and_a_long_one_in_a_thread() -> None:
    async with running_inline(batch=4, longest=100) as harness:
        here = threading.current_thread().name
        assert await harness.submit(1, length=100) == [1]
        assert await harness.submit(2, length=101) == [2]
        assert await harness.submit(3, 4, length=50) == [3, 4]
        assert await harness.submit(5, 6, length=51) == [5, 6]
        assert await harness.submit(7, 8, 9, 10, length=25) == [7, 8, 9, 10]
        assert harness.echo.threads == [here, "run_0", here, "run_0", here]


async def test_how_long_a_batch_takes_is_foretold_from_all_that_runs_together() -> None:
    async with running_inline(batch=4, longest=100) as harness:
        callers = [harness.submit(value, length=30) for value in range(8)]
        assert await asyncio.gather(*callers) == [[value] for value in range(8)]
        assert harness.echo.runs == [[0, 1, 2, 3], [4, 5, 6, 7]]
        assert harness.echo.threads == ["run_0"] * 2


async def test_where_batches_run_beside_one_another_none_runs_on_the_event_loop() -> None:
    async with running(runners=2, seconds_per_element=1e-9) as harness:
        harness.echo.gate.set()
        for value in range(3):
            assert await harness.submit(value) == [value]
        assert all(name.startswith("run_") for name in harness.echo.threads)


async def test_where_nothing_is_known_of_the_time_none_runs_on_the_event_loop() -> None:
    async with running() as harness:
        harness.echo.gate.set()
        assert await harness.submit(1) == [1]
        assert harness.echo.threads == ["run_0"]


async def test_the_answers_to_a_batch_are_delivered_before_the_next_begins() -> None:
    events: list[str] = []
    async with running_inline(batch=2) as harness:
        run = harness.echo.run

        def watched(batch: Sequence[Row]) -> list[float]:
            events.append("run")
            return run(batch)

        harness.batcher._runner = replace(harness.echo.runner, run=watched)
        callers = [harness.submit(value) for value in range(6)]
        for value, caller in enumerate(callers):
            caller.add_done_callback(lambda _, value=value: events.append(str(value)))
        await asyncio.gather(*callers)
    assert events == ["run", "0", "1", "run", "2", "3", "run", "4", "5"]


async def test_between_batches_the_event_loop_does_its_other_work() -> None:
    seen: list[int] = []
    one, other = socket.socketpair()
    with one, other:
        async with running_inline(batch=1) as harness:
            loop = asyncio.get_running_loop()
            loop.add_reader(other, lambda: (seen.append(len(harness.echo.runs)), other.recv(1)))
            callers = [harness.submit(value) for value in range(10)]
            callers[0].add_done_callback(lambda _: one.send(b"x"))
            callers[4].add_done_callback(lambda _: one.send(b"x"))
            await asyncio.gather(*callers)
            await until(lambda: len(seen) == 2)
            loop.remove_reader(other)
    assert 1 <= seen[0] <= 3
    assert 5 <= seen[1] <= 7


async def test_what_comes_while_batches_run_joins_the_next() -> None:
    async with running_inline(batch=2) as harness:
        callers = [harness.submit(value) for value in range(3)]
        late: list[asyncio.Future[list[float]]] = []
        callers[0].add_done_callback(lambda _: late.append(harness.submit(9)))
        await asyncio.gather(*callers)
        assert await late[0] == [9]
        assert harness.echo.runs == [[0, 1], [2, 9]]


async def test_a_failing_quick_batch_is_rerun_one_by_one(caplog: pytest.LogCaptureFixture) -> None:
    async with running_inline(batch=8) as harness:
        callers = [harness.submit(1, 2), harness.submit(-3), harness.submit(4)]
        answers = await asyncio.gather(*callers, return_exceptions=True)
        assert [answers[0], answers[2]] == [[1, 2], [4]]
        assert str(answers[1]) == "cannot run -3"
        assert harness.echo.runs == [[1, 2, -3, 4], [1, 2], [-3], [4]]
        assert set(harness.echo.threads) == {threading.current_thread().name}
        assert "a batch of 3 requests failed (cannot run -3)" in caplog.text
        assert harness.sample("octet_rows_total") == 3
        assert harness.sample("octet_batch_rows_count") == 4
        assert harness.sample("octet_run_seconds_count") == 2
        with pytest.raises(RuntimeError, match="cannot run -5"):
            await harness.submit(-5)
        assert await harness.submit(6) == [6]


async def test_long_rows_run_in_the_thread_while_short_ones_of_the_same_model_are_answered() -> None:
    async with running_inline(batch=4, longest=100) as harness:
        gate = harness.echo.gates[(1,)] = threading.Event()
        long = harness.submit(1, length=5000)
        await until(lambda: [1] in harness.echo.runs)
        waits = harness.submit(2, length=5000)  # for the thread
        for value in range(10, 15):
            assert await harness.submit(value) == [value]
        assert not long.done()
        assert not waits.done()
        assert harness.sample("octet_queue_depth") == 1
        gate.set()
        assert await asyncio.gather(long, waits) == [[1], [2]]


async def test_a_long_row_does_not_wait_for_short_ones_that_keep_coming() -> None:
    async with running_inline(batch=4, longest=100) as harness:
        answered = asyncio.Event()

        def again(_: object) -> None:
            if not answered.is_set() and len(harness.echo.runs) < 1000:
                harness.submit(1).add_done_callback(again)

        again(None)
        await until(lambda: len(harness.echo.runs) > 10)
        before = len(harness.echo.runs)
        assert await harness.submit(2, length=60) == [2]  # quick, too
        assert len(harness.echo.runs) - before <= 4
        assert await harness.submit(3, length=5000) == [3]
        answered.set()
        assert len(harness.echo.runs) < 1000


async def test_rows_of_unlike_lengths_do_not_run_together_and_the_oldest_is_next() -> None:
    async with running(batch=8) as harness:
        busy = await harness.hold()
        lengths = [10, 100, 1000, 11, 110, 14, 900, 13]
        callers = [harness.submit(value, length=length) for value, length in enumerate(lengths)]
        await asyncio.sleep(0)
        harness.echo.gate.set()
        assert await asyncio.gather(*callers) == [[value] for value in range(8)]
        assert harness.echo.lengths[1:] == [[10, 11], [100, 110], [1000, 900], [14, 13]]
        await busy


async def test_the_longest_row_of_a_request_says_where_it_waits() -> None:
    async with running(batch=8) as harness:
        busy = await harness.hold()
        mixed = harness.batcher.submit([*rows([1], 3), *rows([2], 100)])
        long = harness.submit(3, length=100)
        short = harness.submit(4, length=3)
        await asyncio.sleep(0)
        harness.echo.gate.set()
        assert await asyncio.gather(mixed, long, short) == [[1, 2], [3], [4]]
        assert harness.echo.runs == [[1000], [1, 2, 3], [4]]
        await busy


async def test_of_long_rows_fewer_run_together_and_one_that_is_too_long_runs_alone() -> None:
    async with running(batch=4, elements=100) as harness:
        busy = await harness.hold()
        callers = [harness.submit(value, length=40) for value in (1, 2, 3)]
        callers += [harness.submit(4, 5, 6, length=50), harness.submit(7, 8, length=300)]
        callers += [harness.submit(value, length=25) for value in range(9, 14)]
        harness.echo.gate.set()
        await asyncio.gather(busy, *callers)
        runs = sorted(harness.echo.runs[1:])
        assert runs == [[1, 2], [3], [4, 5], [6], [7], [8], [9, 10, 11, 12], [13]]


async def test_a_bucket_in_which_nothing_waits_any_more_is_forgotten() -> None:
    async with running_inline() as harness:
        for length in range(1, 60):
            await harness.submit(1, length=length)
        gone = [harness.submit(2, length=length) for length in range(1, 60)]
        for each in gone:
            each.cancel()
        await until(lambda: len(harness.batcher._buckets) <= 1)


# For each caller: how many rows, whether it goes away, whether its last row makes a run fail. Most are small
# and well behaved, so that most batches hold rows of several callers.
SIZES = st.integers(1, 4) | st.integers(1, 4) | st.integers(5, 20)
SELDOM = st.sampled_from([False, False, False, False, False, True])
LENGTHS = st.integers(1, 40)
CALLERS = st.lists(st.tuples(SIZES, SELDOM, SELDOM, LENGTHS), min_size=2, max_size=12)


@settings(max_examples=150, deadline=None)
@given(
    callers=CALLERS,
    batch=st.integers(1, 12),
    runners=st.integers(1, 3),
    held=st.booleans(),
    longest=st.sampled_from([None, 1, 60, 100_000]),
    elements=st.sampled_from([math.inf, math.inf, 1, 30, 100]),
    turns=st.integers(0, 3),
)
def test_every_caller_gets_its_own_rows_whatever_the_order_sizes_failures_and_cancellations(
    callers: list[tuple[int, bool, bool, int]],
    batch: int,
    runners: int,
    held: bool,
    longest: int | None,
    elements: float,
    turns: int,
) -> None:
    """In threads alone, on the event loop alone, and where it depends on the batch."""

    async def scenario() -> None:
        seconds_per_element = 0.005 / longest if longest else math.inf
        async with running(batch, 1000, runners, seconds_per_element, elements) as harness:
            wanted: list[list[float]] = []
            for number, (size, _, guilty, _) in enumerate(callers):
                values = [number * 20 + n + 1.0 for n in range(size)]
                wanted.append([*values[:-1], -values[-1]] if guilty else values)
            if not held or longest:
                harness.echo.gate.set()
            tasks = []
            for values, (*_, length) in zip(wanted, callers, strict=True):
                tasks.append(harness.submit(*values, length=length))
                if length % 3 == 0:
                    await asyncio.sleep(0)
            for _ in range(turns):
                await asyncio.sleep(0)
            gone = [leaves and task.cancel() for task, (_, leaves, _, _) in zip(tasks, callers, strict=True)]
            harness.echo.gate.set()
            answers = await asyncio.gather(*tasks, return_exceptions=True)
            for answer, values, left, (_, _, guilty, _) in zip(answers, wanted, gone, callers, strict=True):
                if left:
                    assert isinstance(answer, asyncio.CancelledError)
                elif guilty:
                    assert isinstance(answer, RuntimeError)
                    assert str(answer) == f"cannot run {values[-1]:g}"
                else:
                    assert answer == values
            assert await harness.submit(5) == [5]
            assert harness.sample("octet_queue_depth") == 0
            assert max(map(len, harness.echo.runs)) <= batch
            for lengths in harness.echo.lengths:
                assert max(lengths) <= min(lengths) * math.sqrt(2) + 1e-9
                assert len(lengths) == 1 or len(lengths) * max(lengths) <= elements
            ran_here = [name == threading.current_thread().name for name in harness.echo.threads]
            if longest is None or runners > 1:
                assert not any(ran_here)
            else:
                counts = [len(lengths) * max(lengths) for lengths in harness.echo.lengths]
                for count, here in zip(counts, ran_here, strict=True):
                    assert here or count > longest or any(guilty for _, _, guilty, _ in callers)

    asyncio.run(scenario())
