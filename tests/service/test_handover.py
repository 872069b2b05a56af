import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import psutil
import pytest

from service import handover
from service.handover import Dispatch, Intake


class Pair:
    """Both sides, and callers whose connections are handed over."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.dispatch = Dispatch()
        stack.callback(self.dispatch.close)
        self.intake = Intake(self.dispatch.worker_end)

    def call(self) -> tuple[socket.socket, socket.socket]:
        """Return the two ends of a new connection: the caller's and the accepted one."""
        caller, accepted = socket.socketpair()
        self._stack.callback(caller.close)
        self._stack.callback(accepted.close)
        caller.settimeout(10)
        return caller, accepted

    def take(self) -> list[socket.socket]:
        """Take what has come, in the worker; close it after the test."""
        connections = self.intake.take()
        assert connections is not None
        for each in connections:
            self._stack.callback(each.close)
        return connections


@pytest.fixture
def pair() -> Iterator[Pair]:
    with ExitStack() as stack:
        yield Pair(stack)


def test_a_worker_is_ready_when_it_says_so(pair: Pair) -> None:
    assert not pair.dispatch.ready
    assert pair.dispatch.read_news()
    assert not pair.dispatch.ready
    pair.intake.announce()
    assert pair.dispatch.read_news()
    assert pair.dispatch.ready


def test_a_connection_is_the_workers_alone_when_it_has_taken_it(pair: Pair) -> None:
    caller, accepted = pair.call()
    assert pair.dispatch.give(accepted)
    assert (pair.dispatch.open, pair.dispatch.given) == (1, 1)
    (connection,) = pair.take()
    caller.sendall(b"hello")
    assert connection.recv(10) == b"hello"
    assert accepted.fileno() >= 0  # until it is known that it was taken
    pair.dispatch.read_news()
    assert accepted.fileno() == -1
    connection.close()
    assert caller.recv(10) == b""  # nobody else holds it
    assert pair.dispatch.open == 1
    pair.intake.ended()
    pair.dispatch.read_news()
    assert (pair.dispatch.open, pair.dispatch.given) == (0, 1)


def test_several_connections_come_in_their_order(pair: Pair) -> None:
    callers = []
    for _ in range(5):
        caller, accepted = pair.call()
        assert pair.dispatch.give(accepted)
        callers.append(caller)
    connections = pair.take()
    assert pair.take() == []
    for i, (caller, connection) in enumerate(zip(callers, connections, strict=True)):
        caller.sendall(b"%d" % i)
        assert connection.recv(10) == b"%d" % i
    pair.dispatch.read_news()
    assert pair.dispatch.take_back() == []


def test_what_a_worker_that_dies_has_not_taken_comes_back(pair: Pair) -> None:
    taken, others = pair.call(), [pair.call() for _ in range(3)]
    assert pair.dispatch.give(taken[1])
    pair.take()
    pair.intake.announce()
    for _, accepted in others:
        assert pair.dispatch.give(accepted)
    pair.dispatch.worker_end.close()  # as the kernel does it
    while pair.dispatch.read_news():
        pass
    assert not pair.dispatch.ready
    back = pair.dispatch.take_back()
    assert back == [accepted for _, accepted in others]
    assert pair.dispatch.take_back() == []
    assert taken[1].fileno() == -1
    with ExitStack() as stack:
        other = Pair(stack)
        for connection in back:
            assert other.dispatch.give(connection)
        for (caller, _), connection in zip(others, other.take(), strict=True):
            connection.sendall(b"answer")
            assert caller.recv(10) == b"answer"


def test_a_worker_that_has_died_can_have_nothing(pair: Pair) -> None:
    pair.dispatch.worker_end.close()
    _, accepted = pair.call()
    assert not pair.dispatch.give(accepted)
    assert (pair.dispatch.open, pair.dispatch.given) == (0, 0)
    assert accepted.fileno() >= 0
    assert not pair.dispatch.read_news()


def test_a_worker_that_takes_nothing_hangs(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr(handover.time, "monotonic", lambda: now_s)
    assert not pair.dispatch.hangs
    for _ in range(2):
        assert pair.dispatch.give(pair.call()[1])
    assert not pair.dispatch.hangs
    now_s += 0.2
    assert pair.dispatch.hangs
    pair.take()
    pair.dispatch.read_news()
    assert not pair.dispatch.hangs


def test_a_worker_that_looks_away_for_long_can_have_no_more_and_loses_none(pair: Pair) -> None:
    _, accepted = pair.call()
    given = 0
    copies = []
    while pair.dispatch.give(copy := accepted.dup()):
        copies.append(copy)
        given += 1
        assert given < 10_000
    copy.close()
    assert pair.dispatch.full
    assert (pair.dispatch.open, pair.dispatch.given) == (given, given)
    assert len(pair.take()) == given
    for _ in range(3):
        pair.dispatch.read_news()
        pair.intake.catch_up()
    assert pair.dispatch.take_back() == []
    assert not pair.dispatch.full


def test_nothing_that_a_worker_says_is_lost_while_the_supervisor_looks_away(pair: Pair) -> None:
    """A channel holds some hundred words. More than that end when a load balancer goes, for one."""
    _, accepted = pair.call()
    n = 3000
    for _ in range(n // 50):
        for _ in range(50):
            assert pair.dispatch.give(accepted.dup())
        for connection in pair.take():
            connection.close()
        pair.dispatch.read_news()
    assert pair.dispatch.open == n
    pair.intake.announce()
    for _ in range(n):
        pair.intake.ended()
    for _ in range(10):
        pair.dispatch.read_news()
        pair.intake.catch_up()
    assert pair.dispatch.ready
    assert pair.dispatch.open == 0


def test_a_connection_for_which_the_worker_has_no_file_descriptor_left_has_ended(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel leaves it out then."""
    caller, accepted = pair.call()
    assert pair.dispatch.give(accepted)
    recv_fds = socket.recv_fds

    def without(channel: socket.socket, size: int, most: int) -> object:
        said, descriptors, flags, address = recv_fds(channel, size, most)
        for descriptor in descriptors:
            os.close(descriptor)
        return said, [], flags, address

    monkeypatch.setattr(socket, "recv_fds", without)
    assert pair.take() == []
    pair.dispatch.read_news()
    assert pair.dispatch.open == 0
    assert caller.recv(10) == b""


def test_a_worker_learns_that_nothing_more_will_come_after_what_came(pair: Pair) -> None:
    caller, accepted = pair.call()
    assert pair.dispatch.give(accepted)
    worker_end = pair.dispatch.worker_end.dup()  # as the other process holds it
    intake = Intake(worker_end)
    pair.dispatch.close()
    assert accepted.fileno() == -1
    connections = intake.take()
    assert connections is not None
    (connection,) = connections
    connection.sendall(b"answer")
    assert caller.recv(10) == b"answer"
    connection.close()
    assert intake.take() is None
    intake.ended()  # there is nobody to tell, and that is fine
    intake.catch_up()
    worker_end.close()


def test_a_pair_leaves_no_file_descriptor_behind() -> None:
    process = psutil.Process()
    before = process.num_fds()
    with ExitStack() as stack:
        pair = Pair(stack)
        for i in range(4):
            assert pair.dispatch.give(pair.call()[1])
            if i < 2:
                pair.take()
                pair.dispatch.read_news()
        pair.dispatch.close()
    assert process.num_fds() == before
