"""The coordinator and the workers' links over real sockets: one in a thread, the others on the event loop."""

from __future__ import annotations

import asyncio
import select
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bundle.errors import ServingError
from bundle.serving import Serving
from service.commands import Channel, Command, Link
from service.coordinator import Coordinator
from service.errors import DeadlineError, ModelControlError, ModelLoadError, ServiceError, UnknownModelError
from service.standing import InService, Standing
from tests.service.fakes import LIMIT_S, until

pytestmark = pytest.mark.anyio

LOAD = Command(kind="load", name="m")
UNLOAD = Command(kind="unload", name="m")
SERVE = Command(kind="serve", name="m", serving=Serving(aliases={"stable": 1}))


class Worker:
    """A link and what it was commanded."""

    def __init__(self, office: Office) -> None:
        ours, theirs = socket.socketpair()
        self.channel = Channel(ours)
        self.link = Link(Channel(theirs))
        self.done: list[Command] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.answer: Any = None
        office.tell(lambda: office.coordinator.join(self.channel))

    async def apply(self, command: Command) -> Any:
        await self.gate.wait()
        self.done.append(command)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def die(self) -> None:
        self.link.close()


class Office:
    """A coordinator at work in a thread of its own, as it is in the supervisor's loop."""

    def __init__(self, timeout_s: float) -> None:
        self.committed: list[Command] = []
        self.refusal: Exception | None = None
        self.coordinator = Coordinator(self._commit, timeout_s)
        self._calls: list[Callable[[], None]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def tell(self, call: Callable[[], None]) -> None:
        self._calls.append(call)

    def stop(self) -> None:
        self._over.set()
        self._thread.join(LIMIT_S)

    def _commit(self, command: Command) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.committed.append(command)

    def _work(self) -> None:
        while not self._over.is_set():
            select.select([self.coordinator], [], [], 0.01)
            while self._calls:
                self._calls.pop(0)()
            self.coordinator.work()
        self.coordinator.close()


@asynccontextmanager
async def office(
    workers: int, timeout_s: float = LIMIT_S, *, opened: int | None = None
) -> AsyncIterator[tuple[Office, list[Worker]]]:
    place = Office(timeout_s)
    people = [Worker(place) for _ in range(workers)]
    for worker in people[:opened]:
        worker.link.open(worker.apply)
    try:
        yield place, people
    finally:
        for worker in people:
            worker.link.close()
        await asyncio.to_thread(place.stop)


async def failure_of(asking: Awaitable[Any]) -> tuple[type[Exception], str]:
    with pytest.raises(ServiceError) as failed:
        await asking
    return type(failed.value), str(failed.value)


async def test_a_command_is_answered_when_every_worker_has_done_it() -> None:
    async with office(3) as (_, workers):
        for i, worker in enumerate(workers):
            worker.answer = {"worker": i}
        workers[2].gate.clear()
        asking = asyncio.ensure_future(workers[0].link.ask(LOAD))
        await until(lambda: workers[0].done == workers[1].done == [LOAD])
        assert not asking.done()
        workers[2].gate.set()
        answers = await asking
        assert sorted(each["worker"] for each in answers) == [0, 1, 2]
        assert workers[2].done == [LOAD]


async def test_commands_of_several_workers_are_done_in_one_order_by_all() -> None:
    async with office(3) as (_, workers):
        commands = [Command(kind="load", name=f"m{i}") for i in range(30)]
        await asyncio.gather(*(workers[i % 3].link.ask(each) for i, each in enumerate(commands)))
        assert workers[0].done == workers[1].done == workers[2].done
        assert sorted(each.name for each in workers[0].done) == sorted(each.name for each in commands)


@pytest.mark.parametrize(
    "error", [UnknownModelError("no m"), ModelLoadError("it fails: ü"), ModelControlError("no")]
)
async def test_what_one_worker_cannot_do_is_the_answer(error: ServiceError) -> None:
    async with office(2) as (_, (one, other)):
        other.answer = error
        assert await failure_of(one.link.ask(LOAD)) == (type(error), str(error))
        other.answer = None
        await one.link.ask(LOAD)


async def test_a_worker_that_fails_in_an_odd_way_says_so(caplog: pytest.LogCaptureFixture) -> None:
    async with office(2) as (_, (one, other)):
        other.answer = ZeroDivisionError("by zero")
        assert await failure_of(one.link.ask(LOAD)) == (ModelLoadError, "a worker failed: by zero")
    assert "Traceback" in caplog.text


async def test_a_worker_that_dies_is_not_waited_for() -> None:
    async with office(3) as (_, (one, two, three)):
        three.gate.clear()
        asking = asyncio.ensure_future(one.link.ask(LOAD))
        await until(lambda: two.done == [LOAD])
        three.die()
        await asking
        await one.link.ask(LOAD)


async def test_the_answer_to_a_worker_that_has_died_troubles_nobody() -> None:
    async with office(2) as (_, (one, other)):
        other.gate.clear()
        asking = asyncio.ensure_future(one.link.ask(LOAD))
        await until(lambda: one.done == [LOAD])
        one.die()
        with pytest.raises(ModelControlError, match="about to stop"):
            await asking
        other.gate.set()
        await other.link.ask(UNLOAD)
        assert other.done == [LOAD, UNLOAD]


async def test_a_worker_that_hangs_is_not_waited_for_for_ever_and_does_it_later() -> None:
    async with office(2, timeout_s=0.3, opened=1) as (_, (one, other)):
        kind, text = await failure_of(one.link.ask(LOAD))
        assert kind is DeadlineError
        assert text == "1 of 2 workers did not do this within 0.3 s; they may do it later"
        other.link.open(other.apply)
        await until(lambda: other.done == [LOAD])
        await one.link.ask(UNLOAD)
        assert other.done == one.done == [LOAD, UNLOAD]


async def test_a_worker_that_takes_anothers_place_does_what_is_being_done() -> None:
    async with office(2) as (place, (one, other)):
        other.gate.clear()
        asking = asyncio.ensure_future(one.link.ask(LOAD))
        await until(lambda: one.done == [LOAD])
        new = Worker(place)
        other.die()
        new.link.open(new.apply)
        await asking
        assert new.done == [LOAD]
        new.link.close()


async def test_a_change_is_written_when_all_have_made_it_and_undone_where_one_could_not() -> None:
    """Either way, all follow what is written before it is answered."""
    follow = Command(kind="follow", name="m")
    async with office(2) as (place, (one, other)):
        await one.link.ask(SERVE)
        assert place.committed == [SERVE, follow]
        assert one.done == other.done == [SERVE, follow]
        other.answer = ModelLoadError("it fails")
        assert await failure_of(one.link.ask(SERVE)) == (ModelLoadError, "it fails")
        assert one.done == other.done == [SERVE, follow] * 2
        assert place.committed == [SERVE, follow]


async def test_a_change_that_cannot_be_written_is_undone() -> None:
    async with office(2) as (place, (one, other)):
        place.refusal = ServingError("serving.json: it cannot be written")
        assert await failure_of(one.link.ask(SERVE)) == (ModelLoadError, "serving.json: it cannot be written")
        kinds = [[each.kind for each in worker.done] for worker in (one, other)]
        assert kinds == [["serve", "follow"]] * 2


async def test_the_last_standing_that_was_told_is_kept() -> None:
    async with office(2) as (place, (one, other)):
        assert place.coordinator.standing is None
        standing = Standing(models={"m": InService(versions=(1,), serving=Serving())}, unloaded=("n",))
        other.link.tell_standing(Standing())
        one.link.tell_standing(standing)
        await one.link.ask(LOAD)
        await other.link.ask(LOAD)
        kept = place.coordinator.standing
        assert kept is not None
        assert Standing.model_validate(kept) in (standing, Standing())


async def test_when_the_supervisor_ends_nobody_waits_any_more() -> None:
    async with office(2) as (place, (one, other)):
        other.gate.clear()
        asking = asyncio.ensure_future(one.link.ask(LOAD))
        await until(lambda: one.done == [LOAD])
        await asyncio.to_thread(place.stop)
        assert await failure_of(asking) == (ModelControlError, "this server is about to stop")


async def test_messages_that_do_not_fit_wait_until_there_is_room() -> None:
    ours, theirs = socket.socketpair()
    sender, receiver = Channel(ours), Channel(theirs)
    messages = [{"n": i, "text": "ü" * 10_000} for i in range(200)]
    for message in messages:
        sender.send(message)
    received: list[Any] = []
    while len(received) < len(messages):
        received += receiver.receive() or []
        sender.flush()
    assert received == messages
    assert receiver.receive() == []
    sender.close()
    assert receiver.receive() is None
    receiver.close()
