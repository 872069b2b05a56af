"""Inference over gRPC: what REST answers to the same request, and what gRPC alone has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import orjson
import pytest
from grpc import StatusCode

from bundle.datatypes import DATATYPES, array_from_bytes
from service.rpc import open_inference_pb2 as pb
from tests import tiny
from tests.conftest import running_app
from tests.protocol_models import make_protocol_models
from tests.service.calls import pixels, sound
from tests.service.fakes import LIMIT_S, gated_app, until
from tests.service.rpc.asking import ID, arrays, id_of, refused, request, rpc_of

pytestmark = pytest.mark.anyio

VALUES: dict[str, list[Any]] = {
    **{datatype: [[[0, 1, 2]], [[3, 4, 5]]] for datatype in DATATYPES},
    "BOOL": [[[True, False]]],
    "BYTES": [[["a", "ä"], ["", "\x00"]]],
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_protocol_models(folder)
    tiny.make_image_bundle(folder, version=1)
    tiny.make_image_bundle(folder, version=2)
    tiny.make_audio_bundle(folder)
    return folder


@pytest.fixture
async def both(models: Path) -> AsyncIterator[tuple[httpx.AsyncClient, Any]]:
    """A client of REST and a stub of gRPC, of one service."""
    async with running_app(models) as client, rpc_of(client.app) as (stub, _):  # type: ignore[attr-defined]
        yield client, stub


def image(n: int = 1, **fields: Any) -> pb.ModelInferRequest:
    return request("tiny-image", {"pixels": ("UINT8", pixels(n))}, **fields)


async def over_rest(client: httpx.AsyncClient, message: pb.ModelInferRequest) -> httpx.Response:
    """Send the same request over REST: its raw contents as bytes behind the JSON."""
    document: dict[str, Any] = {"inputs": [], "parameters": {"binary_data_output": True}}
    for tensor, content in zip(message.inputs, message.raw_input_contents, strict=True):
        document["inputs"].append(
            {
                "name": tensor.name,
                "datatype": tensor.datatype,
                "shape": list(tensor.shape),
                "parameters": {"binary_data_size": len(content)},
            }
        )
    if message.outputs:
        document["outputs"] = [
            {
                "name": output.name,
                "parameters": {key: value.int64_param for key, value in output.parameters.items()},
            }
            for output in message.outputs
        ]
    head = orjson.dumps(document)
    version = f"/versions/{message.model_version}" if message.model_version else ""
    return await client.post(
        f"/v2/models/{message.model_name}{version}/infer",
        content=head + b"".join(message.raw_input_contents),
        headers={"inference-header-content-length": str(len(head))},
    )


def arrays_of_rest(answer: httpx.Response) -> dict[str, np.ndarray]:
    assert answer.status_code == 200, answer.text
    end = int(answer.headers["inference-header-content-length"])
    found = {}
    for output in orjson.loads(answer.content[:end])["outputs"]:
        size = output["parameters"]["binary_data_size"]
        content = answer.content[end : end + size]
        found[output["name"]] = array_from_bytes("y", output["datatype"], output["shape"], content)
        end += size
    return found


def assert_same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert list(one) == list(other)
    for name, array in one.items():
        assert array.shape == other[name].shape
        assert array.tolist() == other[name].tolist()


@pytest.mark.parametrize("datatype", DATATYPES)
async def test_both_transports_answer_the_same_for_every_datatype(both: Any, datatype: str) -> None:
    client, stub = both
    message = request(f"echo-{datatype.lower()}", {"x": (datatype, VALUES[datatype])})
    answer = arrays(await stub.ModelInfer(message))
    assert_same(answer, arrays_of_rest(await over_rest(client, message)))
    assert answer["y"].tolist() == VALUES[datatype]


@pytest.mark.parametrize(
    "message",
    [
        image(3),
        image(3, model_version="1"),
        image(2, outputs=["logits"]),
        image(2, outputs={"features": 0, "probabilities": 2}),
        request("tiny-audio", {"samples": ("FP32", [sound(), sound()]), "lengths": ("INT64", [50, 20])}),
        request("two", {"b": ("FP32", [[1, 2, 3]]), "a": ("FP32", [[0, 1, 0]])}),
    ],
    ids=["all", "version", "one output", "classification", "lengths", "two inputs"],
)
async def test_both_transports_answer_the_same(both: Any, message: pb.ModelInferRequest) -> None:
    client, stub = both
    answer = await stub.ModelInfer(message)
    assert_same(arrays(answer), arrays_of_rest(await over_rest(client, message)))
    assert answer.model_name == message.model_name


@pytest.mark.parametrize(
    ("message", "code", "status"),
    [
        (request("nothing", {"x": ("FP32", [1])}), StatusCode.NOT_FOUND, 404),
        (image(model_version="9"), StatusCode.NOT_FOUND, 404),
        (image(1025), StatusCode.INVALID_ARGUMENT, 400),
        (image(outputs=["logit"]), StatusCode.INVALID_ARGUMENT, 400),
        (image(outputs=["logits", "logits"]), StatusCode.INVALID_ARGUMENT, 400),
        (image(outputs={"logits": -1}), StatusCode.INVALID_ARGUMENT, 400),
        (request("tiny-image", {"pixel": ("UINT8", pixels())}), StatusCode.INVALID_ARGUMENT, 400),
        (request("tiny-image", {"pixels": ("FP32", pixels())}), StatusCode.INVALID_ARGUMENT, 400),
        (request("tiny-image", {"pixels": ("UINT8", [[1, 2]])}), StatusCode.INVALID_ARGUMENT, 400),
        (request("two", {"a": ("FP32", [[1, 2, 3]])}), StatusCode.INVALID_ARGUMENT, 400),
        (request("tiny-audio", {"samples": ("FP32", [[np.nan]])}), StatusCode.INVALID_ARGUMENT, 400),
    ],
)
async def test_both_transports_refuse_the_same_in_the_same_words(
    both: Any, message: pb.ModelInferRequest, code: StatusCode, status: int
) -> None:
    client, stub = both
    rest = await over_rest(client, message)
    assert rest.status_code == status
    with refused(code, rest.json()["error"]):
        await stub.ModelInfer(message)
    assert (await stub.ModelInfer(image())).model_version == "2"


async def test_typed_contents_are_answered_with_typed_contents(both: Any) -> None:
    _, stub = both
    raw, typed = await stub.ModelInfer(image(2)), await stub.ModelInfer(image(2, typed=True))
    assert raw.raw_output_contents
    assert not typed.raw_output_contents
    assert_same(arrays(raw), arrays(typed))


async def test_ids_are_given_back(both: Any) -> None:
    _, stub = both
    call = stub.ModelInfer(image(id="the caller's"), metadata=((ID, "one/1"),))
    assert (await call).id == "the caller's"
    assert id_of(await call.trailing_metadata()) == "one/1"
    call = stub.ModelInfer(image(), metadata=((ID, "not an id"),))
    await call
    assert len(id_of(await call.trailing_metadata())) == 32
    with pytest.raises(grpc.RpcError) as failed:
        await stub.ModelInfer(pb.ModelInferRequest(model_name="x"), metadata=((ID, "two"),))
    assert id_of(failed.value.trailing_metadata()) == "two"  # type: ignore[attr-defined]


async def test_a_message_that_is_none_is_refused(both: Any) -> None:
    _, stub = both
    call = stub.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    with refused(StatusCode.INVALID_ARGUMENT, "the message is not a valid ModelInferRequest"):
        await call(b"\xff\xff")


async def test_a_message_beyond_the_limit_is_refused_also_when_it_is_compressed(models: Path) -> None:
    async with running_app(models, max_body_bytes=10_000) as client, rpc_of(client.app) as (stub, _):  # type: ignore[attr-defined]
        for compression in (None, grpc.Compression.Gzip):
            await stub.ModelInfer(image(500), compression=compression)
            zeros = request("tiny-image", {"pixels": ("UINT8", np.zeros((1000, 4, 4)))})
            with refused(StatusCode.RESOURCE_EXHAUSTED, "larger than max"):
                await stub.ModelInfer(zeros, compression=compression)


async def test_a_large_message_is_read_in_a_thread_and_answered_the_same(models: Path) -> None:
    names: list[str] = []
    async with running_app(models, max_rows=10_000) as client, rpc_of(client.app) as (stub, _):  # type: ignore[attr-defined]
        decoders = client.app.state.decoders  # type: ignore[attr-defined]
        submit = decoders.submit
        decoders.submit = lambda work, *rest: names.append(work.__name__) or submit(work, *rest)
        small = arrays(await stub.ModelInfer(image(10, outputs=["logits"])))
        assert names == []
        large = arrays(await stub.ModelInfer(image(5000, outputs=["logits"])))
        assert names == ["read"]
        with refused(StatusCode.INVALID_ARGUMENT):
            await stub.ModelInfer(request("tiny-image", {"pixel": ("UINT8", pixels(5000))}))
    assert np.allclose(large["logits"], tiny.image_logits(pixels(5000)), atol=1e-4)
    assert np.allclose(small["logits"], tiny.image_logits(pixels(10)), atol=1e-4)


def timeout(microseconds: int) -> dict[str, pb.InferParameter]:
    return {"timeout": pb.InferParameter(int64_param=microseconds)}


async def test_the_shortest_of_the_deadlines_holds(repository: Path) -> None:
    async with gated_app(repository, deadline_ms=50) as (client, gate), rpc_of(client.app) as (stub, _):  # type: ignore[attr-defined]
        with refused(StatusCode.DEADLINE_EXCEEDED, "the answer was not ready within 50 ms"):
            await stub.ModelInfer(image())
        with refused(StatusCode.DEADLINE_EXCEEDED, "the answer was not ready within 20 ms"):
            await stub.ModelInfer(image(parameters=timeout(20_000)))
        with refused(StatusCode.DEADLINE_EXCEEDED):
            await stub.ModelInfer(image(), timeout=0.01)
        gate.gate.set()
        assert (await stub.ModelInfer(image())).model_name == "tiny-image"


async def test_the_rows_of_a_call_that_is_cancelled_are_dropped(repository: Path) -> None:
    async with gated_app(repository, max_queue_size=3) as (client, gate), rpc_of(client.app) as (stub, _):  # type: ignore[attr-defined]
        app: Any = client.app  # type: ignore[attr-defined]
        running = asyncio.ensure_future(stub.ModelInfer(image()))
        await until(gate.running.is_set)
        waiting = stub.ModelInfer(image(3))
        await until(lambda: depth(app) == 3)
        with refused(StatusCode.RESOURCE_EXHAUSTED, "3 rows are waiting for this model"):
            await stub.ModelInfer(image())
        waiting.cancel()
        await until(lambda: depth(app) == 0)
        last = asyncio.ensure_future(stub.ModelInfer(image()))
        await until(lambda: depth(app) == 1)
        gate.gate.set()
        async with asyncio.timeout(LIMIT_S):
            assert [answer.model_name for answer in await asyncio.gather(running, last)] == ["tiny-image"] * 2
        app.state.metrics.gather()
        counted = {
            sample.labels["status"]: sample.value
            for family in app.state.metrics.requests.collect()
            for sample in family.samples
            if sample.name == "octet_requests_total"
        }
        assert counted == {"200": 2, "429": 1, "499": 1}


def depth(app: Any) -> float:
    app.state.metrics.gather()
    labels = {"model": "tiny-image", "version": "1"}
    return float(app.state.metrics.registry.get_sample_value("octet_queue_depth", labels))


async def test_a_failure_inside_is_told_by_its_id(repository: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with gated_app(repository) as (client, gate), rpc_of(client.app) as (stub, _):  # type: ignore[attr-defined]
        gate.failure = RuntimeError("secret")
        gate.gate.set()
        with refused(StatusCode.INTERNAL, "its log tells why, under request seven"):
            await stub.ModelInfer(image(), metadata=((ID, "seven"),))
    assert "secret" in caplog.text


async def test_a_stream_is_answered_in_order_and_survives_what_fails(both: Any) -> None:
    _, stub = both
    stream = stub.ModelStreamInfer(metadata=((ID, "flow"),))
    for i in range(6):
        await stream.write(image(1 + i, id=str(i)) if i % 3 < 2 else request("nothing", {}))
    await stream.done_writing()
    answers = [answer async for answer in stream]
    assert [answer.infer_response.id for answer in answers] == ["0", "1", "", "3", "4", ""]
    for i, answer in enumerate(answers):
        if i % 3 < 2:
            assert answer.error_message == ""
            assert arrays(answer.infer_response)["logits"].shape == (1 + i, 3)
            assert answer.infer_response.parameters["triton_final_response"].bool_param
        else:
            assert answer.error_message.startswith("there is no model 'nothing'")
    assert id_of(await stream.trailing_metadata()) == "flow"


async def test_what_is_done_is_counted_and_logged_as_rest_does(
    both: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    client, stub = both
    await stub.ModelInfer(image(2, model_version="1"), metadata=((ID, "good"),))
    with refused(StatusCode.INVALID_ARGUMENT):
        await stub.ModelInfer(pb.ModelInferRequest(model_name="tiny-image"), metadata=((ID, "bad"),))
    metrics = client.app.state.metrics
    metrics.gather()

    def counted(**labels: str) -> float | None:
        return metrics.registry.get_sample_value("octet_requests_total", labels)  # type: ignore[no-any-return]

    labels = {"model": "tiny-image", "route": "ModelInfer"}
    assert counted(**labels, version="1", status="200") == 1
    assert counted(**labels, version="2", status="400") == 1
    lines = capsys.readouterr().err
    assert "[good] GRPC /inference.GRPCInferenceService/ModelInfer 200 " in lines
    assert "[bad] GRPC /inference.GRPCInferenceService/ModelInfer 400 " in lines
    done = (await stub.ModelStatistics(pb.ModelStatisticsRequest(name="tiny-image"))).model_stats
    assert [(each.version, each.inference_count) for each in done] == [("1", 2), ("2", 0)]
    assert [each.inference_stats.success.count for each in done] == [1, 0]
    assert [each.inference_stats.fail.count for each in done] == [0, 1]
