import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

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

    def __init__(self, pool: RunPool, batch: int, queue: int) -> None:
        self.echo = Echo(batch)
        self.metrics = Metrics()
        self.batcher = Batcher(self.echo.runner, pool, queue, self.metrics)

    def submit(self, *values: float) -> "asyncio.Future[list[float]]":
        return self.batcher.submit(rows(values))

    async def hold(self) -> "asyncio.Future[list[float]]":
        """Occupy a runner with the value 1000; it stays until the gate opens."""
        busy = self.submit(1000)
        await until(lambda: [1000] in self.echo.runs)
        return busy

    def sample(self, name: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, {"model": "echo", "version": "1"})


@asynccontextmanager
async def running(batch: int = 4, queue: int = 100, runners: int = 1) -> AsyncIterator[Harness]:
    pool = RunPool(runners)
    with pool.executor:
        harness = Harness(pool, batch, queue)
        try:
            async with asyncio.timeout(LIMIT_S):
                yield harness
        finally:
            harness.echo.gate.set()
            await harness.batcher.stop()


def rows(values: Sequence[float]) -> list[Row]:
    return [{"x": np.array(value)} for value in values]


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
        assert [answer for answer in answers] == [echoed(1000), *(echoed(n) for n in range(6))]
        assert harness.echo.runs == [[1000], [0, 1, 2, 3], [4, 5]]


async def test_callers_of_different_sizes_in_one_run_each_get_their_own_rows() -> None:
    async with running(batch=8) as harness:
        busy = await harness.hold()
        callers = [harness.submit(1, 2), harness.submit(3, 4, 5), harness.submit(6)]
        await until(lambda: harness.sample("octet_queue_depth") == 6)
        harness.echo.gate.set()
        answers = await asyncio.gather(*callers)
        assert [answer for answer in answers] == [echoed(1, 2), echoed(3, 4, 5), echoed(6)]
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


# For each caller: how many rows, whether it goes away, whether its last row makes a run fail. Most are small
# and well behaved, so that most batches hold rows of several callers.
SIZES = st.integers(1, 4) | st.integers(1, 4) | st.integers(5, 20)
SELDOM = st.sampled_from([False, False, False, False, False, True])
CALLERS = st.lists(st.tuples(SIZES, SELDOM, SELDOM), min_size=2, max_size=12)


@settings(max_examples=100, deadline=None)
@given(callers=CALLERS, batch=st.integers(1, 12), runners=st.integers(1, 3), held=st.booleans())
def test_every_caller_gets_its_own_rows_whatever_the_order_sizes_failures_and_cancellations(
    callers: list[tuple[int, bool, bool]], batch: int, runners: int, held: bool
) -> None:
    async def scenario() -> None:
        async with running(batch, 1000, runners) as harness:
            wanted: list[list[float]] = []
            for number, (size, _, guilty) in enumerate(callers):
                values = [number * 20 + n + 1.0 for n in range(size)]
                wanted.append([*values[:-1], -values[-1]] if guilty else values)
            if not held:
                harness.echo.gate.set()
            tasks = [harness.submit(*values) for values in wanted]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            for task, (_, gone, _) in zip(tasks, callers, strict=True):
                if gone:
                    task.cancel()
            harness.echo.gate.set()
            answers = await asyncio.gather(*tasks, return_exceptions=True)
            for answer, values, (_, gone, guilty) in zip(answers, wanted, callers, strict=True):
                if gone:
                    assert isinstance(answer, asyncio.CancelledError)
                elif guilty:
                    assert isinstance(answer, RuntimeError)
                    assert str(answer) == f"cannot run {values[-1]:g}"
                else:
                    assert answer == echoed(*values)  # type: ignore[union-attr]
            assert (await harness.batcher.submit(rows([5]))) == echoed(5)
            assert harness.sample("octet_queue_depth") == 0
            assert max(map(len, harness.echo.runs)) <= batch

    asyncio.run(scenario())
