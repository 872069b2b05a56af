import multiprocessing
import re
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from bench.load import closed_loop
from bundle.errors import BundleError
from service.handover import Intake
from service.metrics import MULTIPROCESS_VARIABLE
from service.monitoring.keys import write_random_key
from service.server import bind
from service.settings import Settings
from service.supervisor import CANNOT_START, _work, supervise
from tests.conftest import LiveServer
from tests.service.calls import IMAGE, JSON, assert_image_answers, instances, pixels
from tests.service.live import LIMIT_S, connect, eventually, head, log_text, read_answer, samples

COUNTED = ("tiny-image", "/v1/models/{name}:predict", "200", "2")


@pytest.fixture
def server(start_service: Callable[..., LiveServer], repository: Path, tmp_path: Path) -> LiveServer:
    flags = ["--models", str(repository), "--workers", "2", "--threads", "1", "--drain-delay-s", "0"]
    server = start_service(*flags, environment={"TMPDIR": str(tmp_path)})
    wait_for_workers(server, 2)
    return server


@pytest.fixture
def restore_signals() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGINT)
    handlers = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)


def wait_for_workers(server: LiveServer, listening: int) -> None:
    """Wait until so many workers, those that are gone included, have loaded their models."""
    eventually(lambda: len(re.findall("tiny-audio/1 is ready", log_text(server))) == listening)


def workers_of(server: LiveServer) -> list[psutil.Process]:
    children = psutil.Process(server.process.pid).children()
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def call(server: LiveServer) -> None:
    images = pixels(2)
    answer = httpx.post(server.url + IMAGE, content=instances(images), headers=JSON, timeout=LIMIT_S)
    assert_image_answers(answer, images)


def counted(server: LiveServer) -> float:
    return samples(server.url, "octet_requests_total")[COUNTED]


def test_workers_share_a_port_and_their_counts_and_one_that_is_killed_is_replaced(
    server: LiveServer, tmp_path: Path
) -> None:
    one, other = workers_of(server)
    images = pixels(2)
    with ExitStack() as stack:  # of connections that stay open, each of the two has the half
        clients = [stack.enter_context(httpx.Client(base_url=server.url)) for _ in range(4)]
        for client in clients:
            assert_image_answers(client.post(IMAGE, content=instances(images), headers=JSON), images)
        eventually(lambda: sorted(samples(server.url, "octet_connections").values()) in ([2, 2], [2, 3]))
    assert counted(server) == 4
    assert samples(server.url, "octet_threads") == {(): 2}
    assert samples(server.url, "octet_rows_total")["tiny-image", "2"] == 8

    one.kill()
    server.wait_for(f"worker {one.pid} died with exit code -9")
    wait_for_workers(server, 3)
    assert counted(server) == 4
    assert samples(server.url, "octet_threads") == {(): 2}
    new = [worker for worker in workers_of(server) if worker.pid != other.pid]
    assert len(new) == 1
    call(server)
    assert counted(server) == 5

    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(LIMIT_S) == 0
    assert not any(worker.is_running() for worker in (one, other, *new))
    assert "Traceback" not in log_text(server)
    assert list(tmp_path.glob("octet-metrics-*")) == []


def test_a_worker_that_is_killed_under_load_is_noticed_by_nobody_who_tries_again(server: LiveServer) -> None:
    """And no count ever falls."""
    killed = workers_of(server)[0]
    port = urlsplit(server.url).port
    assert port is not None
    body = instances(pixels(2))
    request = head(IMAGE, "content-type: application/json", f"content-length: {len(body)}") + body
    with ThreadPoolExecutor(1) as generator:
        loading = generator.submit(closed_loop, port, [request], 16, 7.0, 0.2)
        before = counts(server)
        began_s = time.monotonic()
        while not loading.done():
            if killed.is_running() and time.monotonic() > began_s + 1.5:
                killed.kill()
                killed.wait(LIMIT_S)
            now = counts(server)
            fallen = {
                name: (value, now.get(name)) for name, value in before.items() if now.get(name, 0) < value
            }
            assert fallen == {}
            before = now
            time.sleep(0.05)
        load = loading.result()
    assert set(load.statuses) == {200}
    assert 1 <= load.broken <= 16
    assert load.retried <= load.broken
    server.wait_for("takes its place")
    wait_for_workers(server, 3)
    assert max(load.latencies_s) < 5
    assert counted(server) >= load.statuses[200]
    assert "Traceback" not in log_text(server)


def counts(server: LiveServer) -> dict[str, float]:
    """All that may only grow."""
    lines = httpx.get(f"{server.url}/metrics", timeout=LIMIT_S).text.splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    growing = re.compile(r"[a-z_]+_(total|count|sum|bucket)\b")
    return {name: float(value) for name, value in values.items() if growing.match(name)}


def ask(connection: socket.socket) -> bool:
    """Whether a request on an open connection is answered."""
    connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: octet\r\n\r\n")
    answer = b""
    while not answer.endswith(b'{"status":"ok"}'):
        if not (part := connection.recv(1000)):
            return False
        answer += part
    return True


def open_connections(server: LiveServer) -> list[float]:
    """How many each worker has, the one that asks included."""
    return sorted(samples(server.url, "octet_connections").values())


@contextmanager
def suspended(process: psutil.Process) -> Iterator[None]:
    process.suspend()
    try:
        yield
    finally:
        if process.is_running():
            process.resume()


def test_connections_are_spread_evenly_whatever_has_ended_before(server: LiveServer) -> None:
    with ExitStack() as stack:
        opened = [stack.enter_context(connect(server.url)) for _ in range(20)]
        assert all(map(ask, opened))
        eventually(lambda: open_connections(server) in ([10, 10], [10, 11]))
        for each in opened[::2]:  # all of one worker, as they were given in turn
            each.close()
        eventually(lambda: open_connections(server) in ([0, 11], [1, 10]))
        opened = [stack.enter_context(connect(server.url)) for _ in range(10)]
        assert all(map(ask, opened))
        eventually(lambda: open_connections(server) in ([10, 10], [10, 11]))


def test_a_worker_that_hangs_gets_no_more_connections_and_those_it_has_wait_for_it(
    server: LiveServer,
) -> None:
    hung = workers_of(server)[0]
    with ExitStack() as stack:
        with suspended(hung):
            first = [stack.enter_context(connect(server.url)) for _ in range(4)]
            time.sleep(0.3)
            for _ in range(20):
                began_s = time.monotonic()
                assert ask(stack.enter_context(connect(server.url)))
                assert time.monotonic() - began_s < 2
        assert all(map(ask, first))


def test_what_a_killed_worker_had_not_looked_at_is_answered_by_another(server: LiveServer) -> None:
    hung = workers_of(server)[0]
    with ExitStack() as stack, suspended(hung):
        waiting = [stack.enter_context(connect(server.url)) for _ in range(4)]
        for each in waiting:
            each.sendall(b"GET /healthz HTTP/1.1\r\nhost: octet\r\n\r\n")
        time.sleep(0.1)
        hung.kill()
        for each in waiting:
            assert each.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_short_connections_leave_no_file_descriptor_behind(server: LiveServer) -> None:
    for _ in range(4):  # what each opens once, such as files of its counts
        call(server)
        with connect(server.url) as connection:
            assert ask(connection)
    processes = [psutil.Process(server.process.pid), *workers_of(server)]
    before = [process.num_fds() for process in processes]
    for i in range(500):
        with connect(server.url) as connection:
            if i % 3:
                assert ask(connection)
    eventually(lambda: sum(open_connections(server)) == 1)
    # Up to what the connections of this test's own questions hold at one moment or the other.
    eventually(lambda: all(each.num_fds() <= was + 2 for each, was in zip(processes, before, strict=True)))


def test_none_of_very_many_connections_is_lost_while_the_supervisor_looks_away(server: LiveServer) -> None:
    """More of them than can lie between it and its workers, when they come as when they go."""
    supervisor = psutil.Process(server.process.pid)
    eventually(lambda: sum(open_connections(server)) == 1)
    before = supervisor.num_fds()
    with ExitStack() as stack:
        with suspended(supervisor):
            opened = [stack.enter_context(connect(server.url)) for _ in range(900)]
        assert all(map(ask, opened))
        eventually(lambda: supervisor.num_fds() <= before + 1)
        with suspended(supervisor):
            for each in opened:
                each.close()
            time.sleep(0.5)
        eventually(lambda: sum(open_connections(server)) == 1)
        time.sleep(0.5)  # the workers say what there was no room for
        again = [stack.enter_context(connect(server.url)) for _ in range(20)]
        assert all(map(ask, again))
        eventually(lambda: min(open_connections(server)) >= 9)  # it knows that the others have gone
        assert supervisor.num_fds() <= before + 1


def test_many_connections_wait_for_workers_that_all_hang_for_a_while(server: LiveServer) -> None:
    with ExitStack() as stack:
        with ExitStack() as stopped:
            for worker in workers_of(server):
                stopped.enter_context(suspended(worker))
            opened = [stack.enter_context(connect(server.url)) for _ in range(400)]
            time.sleep(0.3)
        assert all(map(ask, opened))


@pytest.mark.parametrize("signals", [[signal.SIGTERM, signal.SIGTERM], [signal.SIGINT]])
def test_a_second_sigterm_or_ctrl_c_skips_the_delay_of_all_workers(
    start_service: Callable[..., LiveServer], repository: Path, signals: list[signal.Signals]
) -> None:
    server = start_service("--models", str(repository), "--workers", "2", "--drain-delay-s", "1000")
    wait_for_workers(server, 2)
    for i, number in enumerate(signals):
        server.process.send_signal(number)
        if i + 1 < len(signals):
            eventually(lambda: len(re.findall("draining for 1000 s", log_text(server))) == 2)
            time.sleep(1.2)  # sooner, it would be taken for the same
    assert server.process.wait(LIMIT_S) == 0
    assert "Traceback" not in log_text(server)


def test_while_workers_drain_nothing_is_cut(
    start_service: Callable[..., LiveServer], repository: Path
) -> None:
    server = start_service("--models", str(repository), "--workers", "2", "--drain-delay-s", "2")
    body = instances(pixels(2))
    request = head(IMAGE, "content-type: application/json", f"content-length: {len(body)}") + body
    with ExitStack() as stack:
        in_flight, idle = ([stack.enter_context(connect(server.url)) for _ in range(4)] for _ in range(2))
        assert all(map(ask, idle))
        for each in in_flight:
            each.sendall(request[:-5])
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: len(re.findall("draining for 2 s", log_text(server))) == 2)
        for each in idle:  # what they are told, the answer to this one says
            each.sendall(request)
            answer = read_answer(each)
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b"connection: close" in answer
        for _ in range(4):
            assert httpx.get(f"{server.url}/readyz", timeout=LIMIT_S).status_code == 503
            call(server)
        eventually(lambda: refuses(server.url))
        for each in in_flight:
            each.sendall(request[-5:])
            assert read_answer(each).startswith(b"HTTP/1.1 200 ")
    assert server.process.wait(LIMIT_S) == 0
    assert "Traceback" not in log_text(server)


def refuses(url: str) -> bool:
    try:
        connect(url).close()
    except ConnectionError:
        return True
    return False


def test_workers_stop_under_load_and_the_port_closes(
    start_service: Callable[..., LiveServer], repository: Path
) -> None:
    for _ in range(4):  # the signal must not find a lock that it waits for
        server = start_service("--models", str(repository), "--workers", "2", "--drain-delay-s", "0.2")
        wait_for_workers(server, 2)
        stop = threading.Event()

        def load(url: str = server.url, stop: threading.Event = stop) -> None:
            while not stop.is_set():
                with suppress(httpx.TransportError):
                    httpx.get(f"{url}/healthz", timeout=LIMIT_S)

        with ThreadPoolExecutor(4) as callers:
            for _ in range(4):
                callers.submit(load)
            call(server)
            server.process.send_signal(signal.SIGTERM)
            try:
                assert server.process.wait(LIMIT_S) == 0
            finally:
                stop.set()
        with pytest.raises(ConnectionRefusedError):
            connect(server.url)


def test_workers_stop_when_their_parent_is_killed(server: LiveServer) -> None:
    workers = workers_of(server)
    assert len(workers) == 2
    server.process.kill()
    _, alive = psutil.wait_procs(workers, timeout=LIMIT_S)
    assert alive == []


@pytest.mark.usefixtures("restore_signals")
def test_workers_that_cannot_start_stop_the_supervisor_with_their_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MULTIPROCESS_VARIABLE, "")  # given back after the test
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    settings = Settings(models=tmp_path / "nowhere", port=0, workers=2)
    with bind(settings) as listener, pytest.raises(BundleError, match="nowhere is not a directory"):
        supervise(settings, listener)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("restore_logging")
def test_a_worker_that_cannot_start_tells_its_parent_and_exits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models, key_file = tmp_path / "models", tmp_path / "key"
    models.mkdir()
    write_random_key(key_file)
    settings = Settings(models=models, port=0, feedback_key_file=key_file)
    failures = multiprocessing.get_context("spawn").SimpleQueue()
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(SystemExit) as stopped:
        _work(settings, Intake(theirs), failures)
    assert stopped.value.code == CANNOT_START
    assert failures.get() == f"the model repository {models} holds no bundle <name>/<version>"
    failures.close()
    assert capsys.readouterr().err == ""
