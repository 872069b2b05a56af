from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
from grpc import StatusCode
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from tests.conftest import running_app
from tests.service.fakes import LIMIT_S
from tests.service.rpc.asking import refused, rpc_of

pytestmark = pytest.mark.anyio

SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING


@pytest.fixture
async def health(repository: Path) -> AsyncIterator[tuple[Any, Any]]:
    """An application, and a stub of its health service."""
    async with running_app(repository) as client, rpc_of(client.app) as (stub, _):  # type: ignore[attr-defined]
        yield client.app, cast(Any, HealthStub)(stub.channel)  # type: ignore[attr-defined]


@pytest.mark.parametrize("service", ["", "inference.GRPCInferenceService", "tiny-image", "tiny-audio"])
async def test_server_service_and_models_serve_until_a_stop_was_asked_for(health: Any, service: str) -> None:
    app, stub = health
    assert (await stub.Check(HealthCheckRequest(service=service))).status == SERVING
    app.state.draining = True
    assert (await stub.Check(HealthCheckRequest(service=service))).status == NOT_SERVING


async def test_what_is_not_there_has_no_health(health: Any) -> None:
    _, stub = health
    with refused(StatusCode.NOT_FOUND, "there is no service or model 'nothing'"):
        await stub.Check(HealthCheckRequest(service="nothing"))


async def test_a_watch_is_told_of_every_change(health: Any) -> None:
    app, stub = health
    async with asyncio.timeout(LIMIT_S):
        watch = stub.Watch(HealthCheckRequest(service="tiny-audio"))
        assert (await watch.read()).status == SERVING
        served = app.state.registry.models()["tiny-audio"]
        app.state.registry.drop("tiny-audio", "unloaded")
        assert (await watch.read()).status == NOT_SERVING
        app.state.registry.drop("tiny-audio", None)
        assert (await watch.read()).status == HealthCheckResponse.SERVICE_UNKNOWN
        app.state.registry.put(served)
        assert (await watch.read()).status == SERVING
        watch.cancel()
