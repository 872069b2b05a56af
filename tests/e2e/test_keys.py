"""Keys in live services: over HTTP and gRPC, with one process and with several, while their file changes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import grpc
import httpx
import psutil
import pytest

from service.rpc import open_inference_pb2 as pb
from tests.conftest import LiveServer
from tests.service.calls import IMAGE, JSON, assert_image_answers, instances, pixels
from tests.service.keyed import KEYS, bearer, line, write_keys
from tests.service.live import LIMIT_S, eventually, log_text, samples
from tests.service.rpc.open_inference_pb2_grpc import GRPCInferenceServiceStub

IMAGES = pixels(2)
BODY = instances(IMAGES)
Start = Callable[..., LiveServer]


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    return write_keys(tmp_path / "keys")


def statuses(server: LiveServer, headers: dict[str, str], connections: int = 6) -> set[int]:
    """What several connections are answered, which reach all workers."""
    with ExitStack() as stack:
        clients = [
            stack.enter_context(httpx.Client(base_url=server.url, timeout=LIMIT_S))
            for _ in range(connections)
        ]
        sent = {**JSON, "accept-encoding": "identity", **headers}
        return {client.post(IMAGE, content=BODY, headers=sent).status_code for client in clients}


def code_over_grpc(server: LiveServer, metadata: dict[str, str]) -> grpc.StatusCode:
    address = server.wait_for(r"listening on grpc://(\S+)")[1]
    with grpc.insecure_channel(address) as channel:
        stub = GRPCInferenceServiceStub(channel)  # type: ignore[no-untyped-call]
        try:
            stub.ModelMetadata(
                pb.ModelMetadataRequest(name="tiny-image"), metadata=tuple(metadata.items()), timeout=LIMIT_S
            )
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()  # type: ignore[attr-defined]
            return code
    return grpc.StatusCode.OK


@pytest.mark.parametrize("workers", [1, 2])
def test_keys_are_needed_by_every_worker_and_follow_their_file(
    start_service: Start, repository: Path, keys_file: Path, workers: int
) -> None:
    flags = ["--models", str(repository), "--workers", str(workers), "--threads", "1"]
    server = start_service(*flags, "--api-keys-file", str(keys_file), "--drain-delay-s", "0")
    assert statuses(server, {}) == {401}
    assert statuses(server, bearer("feedback")) == {403}
    assert statuses(server, bearer("predict")) == statuses(server, {"x-api-key": KEYS["admin"]}) == {200}
    answer = httpx.post(server.url + IMAGE, content=BODY, headers={**JSON, **bearer("predict")})
    assert_image_answers(answer, IMAGES)
    assert code_over_grpc(server, {}) == grpc.StatusCode.UNAUTHENTICATED
    assert code_over_grpc(server, bearer("feedback")) == grpc.StatusCode.PERMISSION_DENIED
    assert code_over_grpc(server, bearer("predict")) == grpc.StatusCode.OK
    assert httpx.get(f"{server.url}/readyz").status_code == 200
    assert samples(server.url, "octet_threads")

    with httpx.Client(base_url=server.url, timeout=LIMIT_S, headers={**JSON, **bearer("predict")}) as kept:
        kept.headers["accept-encoding"] = "identity"
        assert kept.post(IMAGE, content=BODY).status_code == 200
        write_keys(keys_file, "admin")
        eventually(lambda: kept.post(IMAGE, content=BODY).status_code == 401)
    eventually(lambda: statuses(server, bearer("predict")) == {401})
    assert statuses(server, bearer("admin")) == {200}
    eventually(lambda: log_text(server).count("API keys that are known: 1") == workers)

    keys_file.write_text(f"predict {KEYS['predict']}\n")
    eventually(lambda: log_text(server).count("the API keys that were known stay: 1") == workers)
    assert statuses(server, bearer("admin")) == {200}
    assert not any(key in log_text(server) for key in KEYS.values())
    server.process.terminate()
    assert server.process.wait(LIMIT_S) == 0
    assert "Traceback" not in log_text(server)


def test_a_worker_that_takes_anothers_place_while_the_file_is_broken_lets_nobody_in(
    start_service: Start, repository: Path, keys_file: Path
) -> None:
    flags = ["--models", str(repository), "--workers", "2", "--threads", "1"]
    server = start_service(*flags, "--api-keys-file", str(keys_file))
    keys_file.write_text("broken\n")
    eventually(lambda: log_text(server).count("the API keys that were known stay: 3") == 2)
    children = psutil.Process(server.process.pid).children()
    workers = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
    os.kill(workers[0].pid, signal.SIGKILL)
    server.wait_for("the API keys that were known stay: 0")
    eventually(lambda: statuses(server, bearer("predict")) == {200, 401})
    write_keys(keys_file)
    eventually(lambda: statuses(server, bearer("predict")) == {200})


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_broken_file_stops_the_start_with_one_line(
    start_service: Start, repository: Path, tmp_path: Path, workers: str
) -> None:
    path = tmp_path / "keys"
    path.write_text(line(KEYS["predict"], "predict") + f"admin {KEYS['admin']}\n")
    flags = ["--models", str(repository), "--workers", workers, "--api-keys-file", str(path)]
    server = start_service(*flags, wait=False)
    assert server.process.wait(LIMIT_S) == 1
    server.wait_for(rf"^error: {path}: line 2 is not '<role>")
    assert len(server.log) == 1
    assert KEYS["admin"] not in log_text(server)


@pytest.mark.parametrize(("host", "has_keys", "warns"), [("0.0.0.0", False, True), ("0.0.0.0", True, False)])
def test_an_address_that_others_can_reach_warns_without_keys(
    start_service: Start, repository: Path, keys_file: Path, host: str, has_keys: bool, warns: bool
) -> None:
    flags = ["--api-keys-file", str(keys_file)] if has_keys else []
    server = start_service("--models", str(repository), "--host", host, *flags)
    assert ("whoever can reach 0.0.0.0 may call this server" in log_text(server)) == warns


def test_a_loopback_address_does_not_warn(start_service: Start, repository: Path) -> None:
    server = start_service("--models", str(repository))
    assert "OCTET_API_KEYS_FILE" not in log_text(server)
