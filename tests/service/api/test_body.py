import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from starlette.requests import Request
from starlette.types import Message

from service.api.body import finish_in_time, read_body
from service.errors import (
    BodyTimeoutError,
    BodyTooLargeError,
    CallerGoneError,
    DeadlineError,
)

pytestmark = pytest.mark.anyio

GONE: Message = {"type": "http.disconnect"}


def request(*messages: Message, headers: Iterable[tuple[bytes, bytes]] = ()) -> Request:
    """A request of these messages, after which nothing more comes."""
    left = list(messages)

    async def receive() -> Message:
        if left:
            return left.pop(0)
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    return Request({"type": "http", "headers": list(headers)}, receive)


def chunks(*parts: bytes) -> list[Message]:
    return [
        {"type": "http.request", "body": part, "more_body": i < len(parts) - 1}
        for i, part in enumerate(parts)
    ]


async def test_a_body_in_parts_is_joined_and_may_be_as_large_as_the_limit() -> None:
    assert await read_body(request(*chunks(b"abc", b"", b"de")), 5, 10) == b"abcde"


async def test_a_body_that_declares_too_much_is_refused_before_it_is_read() -> None:
    with pytest.raises(BodyTooLargeError, match="larger than the allowed 5 bytes"):
        await read_body(request(headers=[(b"content-length", b"6")]), 5, 10)


async def test_a_body_that_is_too_large_without_saying_so_is_refused_as_it_comes() -> None:
    with pytest.raises(BodyTooLargeError):
        await read_body(request(*chunks(b"abc", b"def", b"never read")), 5, 10)


@pytest.mark.parametrize("length", [b"", b"five", b"\xb2", b"0" * 5000 + b"3", b"9" * 5000])
async def test_an_odd_length_is_ignored_and_what_comes_is_counted(length: bytes) -> None:
    headers = [(b"content-length", length)]
    assert await read_body(request(*chunks(b"abc"), headers=headers), 5, 10) == b"abc"
    with pytest.raises(BodyTooLargeError):
        await read_body(request(*chunks(b"abcdef"), headers=headers), 5, 10)


async def test_a_body_that_stops_coming_is_given_up() -> None:
    first = chunks(b"abc", b"")[0]
    with pytest.raises(BodyTimeoutError, match=r"within 0\.01 s"):
        await read_body(request(first), 5, 0.01)


async def test_a_caller_that_goes_while_it_sends_is_noticed() -> None:
    with pytest.raises(CallerGoneError):
        await read_body(request(chunks(b"abc", b"")[0], GONE), 5, 10)


class Work:
    """Work that goes on until `finish` is set, and remembers whether it was cancelled."""

    def __init__(self) -> None:
        self.finish = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def __call__(self) -> str:
        try:
            await self.finish.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return "done"


async def test_work_that_is_ready_in_time_is_returned_and_nothing_goes_on_behind_it() -> None:
    work = Work()
    work.finish.set()
    before = asyncio.all_tasks()
    assert await finish_in_time(request(*chunks(b"late part")), work(), 10) == "done"
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


async def test_work_that_fails_raises_what_it_raised() -> None:
    async def fail() -> Any:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await finish_in_time(request(), fail(), 10)


async def test_work_that_takes_too_long_is_cancelled() -> None:
    work = Work()
    with pytest.raises(DeadlineError, match="not ready within 10 ms"):
        await finish_in_time(request(), work(), 0.01)
    await asyncio.wait_for(work.cancelled.wait(), 10)


async def test_work_of_a_caller_that_has_gone_is_cancelled() -> None:
    work = Work()
    with pytest.raises(CallerGoneError):
        await finish_in_time(request(*chunks(b""), GONE), work(), 10)
    await asyncio.wait_for(work.cancelled.wait(), 10)


async def test_work_is_cancelled_when_the_request_itself_is() -> None:
    work = Work()
    answering = asyncio.ensure_future(finish_in_time(request(), work(), 10))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    answering.cancel()
    await asyncio.wait_for(work.cancelled.wait(), 10)
    assert (await asyncio.gather(answering, return_exceptions=True))[0].__class__ is asyncio.CancelledError
