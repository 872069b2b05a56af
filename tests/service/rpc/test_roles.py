"""Keys over gRPC: who may make which call, and how a refusal looks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.rpc import open_inference_pb2 as pb
from tests.conftest import running_app
from tests.service.calls import pixels
from tests.service.keyed import KEYS, bearer, write_keys
from tests.service.rpc.asking import refused, request, rpc_of

pytestmark = pytest.mark.anyio

IMAGE = "tiny-image"
INFER = request(IMAGE, {"pixels": ("UINT8", pixels(1))})
# Call -> its message and the role that it needs.
CALLS: dict[str, tuple[Any, str | None]] = {
    "ServerLive": (pb.ServerLiveRequest(), None),
    "ServerReady": (pb.ServerReadyRequest(), None),
    "ServerMetadata": (pb.ServerMetadataRequest(), "predict"),
    "ModelReady": (pb.ModelReadyRequest(name=IMAGE), "predict"),
    "ModelMetadata": (pb.ModelMetadataRequest(name=IMAGE), "predict"),
    "ModelConfig": (pb.ModelConfigRequest(name=IMAGE), "predict"),
    "ModelStatistics": (pb.ModelStatisticsRequest(name=IMAGE), "predict"),
    "ModelInfer": (INFER, "predict"),
    "RepositoryIndex": (pb.RepositoryIndexRequest(), "admin"),
    "RepositoryModelLoad": (pb.RepositoryModelLoadRequest(model_name="nothing"), "admin"),
    "RepositoryModelUnload": (pb.RepositoryModelUnloadRequest(model_name="nothing"), "admin"),
}
NOT_FOUND = {"RepositoryModelLoad", "RepositoryModelUnload"}


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    return write_keys(tmp_path / "keys")


@pytest.fixture
async def keyed(repository: Path, keys_file: Path) -> AsyncIterator[Any]:
    async with (
        running_app(repository, api_keys_file=keys_file) as client,
        rpc_of(client.app) as (stub, _),  # type: ignore[attr-defined]
    ):
        stub.keys = client.app.state.api_keys  # type: ignore[attr-defined]
        yield stub


def test_every_call_is_tried() -> None:
    service = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    assert {method.name for method in service.methods} == {*CALLS, "ModelStreamInfer"}


async def code_of(stub: Any, call: str, metadata: dict[str, str]) -> StatusCode:
    try:
        await getattr(stub, call)(CALLS[call][0], metadata=tuple(metadata.items()))
    except grpc.aio.AioRpcError as error:
        return error.code()
    return StatusCode.OK


@pytest.mark.parametrize("call", CALLS)
async def test_every_call_needs_the_role_that_it_should(keyed: Any, call: str) -> None:
    role = CALLS[call][1]
    good = StatusCode.NOT_FOUND if call in NOT_FOUND else StatusCode.OK
    assert await code_of(keyed, call, {}) == (good if role is None else StatusCode.UNAUTHENTICATED)
    for sent, key in KEYS.items():
        allowed = role is None or sent in (role, "admin")
        for metadata in (bearer(sent), {"x-api-key": key}):
            assert await code_of(keyed, call, metadata) == (good if allowed else StatusCode.PERMISSION_DENIED)
    wrong = await code_of(keyed, call, {"x-api-key": "nobody"})
    assert wrong == (good if role is None else StatusCode.UNAUTHENTICATED)


async def test_a_refusal_says_why_and_is_logged_without_the_key(
    keyed: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with refused(StatusCode.UNAUTHENTICATED, "this needs an API key"):
        await keyed.ModelInfer(INFER)
    with refused(StatusCode.UNAUTHENTICATED, "the API key is not known"):
        await keyed.ModelInfer(INFER, metadata=(("x-api-key", "nobody-knows-me"),))
    with refused(StatusCode.PERMISSION_DENIED, "'predict', which feedback-holder has not"):
        await keyed.ModelInfer(INFER, metadata=tuple(bearer("feedback").items()))
    await keyed.ModelInfer(INFER, metadata=tuple(bearer("predict").items()))
    log = ""
    for _ in range(100):
        log += capsys.readouterr().err
        if log.count("/ModelInfer ") == 4:
            break
        await keyed.ServerLive(pb.ServerLiveRequest())
    statuses = [
        line.split("/ModelInfer ")[1].split()[0] for line in log.splitlines() if "/ModelInfer " in line
    ]
    assert statuses == ["401", "401", "403", "200"]
    assert "key predict-holder" in log
    assert not any(key in log for key in (*KEYS.values(), "nobody-knows-me"))


@pytest.mark.parametrize(
    ("metadata", "code"),
    [({}, StatusCode.UNAUTHENTICATED), (bearer("feedback"), StatusCode.PERMISSION_DENIED)],
)
async def test_a_stream_needs_a_key(keyed: Any, metadata: dict[str, str], code: StatusCode) -> None:
    stream = keyed.ModelStreamInfer(iter([INFER]), metadata=tuple(metadata.items()))
    with refused(code):
        async for _ in stream:
            pass


async def test_a_stream_ends_when_its_key_is_known_no_more(keyed: Any, keys_file: Path) -> None:
    stream = keyed.ModelStreamInfer(metadata=tuple(bearer("predict").items()))
    await stream.write(INFER)
    assert not (await stream.read()).error_message
    write_keys(keys_file, "admin")
    await keyed.keys.look()
    await stream.write(INFER)
    with refused(StatusCode.UNAUTHENTICATED, "the API key is not known"):
        await stream.read()


async def test_health_is_open(keyed: Any) -> None:
    health = health_pb2_grpc.HealthStub(keyed.channel)  # type: ignore[no-untyped-call]
    answer = await health.Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
