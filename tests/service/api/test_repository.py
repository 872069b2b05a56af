from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bundle.serving import Serving, read_serving
from tests import tiny
from tests.conftest import running_app
from tests.service.calls import IMAGE, JSON, assert_image_answers, assert_problem, instances, pixels

pytestmark = pytest.mark.anyio

INDEX = "/v2/repository/index"
LOAD = "/v2/repository/models/tiny-image/load"
UNLOAD = "/v2/repository/models/tiny-image/unload"
SERVING = "/v1/models/tiny-image/serving"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for version in (1, 2):
        tiny.make_image_bundle(tmp_path, version=version)
    return tmp_path


@pytest.fixture
async def client(models: Path, lane: bool) -> AsyncIterator[httpx.AsyncClient]:
    async with running_app(models, lane=lane) as client:
        yield client


def assert_error(answer: httpx.Response, status: int, words: str) -> None:
    """The answer is an error as the Open Inference Protocol has it."""
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"}
    assert words in answer.json()["error"]


async def versions(client: httpx.AsyncClient, **ready: bool) -> list[str]:
    answer = await client.post(INDEX, json=ready) if ready else await client.post(INDEX)
    assert answer.status_code == 200
    assert all(set(each) == {"name", "version", "state", "reason"} for each in answer.json())
    return [each["version"] for each in answer.json()]


async def ask(client: httpx.AsyncClient, path: str = IMAGE) -> httpx.Response:
    return await client.post(path, content=instances(pixels(1)), headers=JSON)


async def test_a_model_is_unloaded_and_loaded(client: httpx.AsyncClient) -> None:
    assert await versions(client) == ["1", "2"]
    answer = await client.post(UNLOAD, json={"parameters": {"unload_dependents": False}})
    assert (answer.status_code, answer.content) == (200, b"")
    assert_problem(await ask(client), 503, "the model 'tiny-image' is not ready: unloaded")
    assert (await ask(client)).headers["retry-after"] == "1"
    assert_error(await client.get("/v2/models/tiny-image/ready"), 503, "not ready: unloaded")
    assert (await versions(client, ready=True), await versions(client, ready=False)) == ([], ["1", "2"])
    answer = await client.post(LOAD)
    assert (answer.status_code, answer.content) == (200, b"")
    assert_image_answers(await ask(client), pixels(1))
    assert await versions(client, ready=True) == ["1", "2"]


async def test_aliases_are_switched_and_read_back(client: httpx.AsyncClient, models: Path) -> None:
    assert (await client.get(SERVING)).json() == {"versions": None, "aliases": {}, "canary_weight": 0.0}
    content = {"versions": {"latest": 1}, "aliases": {"stable": 1, "canary": 2}, "canary_weight": 1.0}
    answer = await client.put(SERVING, json=content)
    assert (answer.status_code, answer.json()) == (200, content)
    assert (await client.get(SERVING)).json() == content
    assert read_serving(models, "tiny-image").aliases == {"stable": 1, "canary": 2}
    assert (await ask(client)).json()["version"] == "2"
    await client.put(SERVING, json={"aliases": {"stable": 1}})
    assert (await ask(client)).json()["version"] == "1"
    assert read_serving(models, "tiny-image") == Serving(aliases={"stable": 1})


async def test_calls_of_one_id_get_one_version_on_both_ways(client: httpx.AsyncClient) -> None:
    await client.put(SERVING, json={"aliases": {"stable": 1, "canary": 2}, "canary_weight": 0.5})
    seen = {}
    for i in range(40):
        headers = {**JSON, "x-request-id": f"caller-{i}"}
        answers = [await client.post(IMAGE, content=instances(pixels(1)), headers=headers) for _ in range(2)]
        (seen[i],) = {answer.json()["version"] for answer in answers}
    assert set(seen.values()) == {"1", "2"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the body: the document: Invalid JSON"),
        (b"{", "the body: the document: Invalid JSON"),
        (b'{"x": 1}', "the body: x: there is no such field"),
        (b'{"versions": "latest"}', 'the body: versions: must be "all", {"latest": n} or a list of versions'),
        (b'{"aliases": {"stable": 3}}', "there is no version 3; there are: 1, 2"),
        (b'{"canary_weight": 0.5}', "there is no alias 'canary'"),
    ],
)
async def test_a_switch_that_makes_no_sense_changes_nothing(
    client: httpx.AsyncClient, models: Path, content: bytes, words: str
) -> None:
    assert_problem(await client.put(SERVING, content=content, headers=JSON), 400, words)
    assert read_serving(models, "tiny-image") == Serving()
    assert (await ask(client)).json()["version"] == "2"


@pytest.mark.parametrize(
    ("path", "content", "words"),
    [
        (INDEX, b"{", "the body is not JSON"),
        (INDEX, b"[]", "the body must be a JSON object"),
        (INDEX, b'{"ready": 1}', "'ready' must be true or false"),
        (INDEX, b'{"redy": true}', "there is no field 'redy'"),
        (LOAD, b'{"parameters": []}', "'parameters' must be a JSON object"),
        (LOAD, b'{"parameters": {"config": "{}"}}', "the parameter 'config' is not supported"),
        (LOAD, b'{"parameters": {"file:1/a": "AA=="}}', "the parameter 'file:1/a' is not supported"),
        (UNLOAD, b'{"parameters": {"x": 1}}', "the parameter 'x' is not supported"),
        (UNLOAD, b"\xff", "the body is not JSON"),
    ],
)
async def test_a_call_that_cannot_be_understood_is_an_error(
    client: httpx.AsyncClient, path: str, content: bytes, words: str
) -> None:
    assert_error(await client.post(path, content=content), 400, words)
    assert await versions(client, ready=True) == ["1", "2"]


async def test_a_model_that_is_not_there_is_a_404(client: httpx.AsyncClient) -> None:
    for verb in ("load", "unload"):
        answer = await client.post(f"/v2/repository/models/m/{verb}")
        assert_error(answer, 404, "the model repository holds no model 'm'")
    assert_problem(await client.get("/v1/models/m/serving"), 404, "holds no model 'm'")
    assert_problem(await client.put("/v1/models/m/serving", json={}), 404, "holds no model 'm'")


async def test_a_bundle_that_fails_is_an_error_and_the_old_still_serves(
    client: httpx.AsyncClient, models: Path
) -> None:
    folder = tiny.make_image_bundle(models, version=3)
    (folder / "README.md").write_text("changed")
    assert_error(await client.post(LOAD), 400, "README.md: it was changed")
    assert (await ask(client)).json()["version"] == "2"
    index = {each["version"]: each for each in (await client.post(INDEX)).json()}
    assert index["3"]["state"] == "UNAVAILABLE"
    assert "README.md: it was changed" in index["3"]["reason"]
    metrics = (await client.get("/metrics")).text
    assert 'octet_model_load_failures_total{model="tiny-image",version="3"} 1.0' in metrics


async def test_where_nothing_may_be_changed_the_error_names_the_setting(models: Path, lane: bool) -> None:
    options: dict[str, Any] = {"lane": lane, "model_control": "none"}
    async with running_app(models, **options) as client:
        for path in (LOAD, UNLOAD):
            assert_error(await client.post(path), 400, "OCTET_MODEL_CONTROL=explicit")
        assert_problem(await client.put(SERVING, json={}), 400, "OCTET_MODEL_CONTROL=explicit")
        assert await versions(client) == ["1", "2"]
