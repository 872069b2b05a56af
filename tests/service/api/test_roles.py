"""Keys over HTTP, through the lane and through the routes: who may do what, and how a refusal looks."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from starlette.routing import Route

from service.api.paths import without_version
from service.api.roles import ROLES, role_of
from service.app import create_app
from service.metrics import Metrics
from service.pool import RunPool
from service.registry import Registry
from service.resources import Resources
from service.settings import Settings
from tests.conftest import running_app
from tests.service.calls import IMAGE, JSON, assert_image_answers, assert_problem, instances, pixels
from tests.service.keyed import KEYS, bearer, line, write_keys

pytestmark = pytest.mark.anyio

IMAGES = pixels(2)
BODY = instances(IMAGES)
INFER = "/v2/models/tiny-image/infer"
TENSOR = {"name": "pixels", "shape": [1, 4, 4], "datatype": "UINT8", "data": pixels(1).ravel().tolist()}


def all_routes() -> Iterator[Route]:
    """All that an application answers; some versions of FastAPI keep those of a router within it."""
    app = create_app(Settings(), Registry([], Resources(RunPool(1))), Metrics())
    waiting: list[Any] = list(app.routes)
    while waiting:
        route = waiting.pop()
        if (inner := getattr(route, "original_router", None)) is not None:
            waiting += inner.routes
        else:
            assert isinstance(route, Route)
            yield route


def routes() -> set[tuple[str, str]]:
    """Method and path of each, without HEAD, which goes with GET."""
    return {
        (method, without_version(route.path_format))
        for route in all_routes()
        for method in (route.methods or set()) - {"HEAD"}
    }


def test_somebody_has_decided_for_every_route_who_may_call_it() -> None:
    """A new route fails here until `ROLES` has it; until then it needs "admin"."""
    found = routes()
    assert len(found) >= 25
    assert found == set(ROLES)
    assert role_of("GET", "/v9/new") == "admin"


def test_only_what_tells_nothing_of_models_and_callers_is_open() -> None:
    opened = {path for (_, path), role in ROLES.items() if role is None}
    health = {"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"}
    documents = {"/docs", "/docs/docs.css", "/docs/docs.js", "/openapi.json"}
    assert opened == {"/metrics", *health, *documents}


def test_every_route_beside_the_documents_goes_through_the_check() -> None:
    unchecked = {route.path for route in all_routes() if not isinstance(route, APIRoute)}
    assert unchecked == {"/openapi.json"}


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    return write_keys(tmp_path / "keys")


@pytest.fixture
async def keyed(repository: Path, keys_file: Path, lane: bool) -> AsyncIterator[httpx.AsyncClient]:
    async with keyed_app(repository, keys_file, lane) as client:
        yield client


@asynccontextmanager
async def keyed_app(repository: Path, path: Path, lane: bool) -> AsyncIterator[httpx.AsyncClient]:
    async with running_app(repository, lane=lane, api_keys_file=path) as client:
        # The lane takes none that accepts compressed answers.
        client.headers["accept-encoding"] = "identity"
        yield client


async def predict(client: httpx.AsyncClient, headers: dict[str, str]) -> httpx.Response:
    return await client.post(IMAGE, content=BODY, headers={**JSON, **headers})


@pytest.mark.parametrize("role", ["predict", "admin"])
async def test_a_key_that_allows_it_is_answered(keyed: httpx.AsyncClient, role: str) -> None:
    for headers in (bearer(role), {"x-api-key": KEYS[role]}, {"Authorization": f"bearer {KEYS[role]}"}):
        for _ in range(2):  # the second time, the lane knows the head
            assert_image_answers(await predict(keyed, headers), IMAGES)


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({}, "this needs an API key"),
        ({"authorization": "Basic YTpi"}, "this needs an API key"),
        ({"authorization": "Bearer nobody"}, "the API key is not known"),
        ({"authorization": f"Bearer {KEYS['predict']}x"}, "the API key is not known"),
        ({"x-api-key": "nobody", **bearer("predict")}, "the API key is not known"),
    ],
)
async def test_no_key_or_an_unknown_one_is_401(
    keyed: httpx.AsyncClient, headers: dict[str, str], words: str
) -> None:
    for _ in range(2):
        answer = await predict(keyed, headers)
        assert_problem(answer, 401, words)
        assert answer.headers["www-authenticate"] == "Bearer"
        answer = await keyed.post(INFER, json={"inputs": [TENSOR]}, headers=headers)
        assert answer.status_code == 401
        assert words in answer.json()["error"]
        assert set(answer.json()) == {"error"}
        assert answer.headers["www-authenticate"] == "Bearer"
    assert_image_answers(await predict(keyed, bearer("predict")), IMAGES)


async def test_a_key_without_the_role_is_403(keyed: httpx.AsyncClient) -> None:
    assert_problem(await predict(keyed, bearer("feedback")), 403, "'predict', which feedback-holder has not")
    answer = await keyed.post(INFER, json={"inputs": [TENSOR]}, headers=bearer("feedback"))
    assert (answer.status_code, set(answer.json())) == (403, {"error"})
    answer = await keyed.post("/v2/repository/models/tiny-image/load", headers=bearer("predict"))
    assert answer.status_code == 403
    answer = await keyed.put("/v1/models/tiny-image/serving", json={}, headers=bearer("predict"))
    assert_problem(answer, 403, "'admin'")


async def test_a_key_is_looked_at_before_anything_else(keyed: httpx.AsyncClient) -> None:
    """Whoever has none learns neither which models there are nor what is wrong with a call."""
    for path in (
        "/v1/models/nothing:predict",
        f"{IMAGE}?top_k=0",
        "/v1/models/nothing/versions/9:confidence",
    ):
        assert_problem(await keyed.post(path, content=b"{"), 401)
    assert_problem(await keyed.post("/v1/models/nothing:predict", content=b"{", headers=bearer("admin")), 404)


async def test_every_route_holds_to_the_table(keyed: httpx.AsyncClient) -> None:
    for method, path in sorted(routes()):
        url = path.replace("{name}", "nothing").replace("{item}", "1")
        role = ROLES[method, path]
        statuses = {
            sent: (await keyed.request(method, url, headers=bearer(sent) if sent else {})).status_code
            for sent in ("", *KEYS)
        }
        if role is None:
            assert set(statuses.values()) == {200}, (path, statuses)
            continue
        assert statuses[""] == 401, (path, statuses)
        for sent in KEYS:
            assert (statuses[sent] == 403) == (sent not in (role, "admin")), (path, sent, statuses)
            assert statuses[sent] != 401


@pytest.mark.parametrize("fields", [["authorization: Bearer nobody", "authorization: Bearer {key}"]])
async def test_a_header_that_comes_twice_counts_as_its_first(
    repository: Path, keys_file: Path, fields: list[str]
) -> None:
    async with keyed_app(repository, keys_file, True) as client:
        reader, writer = await asyncio.open_unix_connection(client.path)  # type: ignore[attr-defined]
        lines = [each.format(key=KEYS["predict"]) for each in fields]
        head = "\r\n".join([f"POST {IMAGE} HTTP/1.1", "host: o", *lines, f"content-length: {len(BODY)}"])
        writer.write(head.encode() + b"\r\ncontent-type: application/json\r\n\r\n" + BODY)
        assert (await reader.readline()).startswith(b"HTTP/1.1 401 ")
        writer.close()


async def test_other_keys_are_known_at_once_also_for_heads_that_the_lane_remembers(
    keyed: httpx.AsyncClient, keys_file: Path
) -> None:
    keys = keyed.app.state.api_keys  # type: ignore[attr-defined]
    for _ in range(3):
        assert_image_answers(await predict(keyed, bearer("predict")), IMAGES)
    write_keys(keys_file, "admin")
    await keys.look()
    for _ in range(3):
        assert_problem(await predict(keyed, bearer("predict")), 401, "the API key is not known")
    keys_file.write_text(line(KEYS["predict"], "feedback"))
    await keys.look()
    assert_problem(await predict(keyed, bearer("predict")), 403)
    write_keys(keys_file)
    await keys.look()
    assert_image_answers(await predict(keyed, bearer("predict")), IMAGES)


@pytest.mark.parametrize("log_format", ["text", "json"])
async def test_the_log_tells_the_name_of_a_key_and_never_the_key(
    repository: Path, keys_file: Path, lane: bool, capsys: pytest.CaptureFixture[str], log_format: str
) -> None:
    settings: dict[str, Any] = {"api_keys_file": keys_file, "log_format": log_format}
    async with running_app(repository, lane=lane, **settings) as client:
        client.headers["accept-encoding"] = "identity"
        assert_image_answers(await predict(client, bearer("predict")), IMAGES)
        assert (await predict(client, {"x-api-key": KEYS["feedback"]})).status_code == 403
        assert (await predict(client, {"x-api-key": "nobody-knows-me"})).status_code == 401
        metrics = (await client.get("/metrics")).text
    lines = [each for each in capsys.readouterr().err.splitlines() if ":predict" in each]
    assert len(lines) == 3
    for text in (*lines, metrics):
        assert not any(key in text for key in (*KEYS.values(), "nobody-knows-me"))
    if log_format == "json":
        assert [json.loads(each).get("key") for each in lines] == ["predict-holder", "feedback-holder", None]
    else:
        assert re.search(r"200 \d+\.\d\d ms key predict-holder$", lines[0])
        assert re.search(r"403 \d+\.\d\d ms key feedback-holder$", lines[1])
        assert " key " not in lines[2]


async def test_without_a_file_a_key_is_not_looked_at(repository: Path, lane: bool) -> None:
    async with running_app(repository, lane=lane) as client:
        for headers in ({}, bearer("feedback"), {"x-api-key": "nobody"}):
            assert_image_answers(await predict(client, headers), IMAGES)


@pytest.mark.parametrize("required", [True, False])
async def test_the_document_tells_of_keys(repository: Path, keys_file: Path, required: bool) -> None:
    settings = {"api_keys_file": keys_file} if required else {}
    async with running_app(repository, **settings) as client:
        document = (await client.get("/openapi.json")).json()
    schemes = document["components"]["securitySchemes"]
    assert schemes["bearer"]["scheme"] == "bearer"
    assert (schemes["key"]["in"], schemes["key"]["name"]) == ("header", "X-API-Key")
    predict = document["paths"]["/v1/models/{name}:predict"]["post"]
    assert predict["security"] == [{"bearer": []}, {"key": []}] + [{}] * (not required)
    assert {"401", "403"} <= set(predict["responses"])
    assert "`predict`" in predict["description"]
    assert "security" not in document["paths"]["/healthz"]["get"]
    assert not {"401", "403"} & set(document["paths"]["/metrics"]["get"]["responses"])
