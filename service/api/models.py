"""What is served: names, versions, and what is known of each."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from bundle.session import count_nodes
from service.api import paths  # noqa: F401 - the routes below use its convertor
from service.api.requests import record_of
from service.registry import Registry, Served

router = APIRouter()


@router.get("/v1/models")
async def list_models(request: Request) -> dict[str, list[str]]:
    """List the names of all models."""
    registry: Registry = request.app.state.registry
    return {"models": registry.names()}


@router.get("/v1/models/{name:model}")
async def describe_model(request: Request, name: str) -> dict[str, Any]:
    """Tell what is known of a model: its versions, inputs, labels, figures, and what it really runs on."""
    return _describe(request, name, None)


@router.get("/v1/models/{name:model}/versions/{version:model}")
async def describe_version(request: Request, name: str, version: str) -> dict[str, Any]:
    """Tell the same of one version."""
    return _describe(request, name, version)


def _describe(request: Request, name: str, version: str | None) -> dict[str, Any]:
    registry: Registry = request.app.state.registry
    served = registry.get(name, version)
    record = record_of(request.scope)
    record.model, record.version = served.name, served.version
    versions = registry.versions(name) if version is None else [served]
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
