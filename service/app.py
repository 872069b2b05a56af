"""The application: routes, middleware and lifespan around a registry that is ready."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from fastapi import FastAPI

from service import __version__
from service.access_log import AccessLog
from service.api import health, infer, models, oip, predict
from service.api.problems import add_problem_handlers
from service.api.requests import RequestMiddleware
from service.ledger import Ledger
from service.metrics import Metrics
from service.registry import Registry
from service.settings import Settings

_PROBLEM = {"description": "A problem, as RFC 9457 has it", "content": {"application/problem+json": {}}}


def create_app(settings: Settings, registry: Registry, metrics: Metrics) -> FastAPI:
    """Build the application. Its lifespan stops the registry's batchers."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with ThreadPoolExecutor(settings.run_threads, thread_name_prefix="decode") as decoders:
            app.state.decoders = decoders
            yield
            await registry.stop()
        metrics.gather()

    app = FastAPI(
        title="Octet",
        version=__version__,
        description="Quantized models with honest confidence.",
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.state.settings = settings
    app.state.registry = registry
    app.state.metrics = metrics
    app.state.ledger = Ledger(metrics, AccessLog(settings.log_format))
    app.state.draining = False
    app.state.intake = None  # set where a supervisor accepts the connections
    app.add_middleware(RequestMiddleware, ledger=app.state.ledger)
    add_problem_handlers(app)
    for part in (predict, infer, models, oip, health):
        app.include_router(part.router, responses={"default": _PROBLEM})
    return app
