"""What the model repository holds, and changes of what is served: the calls of the protocol v2, and ours."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import APIRouter, Depends, Request
from starlette.responses import JSONResponse, Response

from bundle.errors import InputError, ServingError
from bundle.serving import parse_serving
from service.api import paths  # noqa: F401 - the routes below use its convertor
from service.api.body import read_body
from service.api.origin import refuse_foreign_pages
from service.api.requests import record_of
from service.control import Control
from service.settings import Settings

router = APIRouter()


def _body(properties: dict[str, Any]) -> dict[str, Any]:
    """Describe a JSON body that may be left out."""
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {"requestBody": {"required": False, "content": {"application/json": {"schema": schema}}}}


_PARAMETERS = {
    "type": "object",
    "description": "None is supported but `unload_dependents`, which does nothing.",
}
_SERVING = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "versions": {
                            "description": '"all", {"latest": n} or a list of versions; null for the default.'
                        },
                        "aliases": {
                            "type": "object",
                            "additionalProperties": {"type": "integer", "minimum": 1},
                        },
                        "canary_weight": {"type": "number", "minimum": 0, "maximum": 1},
                    },
                }
            }
        },
    }
}


@router.post("/v2/repository/index", openapi_extra=_body({"ready": {"type": "boolean", "default": False}}))
async def index(request: Request) -> list[dict[str, str]]:
    """List every version that the model repository holds or that is served, with its state.

    States are READY, LOADING, UNLOADING and UNAVAILABLE; `reason` says why. With `"ready": true` only those
    that are served.
    """
    document = await _read_document(request, {"ready", "repository_name"})
    ready = document.get("ready", False)
    if not isinstance(ready, bool):
        raise InputError("'ready' must be true or false")
    return await _control(request).index(ready)


@router.post(
    "/v2/repository/models/{name:model}/load",
    openapi_extra=_body({"parameters": _PARAMETERS}),
    dependencies=[Depends(refuse_foreign_pages)],
)
async def load(request: Request, name: str) -> Response:
    """Load a model, or load it anew; answered when every worker has done it."""
    await _control(request).load(name, await _read_parameters(request))
    record_of(request.scope).model = name
    return Response(status_code=200)


@router.post(
    "/v2/repository/models/{name:model}/unload",
    openapi_extra=_body({"parameters": _PARAMETERS}),
    dependencies=[Depends(refuse_foreign_pages)],
)
async def unload(request: Request, name: str) -> Response:
    """Unload a model until it is loaded again; answered when every worker has done it."""
    await _control(request).unload(name, await _read_parameters(request))
    record_of(request.scope).model = name
    return Response(status_code=200)


@router.get("/v1/models/{name:model}/serving")
async def get_serving(request: Request, name: str) -> Response:
    """Tell which versions of a model should be served, their aliases, and the canary's share."""
    serving = await _control(request).serving(name)
    record_of(request.scope).model = name
    return JSONResponse(serving.model_dump(mode="json"))


@router.put(
    "/v1/models/{name:model}/serving",
    openapi_extra=_SERVING,
    dependencies=[Depends(refuse_foreign_pages)],
)
async def put_serving(request: Request, name: str) -> Response:
    """Switch versions, aliases and the canary's share of a model, all at once.

    The answer comes when every worker serves so and it stands in the model repository. Where anything that is
    named cannot be served, nothing changes.
    """
    try:
        serving = parse_serving(await _read_body(request), "the body")
    except ServingError as error:
        raise InputError(str(error)) from error
    await _control(request).set_serving(name, serving)
    record_of(request.scope).model = name
    return JSONResponse(serving.model_dump(mode="json"))


def _control(request: Request) -> Control:
    control: Control = request.app.state.control
    return control


async def _read_body(request: Request) -> bytes:
    settings: Settings = request.app.state.settings
    return await read_body(request, settings.max_body_bytes, settings.body_timeout_s)


async def _read_document(request: Request, known: set[str]) -> dict[str, Any]:
    """Return the JSON object of a body; an empty one where there is no body."""
    body = await _read_body(request)
    if not body.strip():
        return {}
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InputError(f"the body is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InputError("the body must be a JSON object")
    if unknown := sorted(set(document) - known):
        raise InputError(f"there is no field {unknown[0]!r}")
    return document


async def _read_parameters(request: Request) -> dict[str, Any]:
    parameters = (await _read_document(request, {"parameters"})).get("parameters", {})
    if not isinstance(parameters, dict):
        raise InputError("'parameters' must be a JSON object")
    return parameters
