"""What the Open Inference Protocol tells over REST: of the server, of its models, and of what they did."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from service.api import paths  # noqa: F401 - the routes below use its convertor
from service.api.problems import problem
from service.api.requests import choose_served
from service.oip.description import model_config, model_metadata, server_metadata
from service.registry import Registry, Which

router = APIRouter()


@router.get("/v2")
@router.get("/v2/", include_in_schema=False)
async def describe_server() -> dict[str, Any]:
    """Tell the server's name, version and extensions."""
    return server_metadata()


@router.get("/v2/health/live")
async def live() -> dict[str, bool]:
    """Answer 200 as long as the process lives."""
    return {"live": True}


@router.get("/v2/health/ready")
async def ready(request: Request) -> Response:
    """Answer 200 while every model is ready, and 503 once a stop was asked for."""
    if request.app.state.draining:
        return problem(503, "this server is about to stop", form="error")
    return JSONResponse({"ready": True})


@router.get("/v2/models/stats")
async def statistics_of_all(request: Request) -> dict[str, Any]:
    """Tell what all models have done since they were loaded."""
    return await _statistics(request)


@router.get("/v2/models/{name:model}")
async def describe_tensors(request: Request, name: str) -> dict[str, Any]:
    """Tell a model's inputs and outputs."""
    return _metadata(request, Which(name))


@router.get("/v2/models/{name:model}/versions/{version:model}")
async def describe_tensors_of_version(request: Request, name: str, version: str) -> dict[str, Any]:
    """Tell the inputs and outputs of one version of a model."""
    return _metadata(request, Which(name, version))


@router.get("/v2/models/{name:model}/ready")
async def model_ready(request: Request, name: str) -> dict[str, Any]:
    """Answer 200 when a model is ready."""
    return {"name": choose_served(request, Which(name)).name, "ready": True}


@router.get("/v2/models/{name:model}/versions/{version:model}/ready")
async def version_ready(request: Request, name: str, version: str) -> dict[str, Any]:
    """Answer 200 when one version of a model is ready."""
    return {"name": choose_served(request, Which(name, version)).name, "ready": True}


@router.get("/v2/models/{name:model}/config")
async def config(request: Request, name: str) -> dict[str, Any]:
    """Tell a model's configuration in the form of Triton's."""
    return model_config(choose_served(request, Which(name)))


@router.get("/v2/models/{name:model}/versions/{version:model}/config")
async def config_of_version(request: Request, name: str, version: str) -> dict[str, Any]:
    """Tell the configuration of one version of a model."""
    return model_config(choose_served(request, Which(name, version)))


@router.get("/v2/models/{name:model}/stats")
async def statistics(request: Request, name: str) -> dict[str, Any]:
    """Tell what a model has done since it was loaded."""
    return await _statistics(request, name)


@router.get("/v2/models/{name:model}/versions/{version:model}/stats")
async def statistics_of_version(request: Request, name: str, version: str) -> dict[str, Any]:
    """Tell what one version of a model has done since it was loaded."""
    return await _statistics(request, name, version)


async def _statistics(
    request: Request, name: str | None = None, version: str | None = None
) -> dict[str, Any]:
    found: dict[str, Any] = await request.app.state.statistics(name, version)
    return found


def _metadata(request: Request, which: Which) -> dict[str, Any]:
    registry: Registry = request.app.state.registry
    served = choose_served(request, which)
    versions = [served] if which.version is not None else registry.versions(which.name)
    return model_metadata(served, [each.version for each in versions])
