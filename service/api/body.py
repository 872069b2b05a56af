"""Read a request's body within a size and a time, and notice when its caller goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from service.errors import (
    BodyTimeoutError,
    BodyTooLargeError,
    CallerGoneError,
    DeadlineError,
)

T = TypeVar("T")


async def read_body(request: Request, max_bytes: int, timeout_s: float) -> bytes:
    """Return the whole body.

    Raises:
        BodyTooLargeError: it is larger than `max_bytes`, by its header or by what came.
        BodyTimeoutError: it did not arrive within `timeout_s`.
        CallerGoneError: the connection was closed before its end.
    """
    too_large = BodyTooLargeError(f"the body is larger than the allowed {max_bytes} bytes")
    with suppress(ValueError):  # without a length, or with an odd one, what comes is counted
        if int(request.headers.get("content-length", "")) > max_bytes:
            raise too_large
    chunks = []
    size = 0
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.stream():
                size += len(chunk)
                if size > max_bytes:
                    raise too_large
                chunks.append(chunk)
    except TimeoutError as error:
        raise BodyTimeoutError(f"the body did not arrive within {timeout_s:g} s") from error
    except ClientDisconnect as error:
        raise CallerGoneError("the caller closed the connection") from error
    return b"".join(chunks)


async def finish_in_time(request: Request, work: Coroutine[Any, Any, T], timeout_s: float) -> T:
    """Await some work for a caller whose body was read, as long as it makes sense to.

    Raises:
        DeadlineError: it takes longer than `timeout_s`; the work is cancelled.
        CallerGoneError: the caller closed the connection; the work is cancelled.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_closed(request))
    try:
        done, _ = await asyncio.wait({task, gone}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if task in done:
            return task.result()
        if gone in done:
            raise CallerGoneError("the caller closed the connection")
        raise DeadlineError(f"the answer was not ready within {timeout_s * 1000:.0f} ms")
    finally:
        task.cancel()
        gone.cancel()


async def _closed(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
