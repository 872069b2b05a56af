import asyncio
from pathlib import Path

import httpx
import pytest

from service import __version__
from service.app import create_app
from service.metrics import Metrics
from service.registry import load_registry
from service.settings import Settings
from tests.conftest import running_app
from tests.service.calls import IMAGE, JSON, assert_image_answers, instances, pixels

pytestmark = pytest.mark.anyio


async def test_the_schema_documents_every_call_and_its_parameters(client: httpx.AsyncClient) -> None:
    schema = (await client.get("/openapi.json")).json()
    assert schema["info"] == {
        "title": "Octet",
        "version": __version__,
        "description": "Quantized models with honest confidence.",
    }
    base = "/v1/models/{name}"
    calls = [
        f"{base}{version}{verb}"
        for version in ("", "/versions/{version}", "/labels/{alias}")
        for verb in (":predict", ":confidence", "")
    ]
    assert set(schema["paths"]) >= {"/healthz", "/readyz", "/metrics", "/v1/models", "/v2", *calls}
    parameters = schema["paths"][f"{base}:predict"]["post"]["parameters"]
    assert {each["name"] for each in parameters if each["in"] == "query"} == {"top_k", "invert"}
    assert all(each.get("description") for each in parameters if each["in"] != "path")
    bodies = schema["paths"][f"{base}:predict"]["post"]["requestBody"]["content"]
    assert {"application/json", "image/png", "audio/wav", "application/octet-stream"} <= set(bodies)


async def test_a_path_with_a_slash_too_many_is_not_redirected(client: httpx.AsyncClient) -> None:
    assert (await client.get("/v1/models/")).status_code == 404
    assert (await client.get("/healthz/")).status_code == 404


async def test_the_lifespan_starts_the_models_and_ends_their_threads(repository: Path) -> None:
    settings = Settings(models=repository, threads=2)
    metrics = Metrics()
    registry = load_registry(settings, metrics)
    app = create_app(settings, registry, metrics)
    async with app.router.lifespan_context(app):
        images = pixels(1)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://octet") as client:
            assert_image_answers(await client.post(IMAGE, content=instances(images), headers=JSON), images)
    for threads in (app.state.decoders, registry.resources.pool.executor):
        with pytest.raises(RuntimeError, match="shutdown"):
            threads.submit(print)


async def test_many_callers_at_once_each_get_their_own_answer(repository: Path) -> None:
    async with running_app(repository) as client:
        images = [pixels(1 + seed % 11, seed) for seed in range(40)]
        answers = await asyncio.gather(
            *(client.post(IMAGE, content=instances(each), headers=JSON) for each in images)
        )
        for answer, each in zip(answers, images, strict=True):
            assert_image_answers(answer, each)
