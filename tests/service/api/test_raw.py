"""`:predict` as TensorFlow Serving's callers know it: values in, values out, in rows and in columns."""

import base64
import json
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.answer import Answer, Outputs, Run
from bundle.confidence import softmax
from bundle.repository import read_bundle
from service.api.raw import render_columns, render_rows
from tests import tensor_models, tiny
from tests.conftest import running_app
from tests.service.calls import (
    JSON,
    OCTETS,
    assert_image_answers,
    assert_problem,
    assert_still_answers,
    b64,
    pixels,
    png,
    sound,
    wav,
)

pytestmark = pytest.mark.anyio

ROW = {"flag": [True, False], "count": 5, "half": [0.5], "word": ["x", "ä"], "blob_bytes": {"b64": "eA=="}}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module", params=[True, False], ids=["lane", "routes"])
async def client(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> AsyncIterator[httpx.AsyncClient]:
    repository: Path = tmp_path_factory.mktemp("models")
    for make in (
        tiny.make_image_bundle,
        tiny.make_audio_bundle,
        tensor_models.make_roots,
        tensor_models.make_mirror,
        tensor_models.make_brains,
        tensor_models.make_scalars,
    ):
        make(repository)
    async with running_app(repository, lane=request.param, max_rows=30) as client:
        yield client


async def predict(client: httpx.AsyncClient, name: str, **body: Any) -> dict[str, Any]:
    answer = await client.post(f"/v1/models/{name}:predict", content=json.dumps(body), headers=JSON)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_raw_is_the_probabilities_of_a_classification(client: httpx.AsyncClient) -> None:
    images = pixels(11)
    expected = softmax(tiny.image_logits(images), tiny.TEMPERATURE)
    for values in (images.tolist(), [b64(png(one)) for one in images]):
        rows = await predict(client, "tiny-image", instances=values, signature_name="raw")
        columns = await predict(client, "tiny-image", inputs=values, signature_name="raw")
        named = await predict(client, "tiny-image", inputs={"pixels": values}, signature_name="raw")
        assert list(rows) == ["predictions"]
        assert list(columns) == ["outputs"]
        for found in (rows["predictions"], columns["outputs"], named["outputs"]):
            np.testing.assert_allclose(found, expected, atol=1e-5)


async def test_whatever_the_form_labels_are_the_default(client: httpx.AsyncClient) -> None:
    images = pixels(3)
    values = images.tolist()
    for body in (
        {"instances": values},
        {"instances": values, "signature_name": "serving_default"},
        {"instances": [{"pixels": value} for value in values]},
        {"instances": [{"pixels": b64(png(one))} for one in images]},
        {"inputs": values},
        {"inputs": {"pixels": values}},
    ):
        answer = await client.post("/v1/models/tiny-image:predict", content=json.dumps(body), headers=JSON)
        assert_image_answers(answer, images)


async def test_sounds_of_different_lengths_may_come_as_columns(client: httpx.AsyncClient) -> None:
    sounds = [sound(20), sound(7)]
    values: list[Any] = [sounds[0].tolist(), b64(wav(sounds[1]))]
    found = (await predict(client, "tiny-audio", inputs=values, signature_name="raw"))["outputs"]
    expected = softmax(np.stack([tiny.audio_logits(each) for each in sounds]), tiny.TEMPERATURE)
    np.testing.assert_allclose(found, expected, atol=1e-5)


async def test_padded_sounds_may_come_with_their_lengths(client: httpx.AsyncClient) -> None:
    one = sound(20)
    inputs = {"samples": [[*one.tolist(), 0.5, 0.5]], "lengths": [20]}
    found = (await predict(client, "tiny-audio", inputs=inputs, signature_name="raw"))["outputs"]
    np.testing.assert_allclose(found, [softmax(tiny.audio_logits(one), tiny.TEMPERATURE)], atol=1e-5)


async def test_one_output_is_a_list_of_values(client: httpx.AsyncClient) -> None:
    for values in ([[4, 9], [1, 0.25]], [[16]], [[]], [[], []]):
        roots = [[math.sqrt(value) for value in row] for row in values]
        assert await predict(client, "roots", instances=values) == {"predictions": roots}
        assert await predict(client, "roots", instances=[{"x": row} for row in values]) == {
            "predictions": roots
        }
        assert await predict(client, "roots", inputs=values, signature_name="raw") == {"outputs": roots}
        assert await predict(client, "roots", inputs={"x": values}) == {"outputs": roots}


async def test_several_outputs_are_objects_or_columns(client: httpx.AsyncClient) -> None:
    same = {f"same_{name}": value for name, value in ROW.items()}
    assert await predict(client, "mirror", instances=[ROW] * 6) == {"predictions": [same] * 6}
    columns = {name: [value] * 2 for name, value in ROW.items()}
    expected = {f"same_{name}": value for name, value in columns.items()}
    assert await predict(client, "mirror", inputs=columns) == {"outputs": expected}


async def test_texts_may_be_sent_as_base64(client: httpx.AsyncClient) -> None:
    row = {**ROW, "word": [b64("ö".encode()), {"b64": ""}], "blob_bytes": "plain"}
    ((found,),) = (await predict(client, "mirror", instances=[row])).values()
    assert found["same_word"] == ["ö", ""]
    assert base64.b64decode(found["same_blob_bytes"]["b64"]) == b"plain"


async def test_what_is_no_number_is_null(client: httpx.AsyncClient) -> None:
    assert await predict(client, "roots", instances=[[-1, 4]]) == {"predictions": [[None, 2.0]]}
    assert await predict(client, "roots", inputs=[[-1, 4]]) == {"outputs": [[None, 2.0]]}


async def test_short_fractions_are_rounded_to_the_nearest(client: httpx.AsyncClient) -> None:
    found = await predict(client, "brains", instances=[[1.5, 3.14159]])
    assert found == {"predictions": [[1.5, 3.140625]]}
    ((found,),) = (await predict(client, "mirror", instances=[{**ROW, "half": [0.1]}])).values()
    assert np.float16(found["same_half"][0]) == np.float16(0.1)


async def test_a_model_without_a_batch_dimension_takes_whole_tensors(client: httpx.AsyncClient) -> None:
    assert await predict(client, "scalars", inputs={"a": 2, "b": [1, 2]}) == {"outputs": [3, 4]}
    assert await predict(client, "scalars", inputs={"a": 2, "b": []}) == {"outputs": []}


async def test_rows_as_bytes_are_answered_with_rows(client: httpx.AsyncClient) -> None:
    headers = {**OCTETS, "x-tensor-shape": "2,2"}
    body = np.float32([[4, 9], [1, 0]]).tobytes()
    answer = await client.post("/v1/models/roots:predict", content=body, headers=headers)
    assert answer.json() == {"predictions": [[2, 3], [1, 0]]}


IMAGE_ROW = pixels(1).tolist()[0]
BAD: list[tuple[str, Any, str]] = [
    ("tiny-image:confidence", {"instances": [IMAGE_ROW], "signature_name": "raw"}, "is for :predict alone"),
    ("roots:confidence", {"instances": [[1]]}, "roots classifies nothing"),
    ("roots:predict", {"instances": [[1]], "signature_name": "other"}, "there is no signature 'other'"),
    ("roots:predict", {"instances": [[1]], "signature_name": None}, "there is no signature"),
    ("roots:predict", {"instances": [[1], [1, 2]]}, "x: the rows differ in shape, as [1] and [2]"),
    ("roots:predict", {"inputs": [[1], [1, 2]]}, "x: the rows differ in shape"),
    ("roots:predict", {"instances": [[1]] * 31}, "31 rows; at most 30"),
    ("roots:predict", {"inputs": [[1]] * 31}, "31 rows; at most 30"),
    ("roots:predict", {"instances": [{"b64": "YQ=="}]}, "got an object"),
    ("roots:predict", {"instances": [[[1]]]}, "x: expected numbers (FP32), got lists nested too deeply"),
    ("mirror:predict", {"instances": [5]}, "has several inputs"),
    ("mirror:predict", {"instances": [{**ROW, "more": 1}]}, "instance 0: there is no input 'more'"),
    ("mirror:predict", {"instances": [ROW, {"flag": [True, True]}]}, "the input 'count' is missing"),
    ("mirror:predict", {"instances": [{**ROW, "flag": [1, 0]}]}, "flag: expected true or false"),
    ("mirror:predict", {"instances": [{**ROW, "word": [{"b64": "/w=="}, ""]}]}, "word: an element of BYTES"),
    ("mirror:predict", {"instances": [{**ROW, "word": [{"b64": "*"}, ""]}]}, "not valid base64"),
    ("mirror:predict", {"instances": [{**ROW, "word": [{"x": 1}, ""]}]}, 'must be {"b64": "…"}'),
    ("mirror:predict", {"instances": [{**ROW, "word": "x"}]}, "word: a row has the shape [], expected [2]"),
    ("mirror:predict", {"inputs": [1]}, "a tensor for each of flag, count"),
    ("mirror:predict", {"inputs": {"count": [1]}}, "the input 'flag' is missing"),
    ("mirror:predict", {"inputs": {name: [value] * (1 + (name == "count")) for name, value in ROW.items()}},
     "differ in their number of rows"),
    ("scalars:predict", {"instances": [{"a": 1, "b": [1]}]}, 'takes no "instances"'),
    ("scalars:predict", {"inputs": {"a": [1], "b": [1]}}, "a: the shape [1] is not []"),
    ("scalars:predict", {"inputs": {"a": 1e39, "b": [1]}}, "are allowed"),
    ("scalars:predict", {"inputs": {"a": 1, "c": [1]}}, "there is no input 'c'; there are a, b"),
    ("scalars:predict?invert=true", {"inputs": {"a": 1, "b": [1]}}, "invert is for images"),
    ("roots:predict?invert=true", {"instances": [[1]]}, "invert is for images"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body", "words"), BAD)
async def test_values_that_cannot_be_used_are_refused_with_their_reason(
    client: httpx.AsyncClient, path: str, body: Any, words: str
) -> None:
    answer = await client.post(f"/v1/models/{path}", content=json.dumps(body), headers=JSON)
    assert_problem(answer, 400, words)
    await assert_still_answers(client)


async def test_a_model_without_a_batch_dimension_takes_no_bytes(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/models/scalars:predict", content=bytes(4), headers=OCTETS)
    assert_problem(answer, 400, "scalars takes no rows as bytes")


async def test_files_in_a_form_are_a_batch(client: httpx.AsyncClient) -> None:
    images = pixels(12)
    files = [(f"f{i % 3}", (f"{i}.png", png(one))) for i, one in enumerate(images)]
    assert_image_answers(await client.post("/v1/models/tiny-image:predict", files=files), images)
    answer = await client.post("/v1/models/tiny-image:confidence", files=files)
    assert len(answer.json()["results"]) == 12
    inverted = await client.post("/v1/models/tiny-image:predict?invert=true", files=files)
    assert_image_answers(inverted, 255 - images)


async def test_a_form_that_cannot_be_used_is_refused_with_its_reason(client: httpx.AsyncClient) -> None:
    url, one = "/v1/models/tiny-image:predict", ("a.png", png(pixels(1)[0]))
    for files, data, words in (
        ([("f", one), ("f", ("b.png", b"text"))], {}, "file 1: the body is not a PNG or JPEG"),
        ([("f", one)], {"top_k": "1"}, "the form's field 'top_k' is no file"),
        ([("f", one)] * 31, {}, "more than 30 files"),
    ):
        assert_problem(await client.post(url, files=files, data=data), 400, words)
    headers = {"content-type": "multipart/form-data"}
    assert_problem(await client.post(url, content=b"--x--", headers=headers), 400, "needs a boundary")
    assert_problem(await client.post("/v1/models/roots:predict", files=[("f", one)]), 415, "does not take")
    await assert_still_answers(client)


@given(st.lists(st.lists(st.floats(width=32), min_size=2, max_size=2), min_size=1, max_size=5), st.data())
def test_rows_and_columns_hold_the_same_values_however_they_ran(
    tmp_path_factory: pytest.TempPathFactory, values: list[list[float]], data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "roots-model"
    directory = path / "roots" / "1"
    if not directory.exists():
        tensor_models.make_roots(path)
    manifest = read_bundle(directory).manifest
    array = np.array(values, np.float32)
    cut = data.draw(st.integers(0, len(array)))
    runs = [Run(Outputs({"roots": part}), 1.0) for part in (array[:cut], array[cut:])]
    answers = [Answer(runs[i >= cut], i - cut if i >= cut else i) for i in range(len(array))]
    np.testing.assert_array_equal(np.stack(render_rows(manifest, answers)["predictions"]), array)
    np.testing.assert_array_equal(render_columns(manifest, answers)["outputs"], array)
