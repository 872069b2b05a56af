import asyncio
import errno
import json
import logging
import math
import os
import re
import signal
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import uvicorn

from service.app import create_app
from service.handover import Dispatch, Intake
from service.metrics import Metrics
from service.registry import load_registry
from service.server import DrainingServer, bind, run_worker, uvicorn_config
from service.settings import Settings
from tests.conftest import LiveServer, running_service
from tests.service.calls import (
    IMAGE,
    JSON,
    OCTETS,
    PNG,
    assert_image_answers,
    assert_problem,
    instances,
    pixels,
    png,
)
from tests.service.live import (
    LIMIT_S,
    begin_request,
    connect,
    eventually,
    head,
    log_text,
    read_answer,
    requests_since,
    samples,
)

BODY = instances(pixels(2))
PREDICT = "/v1/models/{name}:predict"


@pytest.fixture(scope="module")
def live(repository: Path) -> Iterator[LiveServer]:
    """A process whose limits are small, and whose log is JSON."""
    flags = ["--models", str(repository), "--log-format", "json", "--threads", "2"]
    with running_service(*flags, "--max-body-bytes", "100000", "--body-timeout-s", "1") as server:
        yield server


def still_answers(url: str) -> None:
    assert_image_answers(httpx.post(url + IMAGE, content=BODY, headers=JSON, timeout=LIMIT_S), pixels(2))


def test_what_is_sent_is_counted_exactly(live: LiveServer) -> None:
    before = samples(live.url, "octet_requests_total")
    rows = samples(live.url, "octet_rows_total")
    one = {"headers": PNG, "content": png(pixels(1)[0])}
    with httpx.Client(base_url=live.url, timeout=LIMIT_S) as client:
        for _ in range(3):
            client.post(IMAGE, content=BODY, headers=JSON)
        client.post("/v1/models/tiny-image/versions/1:confidence", **one)  # type: ignore[arg-type]
        client.post("/v1/models/marker:predict", **one)  # type: ignore[arg-type]
        client.post(IMAGE + "?top_k=0", **one)  # type: ignore[arg-type]
        client.post(IMAGE, content=b"{", headers=JSON)
        client.post(IMAGE, content=bytes(100_001), headers=OCTETS)
        client.get(IMAGE)
        client.get("/v1/models/tiny-image")
        client.get("/marker")
        client.get("/readyz")
    assert requests_since(live.url, before) == {
        ("tiny-image", PREDICT, "200", "2"): 3,
        ("tiny-image", "/v1/models/{name}/versions/{version}:confidence", "200", "1"): 1,
        ("", PREDICT, "404", ""): 1,
        ("", PREDICT, "400", ""): 1,
        ("tiny-image", PREDICT, "400", "2"): 1,
        ("tiny-image", PREDICT, "413", "2"): 1,
        ("", PREDICT, "405", ""): 1,
        ("tiny-image", "/v1/models/{name}", "200", "2"): 1,
        ("", "unmatched", "404", ""): 1,
        ("", "/readyz", "200", ""): 1,
    }
    counted = samples(live.url, "octet_rows_total")
    assert counted["tiny-image", "2"] - rows.get(("tiny-image", "2"), 0) == 6
    assert counted["tiny-image", "1"] - rows.get(("tiny-image", "1"), 0) == 1
    assert set(samples(live.url, "octet_queue_depth").values()) == {0}
    assert samples(live.url, "octet_in_flight") == {(): 1}  # the one that asks


def test_a_caller_that_closes_the_connection_harms_nobody_and_is_counted(live: LiveServer) -> None:
    before = samples(live.url, "octet_requests_total")
    for _ in range(3):
        begin_request(live.url, IMAGE, BODY, "content-type: application/json").close()
    gone = ("tiny-image", PREDICT, "499", "2")
    eventually(lambda: requests_since(live.url, before).get(gone) == 3)
    for _ in range(20):
        connection = connect(live.url)
        fields = ("content-type: application/json", f"content-length: {len(BODY)}")
        connection.sendall(head(IMAGE, *fields) + BODY)
        connection.close()
    still_answers(live.url)
    eventually(lambda: samples(live.url, "octet_in_flight") == {(): 1})
    counted = requests_since(live.url, before)
    assert set(counted) <= {gone, ("tiny-image", PREDICT, "200", "2")}
    assert sum(counted.values()) == 3 + 20 + 1


def test_a_body_that_stalls_is_answered_408_and_the_connection_closed(live: LiveServer) -> None:
    connection = begin_request(live.url, IMAGE, BODY, "content-type: application/json")
    answer = read_answer(connection)
    connection.close()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"did not arrive within 1 s" in answer
    still_answers(live.url)


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
def test_a_body_over_the_limit_is_answered_413_and_the_connection_closed(
    live: LiveServer, declared: bool
) -> None:
    length = "content-length: 100001" if declared else "transfer-encoding: chunked"
    connection = connect(live.url)
    connection.sendall(head(IMAGE, length, "content-type: application/octet-stream"))
    if not declared:
        connection.sendall(b"186A1\r\n" + bytes(100_001))  # this one chunk is over the limit
    answer = read_answer(connection)
    connection.close()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer
    assert b"larger than the allowed 100000 bytes" in answer
    still_answers(live.url)


def test_the_rest_of_a_refused_body_is_not_taken_for_the_next_request(live: LiveServer) -> None:
    smuggled = b"GET /smuggled HTTP/1.1\r\nhost: octet\r\n\r\n"
    connection = connect(live.url)
    fields = ("content-type: text/plain", f"content-length: {len(smuggled)}")
    connection.sendall(head(IMAGE, *fields) + smuggled)
    connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: octet\r\nconnection: close\r\n\r\n")
    answers = read_answer(connection)
    connection.close()
    assert answers.count(b"HTTP/1.1 ") == 2
    assert answers.startswith(b"HTTP/1.1 415 ")
    assert b'{"status":"ok"}' in answers
    assert "/smuggled" not in log_text(live)


def test_what_is_no_http_is_answered_400_and_harms_nobody(live: LiveServer) -> None:
    connection = connect(live.url)
    connection.sendall(b"\x16\x03\x01 hello\r\n\r\n")
    assert read_answer(connection).startswith(b"HTTP/1.1 400 ")
    connection.close()
    still_answers(live.url)


def test_every_log_line_is_json_with_a_request_id_and_no_payload_is_ever_logged(live: LiveServer) -> None:
    marker = "TheMarkerOfThisTest"
    with httpx.Client(base_url=live.url, timeout=LIMIT_S, headers={"x-request-id": "marked"}) as client:
        for body, headers in (
            (f'{{"instances": ["{marker}"]}}', JSON),
            (f'{{"{marker}": 1}}', JSON),
            (f'{{"instances": [{{"b64": "{marker}"}}]}}', JSON),
            (f"{marker} {{", JSON),
            (marker * 3, PNG),
            (marker * 9000, PNG),
            (marker * 3, OCTETS),
        ):
            assert client.post(IMAGE, content=body, headers=headers).is_client_error
        assert client.post(IMAGE + f"?{marker}=1", content=BODY, headers=JSON).status_code == 400
    live.wait_for('"request_id":"marked"')
    eventually(lambda: log_text(live).count('"request_id":"marked"') == 8)
    assert marker not in log_text(live)
    for line in live.log:
        assert json.loads(line)["request_id"]


def test_on_sigterm_requests_are_served_for_the_delay_and_those_in_flight_are_finished(
    start_service: Callable[..., LiveServer], repository: Path
) -> None:
    server = start_service("--models", str(repository), "--drain-delay-s", "2")
    with httpx.Client(base_url=server.url, timeout=LIMIT_S) as client:
        assert client.get("/readyz").status_code == 200
        in_flight = begin_request(server.url, IMAGE, BODY, "content-type: application/json")
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("draining for 2 s")
        assert_problem(client.get("/readyz"), 503, "about to stop")
        assert client.get("/healthz").status_code == 200
        still_answers(server.url)
        assert samples(server.url, "octet_draining") == {(): 1}
    eventually(lambda: refuses(server.url))
    assert server.process.poll() is None
    in_flight.sendall(BODY[len(BODY) // 2 :])
    answer = read_answer(in_flight)
    in_flight.close()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert json.loads(answer.split(b"\r\n\r\n")[1])["predictions"]
    assert server.process.wait(LIMIT_S) == 0
    assert "Traceback" not in log_text(server)


def refuses(url: str) -> bool:
    try:
        connect(url).close()
    except ConnectionError:
        return True
    return False


def test_sigint_skips_the_delay_and_exits_with_0(
    start_service: Callable[..., LiveServer], repository: Path
) -> None:
    server = start_service("--models", str(repository), "--drain-delay-s", "1000")
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(LIMIT_S) == 0
    assert "draining" not in log_text(server)
    assert "Traceback" not in log_text(server)


def test_a_second_sigterm_skips_the_rest_of_the_delay(
    start_service: Callable[..., LiveServer], repository: Path
) -> None:
    server = start_service("--models", str(repository), "--drain-delay-s", "1000")
    server.process.send_signal(signal.SIGTERM)
    server.wait_for("draining for 1000 s")
    server.process.send_signal(signal.SIGTERM)  # so soon after the first it is taken for the same
    time.sleep(1.2)
    assert server.process.poll() is None
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(LIMIT_S) == 0


def test_kept_connections_are_closed_by_the_answer_while_draining_so_that_none_is_cut(
    start_service: Callable[..., LiveServer], repository: Path
) -> None:
    server = start_service("--models", str(repository), "--drain-delay-s", "2")
    with httpx.Client(base_url=server.url, timeout=LIMIT_S) as client:
        assert "connection" not in client.post(IMAGE, content=BODY, headers=JSON).headers
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("draining for 2 s")
        answer = client.post(IMAGE, content=BODY, headers=JSON)
        assert answer.status_code == 200
        assert answer.headers["connection"] == "close"
    assert server.process.wait(LIMIT_S) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_models_load_exits_with_0(
    start_service: Callable[..., LiveServer], repository: Path, number: signal.Signals
) -> None:
    server = start_service("--models", str(repository), wait=False)
    server.wait_for("is ready")  # the first of three models
    server.process.send_signal(number)
    assert server.process.wait(LIMIT_S) == 0
    assert "Traceback" not in log_text(server)


def test_a_tensor_of_far_too_many_rows_is_refused_at_once(live: LiveServer) -> None:
    body = bytes(4 * 20_000)
    headers = {"content-type": "application/octet-stream", "x-tensor-shape": "20000,1"}
    answer = httpx.post(live.url + "/v1/models/tiny-audio:predict", content=body, headers=headers)
    assert_problem(answer, 400, "the request has 20000 rows; at most 1024 are allowed")


# In this process: the parts of a server, without a process of its own.


def draining_server(delay_s: float = 5, started: bool = True) -> DrainingServer:
    state = SimpleNamespace(draining=False, metrics=Metrics())
    app: Any = SimpleNamespace(state=state)
    server = DrainingServer(uvicorn.Config(app), app, delay_s)
    server.started = started
    return server


def test_sigterm_begins_to_drain_and_does_not_stop_yet(caplog: pytest.LogCaptureFixture) -> None:
    server = draining_server()
    with caplog.at_level(logging.INFO, "service.server"):
        server.handle_exit(signal.SIGTERM, None)
        assert caplog.messages == []  # a handler may interrupt whoever holds the log's lock
        for _ in range(2):
            assert not asyncio.run(server.on_tick(0))
    assert server._app.state.draining
    assert not server.should_exit
    assert 0 < server._stop_at_s - time.monotonic() <= 5
    assert server._app.state.metrics.registry.get_sample_value("octet_draining") == 1
    assert caplog.messages == ["draining for 5 s"]


def test_sigterm_before_the_start_stops_at_once() -> None:
    server = draining_server(started=False)
    server.handle_exit(signal.SIGTERM, None)
    assert server.should_exit


def test_sigint_stops_at_once_and_a_second_one_does_not_wait_for_requests() -> None:
    server = draining_server()
    server.handle_exit(signal.SIGINT, None)
    assert (server.should_exit, server.force_exit, server._stop_at_s) == (True, False, math.inf)
    server.handle_exit(signal.SIGINT, None)
    assert server.force_exit


def test_two_sigterms_stop_without_abandoning_requests() -> None:
    server = draining_server()
    for _ in range(2):
        server.handle_exit(signal.SIGTERM, None)
    assert not server.should_exit  # so close together they are one
    server._began_s -= 1
    for _ in range(2):
        server.handle_exit(signal.SIGTERM, None)
    assert (server.should_exit, server.force_exit) == (True, False)


@pytest.mark.anyio
async def test_the_end_of_the_delay_stops_the_server() -> None:
    server = draining_server(delay_s=0)
    assert not await server.on_tick(1)
    server.handle_exit(signal.SIGTERM, None)
    assert await server.on_tick(1)


@pytest.mark.anyio
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_the_address_is_logged_when_it_answers(
    repository: Path, host: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(models=repository, host=host, port=0, threads=1)
    metrics = Metrics()
    app = create_app(settings, load_registry(settings, metrics), metrics)
    try:
        listener = bind(settings)
    except OSError as error:
        if error.__cause__ is not None and getattr(error.__cause__, "errno", 0) == errno.EADDRNOTAVAIL:
            pytest.skip("this machine has no such address")
        raise
    server = DrainingServer(uvicorn.Config(app, lifespan="on", log_config=None), app, drain_delay_s=0)
    with listener, caplog.at_level(logging.INFO, "service.server"):
        serving = asyncio.ensure_future(server.serve(sockets=[listener]))
        async with asyncio.timeout(LIMIT_S):
            while not (found := re.search(r"listening on (\S+)", caplog.text)):
                await asyncio.sleep(0.01)
            async with httpx.AsyncClient() as client:
                answer = await client.get(f"{found[1]}/readyz")
            assert answer.status_code == 200
            server.handle_exit(signal.SIGTERM, None)
            await serving


@asynccontextmanager
async def adopting(repository: Path) -> AsyncIterator[tuple[DrainingServer, Dispatch, asyncio.Task[None]]]:
    """A server to which connections are handed over, in this process."""
    dispatch = Dispatch()
    worker_end = dispatch.worker_end.dup()  # as another process holds it
    intake = Intake(worker_end)
    settings = Settings(models=repository, threads=1)
    metrics = Metrics()
    app = create_app(settings, load_registry(settings, metrics), metrics)
    app.state.intake = intake
    server = DrainingServer(uvicorn_config(app), app, 1000, intake)
    server.capture_signals = nullcontext  # type: ignore[method-assign]  # they are pytest's
    task = asyncio.ensure_future(server.serve(sockets=[]))
    try:
        async with asyncio.timeout(LIMIT_S):
            await told(dispatch, lambda: dispatch.ready)
            yield server, dispatch, task
    finally:
        server.should_exit = server.force_exit = True
        await asyncio.wait([task])
        dispatch.close()
        worker_end.close()


async def told(dispatch: Dispatch, condition: Callable[[], bool]) -> None:
    """Read the news until a condition holds."""
    while not condition():
        dispatch.read_news()
        await asyncio.sleep(0.001)


class Caller:
    """A connection of TCP that a supervisor accepted and hands over."""

    def __init__(self, dispatch: Dispatch) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.socket = socket.create_connection(listener.getsockname())
            accepted, _ = listener.accept()
        assert dispatch.give(accepted)

    async def ask(self, request: bytes) -> bytes:
        loop = asyncio.get_running_loop()
        self.socket.setblocking(False)
        await loop.sock_sendall(self.socket, request)
        return await loop.sock_recv(self.socket, 65536)


HEALTH = b"GET /healthz HTTP/1.1\r\nhost: octet\r\n\r\n"


@pytest.mark.anyio
async def test_a_server_answers_on_connections_that_are_handed_over(repository: Path) -> None:
    async with adopting(repository) as (server, dispatch, _):
        callers = [Caller(dispatch) for _ in range(3)]
        for _ in range(2):
            for caller in callers:
                assert (await caller.ask(HEALTH)).startswith(b"HTTP/1.1 200 ")
        await told(dispatch, lambda: not dispatch._untaken)
        assert dispatch.open == 3
        for protocol in server.server_state.connections:  # small answers must not wait for company
            ours = protocol.transport.get_extra_info("socket")
            assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        for caller in callers:
            caller.socket.close()
        await told(dispatch, lambda: dispatch.open == 0)
        assert server.server_state.connections == set()


@pytest.mark.anyio
async def test_a_connection_whose_caller_has_gone_before_it_is_served_has_ended(repository: Path) -> None:
    async with adopting(repository) as (_, dispatch, _):
        for linger in (False, True):
            caller = Caller(dispatch)
            if linger:  # it is reset
                caller.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            caller.socket.close()
        await told(dispatch, lambda: dispatch.open == 0)
        other = Caller(dispatch)
        assert (await other.ask(HEALTH)).startswith(b"HTTP/1.1 200 ")
        other.socket.close()


@pytest.mark.anyio
async def test_a_server_without_a_port_drains_until_it_is_told_that_no_connection_will_come(
    repository: Path,
) -> None:
    async with adopting(repository) as (server, dispatch, task):
        in_flight, idle = Caller(dispatch), Caller(dispatch)
        assert (await idle.ask(HEALTH)).startswith(b"HTTP/1.1 200 ")
        request = head(IMAGE, "content-type: application/json", f"content-length: {len(BODY)}") + BODY
        in_flight.socket.sendall(request[:-5])
        server.handle_exit(signal.SIGTERM, None)
        assert server._stop_at_s == math.inf
        late = Caller(dispatch)
        answer = await late.ask(HEALTH)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close" in answer
        last = Caller(dispatch)  # it lies in the channel when that is closed
        dispatch.close()
        answer = await last.ask(HEALTH)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close" in answer
        answer = await in_flight.ask(request[-5:])
        assert answer.startswith(b"HTTP/1.1 200 ")
        await asyncio.wait_for(task, LIMIT_S)
        for caller in (in_flight, idle, late, last):
            caller.socket.close()


def test_a_worker_serves_until_a_signal_and_then_returns(repository: Path) -> None:
    settings = Settings(models=repository, port=0, threads=1, drain_delay_s=0)
    with bind(settings) as listener, ThreadPoolExecutor(1) as visitor:
        host, port = listener.getsockname()
        visit = visitor.submit(visit_and_stop, f"http://{host}:{port}")
        run_worker(settings, listener)
        assert visit.result(LIMIT_S) == {"status": "ready"}


def visit_and_stop(url: str) -> Any:
    eventually(lambda: not refuses(url))
    answer = httpx.get(f"{url}/readyz", timeout=LIMIT_S).json()
    os.kill(os.getpid(), signal.SIGTERM)
    return answer


def test_a_taken_port_is_an_error_that_names_the_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"^cannot listen on 127.0.0.1:{port}: Address already in use$"):
            bind(Settings(port=port))


def test_a_port_can_be_taken_again_at_once_after_a_stop() -> None:
    first = bind(Settings(port=0))
    first.listen()
    host, port = first.getsockname()
    caller = socket.create_connection((host, port))
    accepted, _ = first.accept()
    accepted.close()  # the server closes first, so its side lingers
    caller.close()
    first.close()
    bind(Settings(port=port)).close()
