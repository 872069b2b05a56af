"""The standard health service of gRPC, for the server as a whole, the inference service and every model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from service.errors import UnknownModelError
from service.registry import Registry
from service.rpc.answering import Caller

# Its members are plain numbers.
ServingStatus = int
# How often a watch looks whether anything has changed.
_LOOK_S = 0.5


class Health:
    """Tells whether calls are welcome.

    Args:
        registry: whose models may be asked for by name.
        services: names that stand for the server as a whole.
        is_draining: whether a stop was asked for.
    """

    def __init__(self, registry: Registry, services: frozenset[str], is_draining: Callable[[], bool]) -> None:
        self._registry = registry
        self._services = services
        self._is_draining = is_draining

    async def check(self, caller: Caller, request: HealthCheckRequest) -> HealthCheckResponse:
        """Tell the status of a service or model.

        Raises:
            UnknownModelError: there is none of that name.
        """
        status = self._status(request.service)
        if status == HealthCheckResponse.SERVICE_UNKNOWN:
            raise UnknownModelError(f"there is no service or model {request.service!r}")
        return HealthCheckResponse(status=status)

    async def watch(self, request: HealthCheckRequest, context: Any) -> AsyncIterator[HealthCheckResponse]:
        """Tell the status now and whenever it has changed, also of what is not there yet."""
        told = None
        while True:
            status = self._status(request.service)
            if status != told:
                told = status
                yield HealthCheckResponse(status=status)
            await asyncio.sleep(_LOOK_S)

    def _status(self, service: str) -> ServingStatus:
        is_model = service in self._registry.models()
        if not is_model and service not in self._services and service not in self._registry.unready():
            return HealthCheckResponse.SERVICE_UNKNOWN
        if self._is_draining() or service in self._registry.unready():
            return HealthCheckResponse.NOT_SERVING
        return HealthCheckResponse.SERVING
