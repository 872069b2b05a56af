from pathlib import Path

import httpx
import pytest

from bundle.repository import read_bundle
from tests import tiny
from tests.conftest import running_app
from tests.service.calls import PNG, assert_problem, pixels, png

pytestmark = pytest.mark.anyio


def available(version: str) -> dict[str, object]:
    return {
        "version": version,
        "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""},
    }


async def test_all_models_are_listed(client: httpx.AsyncClient) -> None:
    assert (await client.get("/v1/models")).json() == {"models": ["tiny-audio", "tiny-image"]}


async def test_a_model_is_described_by_its_latest_version_and_lists_all(client: httpx.AsyncClient) -> None:
    content = (await client.get("/v1/models/tiny-image")).json()
    assert (content["name"], content["ready"], content["version"]) == ("tiny-image", True, "2")
    assert content["model_version_status"] == [available("2"), available("1")]


async def test_a_version_describes_itself_alone(client: httpx.AsyncClient, repository: Path) -> None:
    content = (await client.get("/v1/models/tiny-image/versions/1")).json()
    assert content["version"] == "1"
    assert content["model_version_status"] == [available("1")]
    bundle = read_bundle(repository / "tiny-image" / "1")
    manifest = bundle.manifest.model_dump(mode="json")
    copied = ("description", "task", "labels", "inputs", "outputs", "decoding", "graphs", "provenance")
    assert {key: content[key] for key in copied} == {key: manifest[key] for key in copied}
    assert content["max_batch_size"] == 8
    assert (content["precision"], content["provider"], content["fallback"]) == ("int8", "cpu", None)
    assert content["bundle_sha256"] == bundle.manifest_sha256


async def test_a_fallback_is_described_with_its_reason(tmp_path: Path) -> None:
    tiny.make_image_bundle(tmp_path, int8_error=5)
    async with running_app(tmp_path) as client:
        content = (await client.get("/v1/models/tiny-image")).json()
    assert content["precision"] == "fp32"
    assert "int8" in content["fallback"]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/v1/models/nothing", "no model 'nothing'"),
        ("/v1/models/tiny-image/versions/3", "no version '3'; it has 1, 2"),
        ("/v1/models/tiny-image/versions/01", "no version '01'"),
        ("/v1/models/tiny-image/versions/abc", "no version 'abc'"),
        ("/v1/models/tiny-image/versions", "there is nothing at /v1/models/tiny-image/versions"),
        ("/v1/models/%00", "no model"),
        ("/v1", "there is nothing at /v1"),
    ],
)
async def test_what_is_not_there_is_a_404_problem(client: httpx.AsyncClient, path: str, words: str) -> None:
    assert_problem(await client.get(path), 404, words)


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/tiny-image", "/v1/models/tiny-image/versions/1"])
async def test_what_describes_cannot_be_written(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.post(path)
    assert_problem(answer, 405, f"POST is not allowed at {path}")
    assert answer.headers["allow"] == "GET"


async def test_the_version_is_named_by_the_path_alone(client: httpx.AsyncClient) -> None:
    answer = await client.get("/v1/models/tiny-image", params={"version": "1"})
    assert answer.json()["version"] == "2"


async def test_an_alias_describes_its_version_alone(tmp_path: Path) -> None:
    for version in (1, 2):
        tiny.make_image_bundle(tmp_path, version=version)
    (tmp_path / "tiny-image" / "serving.json").write_text('{"aliases": {"old": 1}}')
    async with running_app(tmp_path) as client:
        content = (await client.get("/v1/models/tiny-image/labels/old")).json()
        assert content["version"] == "1"
        assert content["model_version_status"] == [available("1")]
        answer = await client.get("/v1/models/tiny-image/labels/new")
        assert_problem(answer, 404, "has no alias 'new'; it has old")


async def test_an_alias_answers_with_its_version(tmp_path: Path, lane: bool) -> None:
    for version in (1, 2):
        tiny.make_image_bundle(tmp_path, version=version)
    (tmp_path / "tiny-image" / "serving.json").write_text('{"aliases": {"old": 1}}')
    async with running_app(tmp_path, lane=lane) as client:
        for verb in ("predict", "confidence"):
            url = f"/v1/models/tiny-image/labels/old:{verb}"
            answer = await client.post(url, content=png(pixels(1)[0]), headers=PNG)
            assert answer.json()["version"] == "1"
        answer = await client.post("/v1/models/tiny-image/labels/new:predict", content=b"", headers=PNG)
        assert_problem(answer, 404, "has no alias 'new'")
