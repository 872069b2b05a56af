"""The port of gRPC: taken early, shared by workers, and left without losing a call."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections import Counter
from pathlib import Path
from typing import Any, cast

import grpc
import psutil
import pytest
from grpc import StatusCode

import service.__main__ as command
from service.rpc import open_inference_pb2 as pb
from service.rpc.server import reserving_port
from service.settings import Settings
from tests.conftest import LiveServer, running_service
from tests.service.calls import pixels
from tests.service.fakes import LIMIT_S, gated_app, until
from tests.service.live import eventually, log_text, samples
from tests.service.rpc.asking import refused, request, rpc_of
from tests.service.rpc.open_inference_pb2_grpc import GRPCInferenceServiceStub

IMAGE = request("tiny-image", {"pixels": ("UINT8", pixels())})


def address(server: LiveServer) -> str:
    return server.wait_for(r"listening on grpc://([^\s\"]+)")[1]


def stub_of(channel: grpc.Channel | grpc.aio.Channel) -> Any:
    return cast(Any, GRPCInferenceServiceStub)(channel)


@pytest.mark.anyio
async def test_a_stop_waits_for_calls_and_refuses_new_ones(repository: Path) -> None:
    async with gated_app(repository) as (client, gate), rpc_of(client.app) as (stub, server):  # type: ignore[attr-defined]
        call = asyncio.ensure_future(stub.ModelInfer(IMAGE))
        stream = stub.ModelStreamInfer()
        await stream.write(IMAGE)
        await until(lambda: gate.running.is_set() and waiting_rows(client) == 1)
        stopping = asyncio.ensure_future(server.stop(LIMIT_S))
        await asyncio.sleep(0)  # it begins
        with refused(StatusCode.UNAVAILABLE, "this server is about to stop"):
            await stub.ModelInfer(IMAGE)
        assert not stopping.done()
        gate.gate.set()
        assert (await call).model_name == "tiny-image"
        assert (await stream.read()).infer_response.model_name == "tiny-image"
        async with asyncio.timeout(LIMIT_S):
            with refused(StatusCode.UNAVAILABLE):  # nothing is in flight on it any more
                await stream.read()
            await stopping


@pytest.mark.anyio
async def test_a_stop_that_is_hurried_cuts_what_is_in_flight(repository: Path) -> None:
    async with gated_app(repository) as (client, gate), rpc_of(client.app) as (stub, server):  # type: ignore[attr-defined]
        call = asyncio.ensure_future(stub.ModelInfer(IMAGE))
        await until(gate.running.is_set)
        stopping = asyncio.ensure_future(server.stop(LIMIT_S))
        server.hurry()
        async with asyncio.timeout(LIMIT_S / 2):
            with refused(StatusCode.UNAVAILABLE):
                await call
            await stopping


@pytest.mark.anyio
async def test_a_stop_cuts_what_takes_too_long(repository: Path) -> None:
    async with gated_app(repository) as (client, gate), rpc_of(client.app) as (stub, server):  # type: ignore[attr-defined]
        call = asyncio.ensure_future(stub.ModelInfer(IMAGE))
        await until(gate.running.is_set)
        async with asyncio.timeout(LIMIT_S):
            await server.stop(0.01)
            with refused(StatusCode.UNAVAILABLE):
                await call


def waiting_rows(client: Any) -> float:
    metrics = client.app.state.metrics
    metrics.gather()
    labels = {"model": "tiny-image", "version": "1"}
    return float(metrics.registry.get_sample_value("octet_queue_depth", labels))


def test_a_reserved_port_is_held_until_the_end_of_the_block() -> None:
    with reserving_port(Settings(grpc_port=0)) as settings:
        assert isinstance(settings.grpc_port, int)
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", settings.grpc_port))
    with socket.socket() as other:
        other.bind(("127.0.0.1", settings.grpc_port))


def test_no_port_is_held_where_none_is_wanted() -> None:
    settings = Settings(grpc_port="off")
    with reserving_port(settings) as same:
        assert same == settings


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_taken_port_is_one_line_before_any_model_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], workers: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        flags = ["--port", "0", "--grpc-port", port, "--models", str(tmp_path), "--workers", workers]
        assert command.main(flags) == 1
    assert capsys.readouterr().err == (
        f"error: cannot listen on 127.0.0.1:{port} for gRPC: Address already in use\n"
    )


@pytest.mark.parametrize("bad", ["-1", "65536", "on", "8001.5", "²"])
def test_a_port_that_is_none_is_refused_in_one_line(capsys: pytest.CaptureFixture[str], bad: str) -> None:
    assert command.main([f"--grpc-port={bad}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: setting grpc_port: ")
    assert error.endswith('must be "off" or a port of at most 65535\n')


def test_a_process_drains_and_loses_no_call(repository: Path) -> None:
    """Calls go on through the drain delay; what comes after it is told that nobody is there."""
    with running_service("--models", str(repository), "--drain-delay-s", "1") as server:
        codes = asyncio.run(load_until_gone(server))
        assert server.process.wait(LIMIT_S) == 0
    assert codes[StatusCode.OK] > 100
    assert set(codes) <= {StatusCode.OK, StatusCode.UNAVAILABLE}
    assert codes[StatusCode.UNAVAILABLE] <= 16  # each loop ends with its first
    assert "Traceback" not in log_text(server)


async def load_until_gone(server: LiveServer) -> Counter[StatusCode]:
    codes: Counter[StatusCode] = Counter()
    async with grpc.aio.insecure_channel(address(server)) as channel:
        stub = stub_of(channel)

        async def ask_on() -> None:
            while True:
                try:
                    await stub.ModelInfer(IMAGE)
                except grpc.aio.AioRpcError as error:
                    codes[error.code()] += 1
                    return
                codes[StatusCode.OK] += 1

        asking = [asyncio.ensure_future(ask_on()) for _ in range(16)]
        await until(lambda: codes[StatusCode.OK] > 50)
        server.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(LIMIT_S):
            while (await stub.ServerReady(pb.ServerReadyRequest())).ready:
                await asyncio.sleep(0.01)
            before = codes[StatusCode.OK]
            await until(lambda: codes[StatusCode.OK] > before + 16)
            assert codes[StatusCode.UNAVAILABLE] == 0
            await asyncio.gather(*asking)
    return codes


def test_workers_share_the_port_and_one_that_is_killed_leaves_the_others(repository: Path) -> None:
    flags = ["--models", str(repository), "--workers", "2", "--threads", "1", "--drain-delay-s", "0"]
    with running_service(*flags) as server:
        target = address(server)

        def ask() -> None:
            options = [("grpc.use_local_subchannel_pool", 1)]  # a connection of its own
            with grpc.insecure_channel(target, options) as channel:
                stub_of(channel).ModelInfer(IMAGE, wait_for_ready=True, timeout=LIMIT_S)

        for _ in range(20):
            ask()
        counted = ("tiny-image", "ModelInfer", "200", "2")
        eventually(lambda: samples(server.url, "octet_requests_total").get(counted) == 20)
        killed = psutil.Process(server.process.pid).children()[-1]
        killed.kill()
        server.wait_for(f"worker {killed.pid} died")
        for _ in range(20):
            ask()
        server.wait_for("takes its place")
        eventually(lambda: samples(server.url, "octet_requests_total").get(counted, 0) >= 40)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(LIMIT_S) == 0
    assert "Traceback" not in log_text(server)
