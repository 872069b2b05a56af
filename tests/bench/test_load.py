"""The load generator against servers whose behaviour is known."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from bench.load import closed_loop, open_loop

REQUEST = b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi"
Answer = Callable[[int, asyncio.StreamWriter], "asyncio.Future[None] | object"]


@contextmanager
def answering(script: Callable[[int, asyncio.StreamWriter], object]) -> Iterator[int]:
    """Run a server in a thread: the script gets the number of each request and writes its answer."""
    ready = threading.Event()
    port: list[int] = []
    loop = asyncio.new_event_loop()
    count = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        try:
            while True:
                await reader.readexactly(len(REQUEST))
                count += 1
                result = script(count, writer)
                if asyncio.iscoroutine(result):
                    await result
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port.append(server.sockets[0].getsockname()[1])
        ready.set()
        await stop.wait()
        server.close()

    stop = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(main()))
    thread.start()
    ready.wait()
    try:
        yield port[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()


def plain(status: int = 200, body: bytes = b"ok") -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


def test_a_closed_loop_counts_answers_and_their_latency() -> None:
    async def slowly(_: int, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.02)
        writer.write(plain())

    with answering(slowly) as port:
        load = closed_loop(port, [REQUEST], connections=4, seconds=0.5, warm_up_s=0.1)
    assert set(load.statuses) == {200}
    assert len(load.latencies_s) == load.statuses[200]
    assert load.latency_ms(0.5) >= 20
    assert load.per_s <= 4 / 0.02 * 1.05
    assert load.broken == 0


@pytest.mark.parametrize("pieces", [1, 2, 7, 60])
@pytest.mark.parametrize("chunked", [False, True])
def test_answers_are_understood_in_whatever_pieces_they_come(pieces: int, chunked: bool) -> None:
    answer = plain(body=b"x" * 30)
    if chunked:
        answer = b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n"

    async def piecemeal(_: int, writer: asyncio.StreamWriter) -> None:
        size = max(1, len(answer) // pieces)
        for start in range(0, len(answer), size):
            writer.write(answer[start : start + size])
            await writer.drain()
            await asyncio.sleep(0)

    with answering(piecemeal) as port:
        load = closed_loop(port, [REQUEST], connections=2, seconds=0.2, warm_up_s=0)
    assert set(load.statuses) == {200}
    assert load.broken == 0


def test_other_answers_are_told_apart() -> None:
    def alternating(number: int, writer: asyncio.StreamWriter) -> None:
        writer.write(plain(200 if number % 2 else 429, b""))

    with answering(alternating) as port:
        load = closed_loop(port, [REQUEST], connections=1, seconds=0.3, warm_up_s=0)
    assert set(load.statuses) == {200, 429}
    assert len(load.latencies_s) == load.statuses[200]
    assert len(load.refusals_s) == load.statuses[429]
    assert load.per_s == pytest.approx(load.statuses[200] / load.seconds)


def test_what_breaks_is_sent_again_on_a_new_connection() -> None:
    def moody(number: int, writer: asyncio.StreamWriter) -> None:
        if number % 10 == 5:
            writer.transport.abort()
        else:
            writer.write(plain())

    with answering(moody) as port:
        load = closed_loop(port, [REQUEST], connections=3, seconds=0.5, warm_up_s=0)
    assert set(load.statuses) == {200}
    assert load.broken == load.retried > 0


def test_in_an_open_loop_a_stall_is_in_the_latency_of_all_that_fell_due() -> None:
    def stalling(number: int, writer: asyncio.StreamWriter) -> None:
        if number == 20:
            time.sleep(0.3)  # the whole server stands still
        writer.write(plain())

    with answering(stalling) as port:
        load = open_loop(port, [REQUEST], per_s=200, seconds=1.0, connections=4)
    assert sum(load.statuses.values()) == pytest.approx(200, abs=2)
    # 60 fell due in the stall; a closed loop would have seen it four times.
    assert (load.latencies_s > 0.1).sum() > 30
    assert load.latency_ms(1) >= 290
