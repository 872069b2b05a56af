"""What is served: names, versions, and what is known of each."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from bundle.session import count_nodes
from service.api import paths  # noqa: F401 - the routes below use its convertor
from service.api.requests import choose_served
from service.api.signatures import describe_signatures
from service.registry import Registry, Served, Which

router = APIRouter()


@router.get("/v1/models")
async def list_models(request: Request) -> dict[str, list[str]]:
    """List the names of all models."""
    registry: Registry = request.app.state.registry
    return {"models": registry.names()}


@router.get("/v1/models/{name:model}")
async def describe_model(request: Request, name: str) -> dict[str, Any]:
    """Tell what is known of a model: its versions, inputs, labels, figures, and what it really runs on."""
    return _describe(request, Which(name))


@router.get("/v1/models/{name:model}/versions/{version:model}")
async def describe_version(request: Request, name: str, version: str) -> dict[str, Any]:
    """Tell the same of one version."""
    return _describe(request, Which(name, version))


@router.get("/v1/models/{name:model}/labels/{alias:model}")
async def describe_alias(request: Request, name: str, alias: str) -> dict[str, Any]:
    """Tell the same of the version that an alias stands for."""
    return _describe(request, Which(name, alias=alias))


@router.get("/v1/models/{name:model}/metadata")
async def metadata(request: Request, name: str) -> dict[str, Any]:
    """Tell the inputs and outputs of `:predict` as TensorFlow Serving does."""
    return describe_signatures(choose_served(request, Which(name)))


@router.get("/v1/models/{name:model}/versions/{version:model}/metadata")
async def metadata_of_version(request: Request, name: str, version: str) -> dict[str, Any]:
    """Tell the inputs and outputs of one version."""
    return describe_signatures(choose_served(request, Which(name, version)))


@router.get("/v1/models/{name:model}/labels/{alias:model}/metadata")
async def metadata_of_alias(request: Request, name: str, alias: str) -> dict[str, Any]:
    """Tell the inputs and outputs of the version that an alias stands for."""
    return describe_signatures(choose_served(request, Which(name, alias=alias)))


def _describe(request: Request, which: Which) -> dict[str, Any]:
    registry: Registry = request.app.state.registry
    served = choose_served(request, which)
    is_one = which.version is not None or which.alias is not None
    versions = [served] if is_one else registry.versions(which.name)
    return {
        "name": served.name,
        "ready": True,
        "model_version_status": [_status(each) for each in reversed(versions)],
        **_description(served),
    }


def _status(served: Served) -> dict[str, Any]:
    return {
        "version": served.version,
        "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""},
    }


def _description(served: Served) -> dict[str, Any]:
    predictor = served.predictor
    manifest = predictor.bundle.manifest
    return {
        "version": served.version,
        "description": manifest.description,
        "task": manifest.task,
        "labels": manifest.labels,
        "inputs": [tensor.model_dump(mode="json") for tensor in manifest.inputs],
        "outputs": [tensor.model_dump(mode="json") for tensor in manifest.outputs],
        "decoding": manifest.decoding.model_dump(mode="json"),
        "max_batch_size": manifest.max_batch_size,
        "precision": predictor.precision,
        "provider": predictor.provider,
        "nodes": count_nodes(predictor.session),
        "fallback": predictor.fallback,
        "bundle_sha256": predictor.bundle.manifest_sha256,
        "graphs": {precision: graph.model_dump(mode="json") for precision, graph in manifest.graphs.items()},
        "provenance": manifest.provenance.model_dump(mode="json"),
    }
