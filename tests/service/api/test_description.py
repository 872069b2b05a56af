"""The OpenAPI document, as far as it can be held against the code without asking a server."""

import re
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import Match

from service.api import predict
from service.api.description import OPERATIONS
from service.api.heads import Heads
from service.api.schemas import SCHEMAS
from service.app import create_app
from service.metrics import Metrics
from service.pool import RunPool
from service.registry import Registry
from service.resources import Resources
from service.settings import Settings


@pytest.fixture(scope="module")
def app() -> FastAPI:
    return create_app(Settings(), Registry([], Resources(RunPool(1))), Metrics())


def operations(app: FastAPI) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (method, path): operation
        for path, methods in app.openapi()["paths"].items()
        for method, operation in methods.items()
    }


def references(value: object) -> set[str]:
    """The names of all schemas that are referred to within a value."""
    if isinstance(value, dict):
        found = set().union(*map(references, value.values()))
        return found | ({str(value["$ref"]).split("/")[-1]} if "$ref" in value else set())
    return set().union(*map(references, value)) if isinstance(value, list) else set()


def test_every_description_is_of_a_route(app: FastAPI) -> None:
    found = {
        (method, re.sub(r"/versions/\{version\}|/labels/\{alias\}", "", path))
        for method, path in operations(app)
    }
    assert found == set(OPERATIONS)


def test_every_answer_has_a_schema_and_every_refusal_the_form_of_its_path(app: FastAPI) -> None:
    for (_, path), operation in operations(app).items():
        form = (
            ("application/json", "Error")
            if path.startswith("/v2")
            else ("application/problem+json", "Problem")
        )
        for status, response in operation["responses"].items():
            assert "X-Request-Id" in response["headers"]
            if status != "200":
                content = {form[0]: {"schema": {"$ref": f"#/components/schemas/{form[1]}"}}}
                assert response["content"] == content
            elif not re.search("/(un)?load$", path):  # which answer with nothing
                assert all(each["schema"] for each in response["content"].values())


def test_every_reference_leads_somewhere_and_no_schema_stands_there_in_vain(app: FastAPI) -> None:
    used, new = set(), references(app.openapi()["paths"])
    while new:
        used |= new
        new = set().union(*(references(SCHEMAS[name]) for name in new)) - used
    assert used == set(SCHEMAS)


def test_what_runs_a_model_names_all_its_bodies(app: FastAPI) -> None:
    for (_, path), operation in operations(app).items():
        if path.endswith((":predict", ":confidence")):
            assert set(operation["requestBody"]["content"]) >= {
                *("application/json", "application/octet-stream", "multipart/form-data"),
                *("image/png", "audio/wav", "text/plain"),
            }


@pytest.mark.parametrize("within", ["", "/versions/1", "/labels/stable"])
@pytest.mark.parametrize("verb", [":predict", ":confidence"])
def test_the_lane_names_the_routes_as_they_are(within: str, verb: str) -> None:
    path = f"/v1/models/m{within}{verb}"
    scope = {"type": "http", "method": "POST", "path": path, "headers": []}
    (route,) = (
        route
        for route in predict.router.routes
        if isinstance(route, APIRoute) and route.matches(scope)[0] is Match.FULL
    )
    fields = [(b"content-type", b"application/json"), (b"content-length", b"2")]
    head = Heads(Settings()).read(path.encode(), fields)
    assert head is not None
    assert head.target.route == route.path_format
