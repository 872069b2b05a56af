"""What gRPC tells of server and models is what REST tells, and control has the same effects."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from grpc import StatusCode

from service.rpc import open_inference_pb2 as pb
from tests import tiny
from tests.conftest import running_app
from tests.service.calls import pixels
from tests.service.rpc.asking import refused, request, rpc_of

pytestmark = pytest.mark.anyio


@pytest.fixture
async def both(repository: Path) -> AsyncIterator[tuple[httpx.AsyncClient, Any]]:
    """A client of REST and a stub of gRPC, of one service."""
    async with running_app(repository) as client, rpc_of(client.app) as (stub, _):  # type: ignore[attr-defined]
        yield client, stub


def as_json(message: Message) -> dict[str, Any]:
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def with_texts(value: Any) -> Any:
    """The JSON of messages has integers of 64 bits as texts."""
    if isinstance(value, dict):
        return {key: with_texts(each) for key, each in value.items()}
    if isinstance(value, list):
        return [with_texts(each) for each in value]
    return str(value) if type(value) is int else value


async def test_the_server_tells_what_it_tells_over_rest(both: Any) -> None:
    client, stub = both
    told = as_json(await stub.ServerMetadata(pb.ServerMetadataRequest()))
    assert told == (await client.get("/v2")).json()


@pytest.mark.parametrize(("name", "version"), [("tiny-image", ""), ("tiny-image", "1"), ("tiny-audio", "")])
async def test_a_model_tells_what_it_tells_over_rest(both: Any, name: str, version: str) -> None:
    client, stub = both
    path = f"/v2/models/{name}" + (f"/versions/{version}" if version else "")
    expected = (await client.get(path)).json()
    del expected["properties"]  # other clients' messages have other things at its number
    told = as_json(await stub.ModelMetadata(pb.ModelMetadataRequest(name=name, version=version)))
    assert with_texts(told) == with_texts(expected)


@pytest.mark.parametrize("name", ["tiny-image", "tiny-audio"])
async def test_a_configuration_leaves_out_nothing_that_rest_tells(both: Any, name: str) -> None:
    client, stub = both
    expected = (await client.get(f"/v2/models/{name}/config")).json()
    told = as_json((await stub.ModelConfig(pb.ModelConfigRequest(name=name))).config)
    for output in told["output"]:
        del output["label_filename"]  # empty, as we have none
    told["dynamic_batching"].pop("preferred_batch_size")
    assert with_texts(told) == with_texts(expected)


async def test_statistics_are_those_of_rest(both: Any) -> None:
    client, stub = both
    for _ in range(3):
        await stub.ModelInfer(request("tiny-image", {"pixels": ("UINT8", pixels(2))}))
    client.app.state.metrics.gather()
    for path, asked in (
        ("/v2/models/stats", pb.ModelStatisticsRequest()),
        ("/v2/models/tiny-image/stats", pb.ModelStatisticsRequest(name="tiny-image")),
        ("/v2/models/tiny-image/versions/2/stats", pb.ModelStatisticsRequest(name="tiny-image", version="2")),
    ):
        expected = (await client.get(path)).json()["model_stats"]
        told = as_json(await stub.ModelStatistics(asked))["model_stats"]
        for each in told:
            del each["response_stats"]  # of models that answer a request many times
        assert with_texts(told) == with_texts(expected), path
    latest = told[0]
    assert (latest["inference_count"], latest["inference_stats"]["success"]["count"]) == ("6", "3")
    assert (
        int(latest["inference_stats"]["success"]["ns"])
        > int(latest["inference_stats"]["compute_infer"]["ns"])
        > 0
    )


async def test_readiness_ends_with_the_request_to_stop_but_life_does_not(both: Any) -> None:
    client, stub = both
    assert (await stub.ServerReady(pb.ServerReadyRequest())).ready
    client.app.state.draining = True
    assert not (await stub.ServerReady(pb.ServerReadyRequest())).ready
    assert (await stub.ServerLive(pb.ServerLiveRequest())).live


@pytest.mark.parametrize(
    ("name", "version", "ready"),
    [("tiny-image", "", True), ("tiny-image", "2", True), ("tiny-image", "3", False), ("nothing", "", False)],
)
async def test_a_model_is_ready_or_it_is_not(both: Any, name: str, version: str, ready: bool) -> None:
    _, stub = both
    assert (await stub.ModelReady(pb.ModelReadyRequest(name=name, version=version))).ready == ready


@pytest.mark.parametrize("name", ["nothing", "tiny-image"])
async def test_what_is_not_there_has_nothing_to_tell(both: Any, name: str) -> None:
    _, stub = both
    with refused(StatusCode.NOT_FOUND, name):
        await stub.ModelMetadata(pb.ModelMetadataRequest(name=name, version="3"))
    with refused(StatusCode.NOT_FOUND, name):
        await stub.ModelConfig(pb.ModelConfigRequest(name=name, version="3"))
    with refused(StatusCode.NOT_FOUND, name):
        await stub.ModelStatistics(pb.ModelStatisticsRequest(name=name, version="3"))


async def test_a_model_can_be_unloaded_and_loaded(tmp_path: Path) -> None:
    tiny.make_image_bundle(tmp_path)
    good = request("tiny-image", {"pixels": ("UINT8", pixels())})
    async with running_app(tmp_path, model_control="explicit") as client, rpc_of(client.app) as (stub, _):  # type: ignore[attr-defined]
        await stub.ModelInfer(good)
        unload = pb.RepositoryModelUnloadRequest(model_name="tiny-image")
        unload.parameters["unload_dependents"].bool_param = True
        await stub.RepositoryModelUnload(unload)
        while await states(stub) == [("tiny-image", "1", "UNLOADING")]:  # until the call above has let it go
            gc.collect()
        assert await states(stub) == [("tiny-image", "1", "UNAVAILABLE")]
        assert await states(stub, ready=True) == []
        assert not (await stub.ModelReady(pb.ModelReadyRequest(name="tiny-image"))).ready
        with refused(StatusCode.UNAVAILABLE, "'tiny-image' is not ready: unloaded"):
            await stub.ModelInfer(good)
        await stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="tiny-image"))
        assert await states(stub, ready=True) == [("tiny-image", "1", "READY")]
        await stub.ModelInfer(good)


async def states(stub: Any, *, ready: bool = False) -> list[tuple[str, str, str]]:
    models = (await stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=ready))).models
    return [(model.name, model.version, model.state) for model in models]


async def test_what_cannot_be_loaded_is_told_with_its_reason(tmp_path: Path) -> None:
    bundle = tiny.make_image_bundle(tmp_path)
    async with running_app(tmp_path, model_control="explicit") as client, rpc_of(client.app) as (stub, _):  # type: ignore[attr-defined]
        with refused(StatusCode.NOT_FOUND, "nothing"):
            await stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="nothing"))
        load = pb.RepositoryModelLoadRequest(model_name="tiny-image")
        (bundle / "model.int8.onnx").write_bytes(b"changed")
        with refused(StatusCode.FAILED_PRECONDITION, "model.int8.onnx"):
            await stub.RepositoryModelLoad(load)
        assert (await stub.ModelReady(pb.ModelReadyRequest(name="tiny-image"))).ready
        load.parameters["config"].string_param = "{}"
        with refused(StatusCode.FAILED_PRECONDITION, "the parameter 'config' is not supported"):
            await stub.RepositoryModelLoad(load)


async def test_who_may_not_control_is_told_so(repository: Path) -> None:
    async with running_app(repository, model_control="none") as client, rpc_of(client.app) as (stub, _):  # type: ignore[attr-defined]
        with refused(StatusCode.FAILED_PRECONDITION, "cannot be changed"):
            await stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="tiny-image"))
        assert (await stub.ModelReady(pb.ModelReadyRequest(name="tiny-image"))).ready
