"""The call `infer` of the Open Inference Protocol over REST, through the lane and through the routes."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest

from bundle.confidence import softmax
from bundle.datatypes import DATATYPES, DTYPES, Array, Datatype, array_from_bytes, array_to_bytes
from tests import tiny
from tests.conftest import running_app
from tests.protocol_models import TABLE, make_protocol_models
from tests.service.calls import pixels
from tests.service.fakes import gated_app

pytestmark = pytest.mark.anyio

LENGTH = "inference-header-content-length"
JSON = {"content-type": "application/json"}
MAX_BODY_BYTES = 20_000


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_protocol_models(folder)
    tiny.make_image_bundle(folder, version=1)
    tiny.make_image_bundle(folder, version=2)
    tiny.make_audio_bundle(folder)
    return folder


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module", params=[True, False], ids=["lane", "routes"])
async def client(models: Path, request: pytest.FixtureRequest) -> AsyncIterator[httpx.AsyncClient]:
    """One service for all tests, because it has many models to load."""
    limits: Any = {"max_rows": 30, "max_body_bytes": MAX_BODY_BYTES}
    async with running_app(models, lane=request.param, **limits) as client:
        yield client


def url(model: str) -> str:
    return f"/v2/models/{model}/infer"


def tensor(name: str, datatype: Datatype, array: Array) -> tuple[dict[str, Any], bytes]:
    content = array_to_bytes(datatype, array)
    head = {"name": name, "datatype": datatype, "shape": array.shape}
    return head | {"parameters": {"binary_data_size": len(content)}}, content


def binary(tensors: Sequence[tuple[dict[str, Any], bytes]], **members: Any) -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers that tritonclient sends by default."""
    document = {"inputs": [head for head, _ in tensors], "parameters": {"binary_data_output": True}} | members
    text = orjson.dumps(document)
    return text + b"".join(content for _, content in tensors), {LENGTH: str(len(text))}


def read(answer: httpx.Response) -> dict[str, Array]:
    """Return the outputs of an answer, whatever their form."""
    assert answer.status_code == 200, answer.text
    length = int(answer.headers[LENGTH]) if LENGTH in answer.headers else None
    kind = "application/json" if length is None else "application/octet-stream"
    assert answer.headers["content-type"] == kind
    rest = b"" if length is None else answer.content[length:]
    found = {}
    for output in orjson.loads(answer.content[:length])["outputs"]:
        if "data" in output:
            array = np.array(output["data"], DTYPES[output["datatype"]]).reshape(output["shape"])
        else:
            size = output["parameters"]["binary_data_size"]
            array = array_from_bytes(output["name"], output["datatype"], output["shape"], rest[:size])
            rest = rest[size:]
        found[output["name"]] = array
    assert not rest
    return found


async def post(client: httpx.AsyncClient, model: str, document: Any, **headers: str) -> httpx.Response:
    body = document if isinstance(document, bytes) else orjson.dumps(document)
    return await client.post(url(model), content=body, headers=JSON | headers)


def assert_refused(answer: httpx.Response, status: int, words: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json()) == {"error"}
    assert words in answer.json()["error"]


async def assert_still_answers(client: httpx.AsyncClient) -> None:
    document = {"inputs": [{"name": "index", "shape": [1], "datatype": "INT64", "data": [2]}]}
    assert read(await post(client, "table", document))["value"].tolist() == [30]


def echo(datatype: Datatype, **changes: Any) -> dict[str, Any]:
    item = {"name": "x", "datatype": datatype, "shape": [1, 1, 2], "data": [1, 2]} | changes
    return {"inputs": [{key: value for key, value in item.items() if value is not None}]}


# What is answered

VALUES: dict[Datatype, Any] = {
    "BOOL": [[[True, False], [False, True]]],
    "BYTES": [[["ä", ""], ["\0", "a\nb"]]],
    **{each: [[[0, 1], [100, 127]]] for each in DATATYPES if each not in ("BOOL", "BYTES")},
}


@pytest.mark.parametrize("datatype", DATATYPES)
async def test_every_datatype_goes_in_and_comes_out_as_bytes(
    client: httpx.AsyncClient, datatype: Datatype
) -> None:
    x = np.array(VALUES[datatype], DTYPES[datatype])
    body, headers = binary([tensor("x", datatype, x)])
    answer = await client.post(url(f"echo-{datatype.lower()}"), content=body, headers=headers)
    np.testing.assert_array_equal(read(answer)["y"], x)


@pytest.mark.parametrize("datatype", [each for each in DATATYPES if each not in ("FP16", "BF16")])
async def test_every_datatype_that_json_knows_goes_in_and_comes_out_as_json(
    client: httpx.AsyncClient, datatype: Datatype
) -> None:
    x = np.array(VALUES[datatype], DTYPES[datatype])
    for data in (x.tolist(), x.ravel().tolist()):
        answer = await post(client, f"echo-{datatype.lower()}", echo(datatype, shape=x.shape, data=data))
        assert answer.json() == {
            "model_name": f"echo-{datatype.lower()}",
            "model_version": "1",
            "outputs": [{"name": "y", "datatype": datatype, "shape": [1, 2, 2], "data": x.ravel().tolist()}],
        }


@pytest.mark.parametrize("shape", [(1, 0, 2), (2, 3, 0)])
@pytest.mark.parametrize("datatype", ["FP32", "BYTES", "FP16"])
async def test_empty_dimensions_are_shapes_like_others(
    client: httpx.AsyncClient, datatype: Datatype, shape: tuple[int, ...]
) -> None:
    x = np.zeros(shape, DTYPES[datatype])
    body, headers = binary([tensor("x", datatype, x)])
    model = f"echo-{datatype.lower()}"
    assert read(await client.post(url(model), content=body, headers=headers))["y"].shape == shape
    if datatype != "FP16":
        assert read(await post(client, model, echo(datatype, shape=shape, data=[])))["y"].shape == shape


async def test_scalars_and_inputs_with_a_default(client: httpx.AsyncClient) -> None:
    x = {"name": "x", "datatype": "FP32", "shape": [], "data": 2}
    y = {"name": "y", "datatype": "FP32", "shape": [], "data": [3]}
    assert read(await post(client, "default", {"inputs": [x]})) == {"z": np.float32(7)}
    assert read(await post(client, "default", {"inputs": [y, x]})) == {"z": np.float32(5)}
    body, headers = binary([tensor("x", "FP32", np.array(2, np.float32))])
    assert read(await client.post(url("default"), content=body, headers=headers)) == {"z": np.float32(7)}


async def test_several_inputs_of_which_some_are_json_and_some_bytes(client: httpx.AsyncClient) -> None:
    a, b = np.float32([[1, 2, 3], [4, 5, 6]]), np.float32([[6, 5, 4], [3, 2, 1]])
    json = ({"name": "b", "datatype": "FP32", "shape": [2, 3], "data": b.tolist()}, b"")
    outputs = [{"name": "difference"}, {"name": "total", "parameters": {"binary_data": False}}]
    body, headers = binary([json, tensor("a", "FP32", a)], outputs=outputs, id="mine")
    answer = await client.post(url("two"), content=body, headers=headers)
    found = read(answer)
    assert list(found) == ["difference", "total"]
    np.testing.assert_array_equal(found["total"], a + b)
    np.testing.assert_array_equal(found["difference"], a - b)
    document = orjson.loads(answer.content[: int(answer.headers[LENGTH])])
    assert document["id"] == "mine"
    assert ["data" in output for output in document["outputs"]] == [False, True]


async def test_a_body_that_is_one_tensor_is_a_batch_of_one(client: httpx.AsyncClient) -> None:
    (image,) = pixels(1)
    answer = await client.post(url("tiny-image"), content=image.tobytes(), headers={LENGTH: "0"})
    np.testing.assert_allclose(read(answer)["logits"], tiny.image_logits(image[None]), atol=1e-4)
    sound = np.float32([0.5, -0.5, 0.25])
    answer = await client.post(url("tiny-audio"), content=sound.tobytes(), headers={LENGTH: "0"})
    np.testing.assert_allclose(read(answer)["logits"][0], tiny.audio_logits(sound), atol=1e-5)


async def test_lengths_may_be_sent_and_rows_differ_in_them(client: httpx.AsyncClient) -> None:
    samples = np.float32([[0.5, 0.25, 0.125], [1, -1, 1]])
    body, headers = binary([tensor("samples", "FP32", samples), tensor("lengths", "INT64", np.array([2, 3]))])
    logits = read(await client.post(url("tiny-audio"), content=body, headers=headers))["logits"]
    expected = [tiny.audio_logits(samples[0, :2]), tiny.audio_logits(samples[1])]
    np.testing.assert_allclose(logits, expected, atol=1e-5)


@pytest.mark.parametrize("version", [None, "1", "2"])
async def test_a_request_of_many_rows_is_answered_in_their_order(
    client: httpx.AsyncClient, version: str | None
) -> None:
    images = pixels(20)  # more than run together
    body, headers = binary([tensor("pixels", "UINT8", images)])
    path = url("tiny-image") if version is None else url(f"tiny-image/versions/{version}")
    answer = await client.post(path, content=body, headers=headers)
    found, logits = read(answer), tiny.image_logits(images)
    np.testing.assert_allclose(found["logits"], logits, atol=1e-4)
    np.testing.assert_allclose(found["probabilities"], softmax(logits, tiny.TEMPERATURE), atol=1e-5)
    document = orjson.loads(answer.content[: int(answer.headers[LENGTH])])
    assert document["model_version"] == (version or "2")


async def test_a_classification_is_text_with_labels(client: httpx.AsyncClient) -> None:
    images = pixels(2)
    body, headers = binary(
        [tensor("pixels", "UINT8", images)],
        outputs=[{"name": "logits", "parameters": {"classification": 2, "binary_data": True}}],
    )
    found = read(await client.post(url("tiny-image"), content=body, headers=headers))["logits"]
    logits = tiny.image_logits(images)
    for texts, row in zip(found, logits, strict=True):
        for text, index in zip(texts, np.argsort(-row)[:2], strict=True):
            value, *rest = text.split(":")
            assert rest == [str(index), tiny.LABELS[index]]
            assert abs(float(value) - row[index]) < 1e-4


@pytest.mark.parametrize("accept", ["gzip", "deflate", None])
@pytest.mark.parametrize("coding", ["gzip", "deflate", None])
async def test_bodies_are_compressed_both_ways(
    client: httpx.AsyncClient, coding: str | None, accept: str | None
) -> None:
    pack = {"gzip": gzip.compress, "deflate": zlib.compress, None: bytes}[coding]
    x = np.arange(200, dtype=np.float32).reshape(1, 2, 100)
    body, headers = binary([tensor("x", "FP32", x)])
    headers |= {"content-encoding": coding} if coding else {}
    headers |= {"accept-encoding": accept or "gzip, deflate, br"}
    answer = await client.post(url("echo-fp32"), content=pack(body), headers=headers)
    assert answer.headers.get("content-encoding") == accept
    np.testing.assert_array_equal(read(answer)["y"], x)  # the client unpacks it


async def test_a_compressed_body_may_come_in_chunks(client: httpx.AsyncClient) -> None:
    x = np.float32([[[1, 2]]])
    body, headers = binary([tensor("x", "FP32", x)])
    packed = gzip.compress(body)

    async def chunks() -> AsyncIterator[bytes]:
        for i in range(0, len(packed), 10):
            yield packed[i : i + 10]

    headers |= {"content-encoding": "gzip"}
    answer = await client.post(url("echo-fp32"), content=chunks(), headers=headers)
    np.testing.assert_array_equal(read(answer)["y"], x)


async def test_priority_and_timeout_are_taken(client: httpx.AsyncClient) -> None:
    document = echo("FP32") | {"parameters": {"priority": 1, "timeout": 9_000_000}}
    assert read(await post(client, "echo-fp32", document))["y"].tolist() == [[[1, 2]]]


async def test_who_waits_no_longer_is_told_so(models: Path, lane: bool) -> None:
    async with gated_app(models, lane=lane) as (gated, _):
        body, headers = binary([tensor("pixels", "UINT8", pixels(1))], parameters={"timeout": 1000})
        answer = await gated.post(url("tiny-image"), content=body, headers=headers)
        assert_refused(answer, 504, "the answer was not ready within 1 ms")


async def test_numbers_in_json_are_the_shortest_that_mean_them(client: httpx.AsyncClient) -> None:
    answer = await post(client, "echo-fp32", echo("FP32", data=[0.1, 1e-9]))
    assert b'"data":[0.1,1e-9]' in answer.content


async def test_a_row_that_fails_does_no_harm_to_those_beside_it(client: httpx.AsyncClient) -> None:
    def document(index: int) -> dict[str, Any]:
        return {"inputs": [{"name": "index", "shape": [1], "datatype": "INT64", "data": [index]}]}

    asked = [0, 99, 1, 2, 99, 0, 1, 2]
    answers = await asyncio.gather(*(post(client, "table", document(index)) for index in asked))
    for index, answer in zip(asked, answers, strict=True):
        if index == 99:
            assert_refused(answer, 500, "the server failed to answer")
        else:
            assert read(answer)["value"].tolist() == [TABLE[index]]


# What is refused

GOOD_BINARY = [tensor("x", "FP32", np.float32([[[1, 2]]]))]


@pytest.mark.parametrize(
    ("model", "document", "words"),
    [
        ("echo-fp32", echo("FP32", shape=[2, -5], data=[1.0]), "whole numbers of at least 0"),
        ("echo-fp32", echo("FP32", shape=[2**4, 2**60 + 2], data=[1.0]), "too many elements"),
        ("echo-fp32", echo("FP32", shape=[1, 2]), "a row has the shape [2], expected [m, n]"),
        ("echo-fp32", echo("FP32", shape=[1, 1, 3]), "do not fit"),
        ("echo-fp32", echo("FP32", shape=[0, 1, 2], data=[]), "needs one row or more"),
        ("echo-fp32", echo("FP32", shape=[31, 1, 1], data=[0] * 31), "31 rows; at most 30"),
        ("echo-fp32", echo("FLOAT"), "the datatype 'FLOAT' is none of"),
        ("echo-fp32", echo("FP64"), "the input 'x' is FP32, not FP64"),
        ("echo-fp32", echo("FP32", data=None), "neither data nor a binary_data_size"),
        ("echo-fp32", echo("FP32", parameters={"binary_data_size": 8}), "both data and"),
        ("echo-fp32", echo("FP32", name="z"), "there is no input 'z'"),
        ("echo-fp32", {"inputs": echo("FP32")["inputs"] * 2}, "stands twice"),
        ("echo-fp32", echo("FP32") | {"outputs": [{"name": "y"}] * 2}, "'y' is asked for twice"),
        ("echo-fp32", echo("FP32") | {"outputs": [{"name": "x"}]}, "there is no output 'x'; there are y"),
        ("echo-fp32", b'{"inputs": [{"name": "x", "data": [NaN]}]}', "not valid JSON"),
        ("echo-fp32", b"[" * 10_000, "not valid JSON"),
        ("echo-fp16", echo("FP16"), "as bytes only, not as JSON"),
        ("echo-bf16", echo("BF16"), "as bytes only, not as JSON"),
        ("echo-bool", echo("BOOL"), "integers cannot be an element of BOOL"),
        ("two", echo("FP32", name="a", shape=[1, 3], data=[1, 2, 3]), "the input 'b' is missing"),
        ("tiny-image", echo("UINT8", name="pixels", shape=[1, 4, 5], data=[0] * 20), "expected [4, 4]"),
    ],
)
async def test_json_that_does_not_fit_is_a_400(
    client: httpx.AsyncClient, model: str, document: Any, words: str
) -> None:
    assert_refused(await post(client, model, document), 400, words)
    await assert_still_answers(client)


async def test_json_nested_without_end_in_data_is_a_400(client: httpx.AsyncClient) -> None:
    text = orjson.dumps(echo("INT64", data="DATA")).replace(b'"DATA"', b"[" * 120 + b"1" + b"]" * 120)
    assert_refused(await post(client, "echo-int64", text), 400, "lists nested too deeply")


@pytest.mark.parametrize("length", ["-1", "x", "1.5", "99999", "9" * 10, "1", ""])
async def test_a_header_length_that_is_wrong_is_a_400(client: httpx.AsyncClient, length: str) -> None:
    body, _ = binary(GOOD_BINARY)
    answer = await client.post(url("echo-fp32"), content=body, headers={LENGTH: length})
    assert_refused(answer, 400, LENGTH if length != "1" else "not valid JSON")
    await assert_still_answers(client)


@pytest.mark.parametrize(
    ("size", "sent", "words"),
    [
        (8, 7, "of 8, but 7 bytes are left"),
        (2**62, 8, "but 8 bytes are left"),
        (8, 9, "1 bytes that belong to no tensor"),
        (4, 4, "4 bytes do not fit FP32 [1, 1, 2], which has 8"),
        (-1, 8, "must be a whole number"),
        ("8", 8, "must be a whole number"),
        (8.0, 8, "must be a whole number"),
        (True, 1, "must be a whole number"),
    ],
)
async def test_bytes_that_do_not_fit_are_a_400(
    client: httpx.AsyncClient, size: Any, sent: int, words: str
) -> None:
    head = {"name": "x", "datatype": "FP32", "shape": [1, 1, 2], "parameters": {"binary_data_size": size}}
    body, headers = binary([(head, bytes(sent))])
    assert_refused(await client.post(url("echo-fp32"), content=body, headers=headers), 400, words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x01\x00\x00\x00\xff" + bytes(4), "not UTF-8"),
        (b"\x01\x00\x00\x00a", "has 2 elements, the data have 1"),
        (b"\x01\x00\x00\x00a" * 3, "has 2 elements, the data have more"),
        (b"\x09\x00\x00\x00a" + bytes(4), "cut off"),
    ],
    ids=["not UTF-8", "too few", "too many", "cut"],
)
async def test_texts_that_do_not_fit_are_a_400(client: httpx.AsyncClient, content: bytes, words: str) -> None:
    head, _ = tensor("x", "BYTES", np.array([[["a", "b"]]], object))
    head["parameters"]["binary_data_size"] = len(content)
    body, headers = binary([(head, content)])
    assert_refused(await client.post(url("echo-bytes"), content=body, headers=headers), 400, words)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("two", "does not take a body that is one tensor"),
        ("echo-fp32", "does not take a body that is one tensor"),
        ("tiny-image", "7 bytes do not fit UINT8 [1, 4, 4]"),
    ],
)
async def test_a_lone_tensor_that_is_unclear_is_a_400(
    client: httpx.AsyncClient, model: str, words: str
) -> None:
    answer = await client.post(url(model), content=bytes(7), headers={LENGTH: "0"})
    assert_refused(answer, 400, words)


async def test_numbers_that_are_not_finite_are_refused_where_a_graph_was_not_trained_for_them(
    client: httpx.AsyncClient,
) -> None:
    body, headers = binary([tensor("samples", "FP32", np.float32([[0, np.nan]]))])
    answer = await client.post(url("tiny-audio"), content=body, headers=headers)
    assert_refused(answer, 400, "not finite")


async def test_an_output_that_json_cannot_hold_is_a_400_that_says_what_to_ask_for(
    client: httpx.AsyncClient,
) -> None:
    x = np.float32([[[np.nan, 1]]])
    body, headers = binary([tensor("x", "FP32", x)], parameters={})
    answer = await client.post(url("echo-fp32"), content=body, headers=headers)
    assert_refused(answer, 400, "ask for binary data")
    body, headers = binary([tensor("x", "FP32", x)])
    answer = await client.post(url("echo-fp32"), content=body, headers=headers)
    np.testing.assert_array_equal(read(answer)["y"], x)


@pytest.mark.parametrize("coding", ["br", "chunked", "compress", "gzip, gzip"])
async def test_a_coding_that_is_not_supported_is_a_400(client: httpx.AsyncClient, coding: str) -> None:
    body, headers = binary(GOOD_BINARY)
    answer = await client.post(url("echo-fp32"), content=body, headers=headers | {"content-encoding": coding})
    assert_refused(answer, 400, f"the content encoding '{coding}' is not supported")
    old = await client.post("/v1/models/tiny-image:predict", headers=JSON | {"content-encoding": coding})
    assert old.status_code == 415


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (gzip.compress(b"{}")[:-3], 400, "cut off"),
        (gzip.compress(b"{}") + b"x", 400, "more behind its end"),
        (b"\x1f\x8b and no more", 400, "cannot be decompressed"),
        (gzip.compress(bytes(10_000_000)), 413, f"larger than the allowed {MAX_BODY_BYTES} bytes"),
    ],
    ids=["cut", "more", "damaged", "bomb"],
)
async def test_a_damaged_or_exploding_body_is_refused(
    client: httpx.AsyncClient, body: bytes, status: int, words: str
) -> None:
    assert len(body) < MAX_BODY_BYTES
    answer = await client.post(url("echo-fp32"), content=body, headers={"content-encoding": "gzip"})
    assert_refused(answer, status, words)
    await assert_still_answers(client)


async def test_a_body_over_the_limit_is_a_413(client: httpx.AsyncClient) -> None:
    answer = await client.post(url("echo-fp32"), content=bytes(MAX_BODY_BYTES + 1))
    assert_refused(answer, 413, "larger than the allowed")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (url("nothing"), 404),
        (url("echo-fp32/versions/7"), 404),
        (url("echo-fp32/versions/x"), 404),
        ("/v2/models/echo-fp32/nothing", 404),
    ],
)
async def test_what_does_not_exist_is_a_404(client: httpx.AsyncClient, path: str, status: int) -> None:
    answer = await client.post(path, content=orjson.dumps(echo("FP32")), headers=JSON)
    assert_refused(answer, status, "")


async def test_another_method_is_a_405(client: httpx.AsyncClient) -> None:
    assert_refused(await client.get(url("echo-fp32")), 405, "GET is not allowed")


async def test_any_content_type_will_do(client: httpx.AsyncClient) -> None:
    body = orjson.dumps(echo("FP32"))
    for headers in ({}, {"content-type": "text/plain"}, {"content-type": "image/png"}):
        typed: Mapping[str, str] = headers
        answer = await client.post(url("echo-fp32"), content=body, headers=typed)
        assert read(answer)["y"].tolist() == [[[1, 2]]]
