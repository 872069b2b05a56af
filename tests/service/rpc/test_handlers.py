from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from service.rpc import open_inference_pb2 as pb
from service.rpc.answering import InFlight
from service.rpc.handlers import handlers_of
from service.server import backend_of
from tests.conftest import running_app
from tests.service.rpc.asking import refused, rpc_of

pytestmark = pytest.mark.anyio

INFERENCE = "inference.GRPCInferenceService"


async def test_every_call_of_the_proto_is_answered(repository: Path) -> None:
    async with running_app(repository) as client:
        handlers = handlers_of(backend_of(client.app), InFlight())[INFERENCE]  # type: ignore[attr-defined]
    described = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    assert set(handlers) == set(described)


async def test_other_calls_are_unimplemented(repository: Path) -> None:
    async with running_app(repository) as client, rpc_of(client.app) as (stub, _):  # type: ignore[attr-defined]
        call = stub.channel.unary_unary(f"/{INFERENCE}/SystemSharedMemoryStatus")
        with refused(grpc.StatusCode.UNIMPLEMENTED):
            await call(b"")


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_tools_can_ask_what_there_is(repository: Path, version: str) -> None:
    name = f"grpc.reflection.{version}.ServerReflection"
    async with running_app(repository) as client, rpc_of(client.app) as (stub, _):  # type: ignore[attr-defined]
        stream = stub.channel.stream_stream(
            f"/{name}/ServerReflectionInfo",
            ServerReflectionRequest.SerializeToString,
            ServerReflectionResponse.FromString,
        )()
        await stream.write(ServerReflectionRequest(list_services=""))
        services = [each.name for each in (await stream.read()).list_services_response.service]
        assert {INFERENCE, "grpc.health.v1.Health", name} <= set(services)
        await stream.write(ServerReflectionRequest(file_containing_symbol=INFERENCE))
        files = (await stream.read()).file_descriptor_response.file_descriptor_proto
        await stream.done_writing()
    pool = DescriptorPool()
    pool.AddSerializedFile(files[0])
    assert "ModelInfer" in pool.FindServiceByName(INFERENCE).methods_by_name
