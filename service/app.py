"""The application: routes, middleware and lifespan around a registry that is ready."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI

from service import __version__
from service.access_log import AccessLog
from service.api import docs, health, infer, models, oip, predict, repository
from service.api.description import describe
from service.api.problems import add_problem_handlers
from service.api.requests import RequestMiddleware
from service.control import Control
from service.ledger import Ledger
from service.lifecycle import Lifecycle
from service.metrics import Metrics
from service.oip.statistics import REPORT, report, statistics
from service.registry import Registry
from service.settings import Settings


def create_app(
    settings: Settings, registry: Registry, metrics: Metrics, control: Control | None = None
) -> FastAPI:
    """Build the application. Its lifespan stops the registry's batchers.

    Args:
        control: changes what the registry serves; by default of this process alone.
    """
    chosen = control or Control(settings, Lifecycle(settings, registry, metrics))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with ThreadPoolExecutor(settings.run_threads, thread_name_prefix="decode") as decoders:
            app.state.decoders = decoders
            async with chosen.running():
                yield
            await registry.stop()
        metrics.gather()

    app = FastAPI(
        title="Octet",
        version=__version__,
        description="Quantized models with honest confidence.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.settings = settings
    app.state.registry = registry
    app.state.control = chosen
    chosen.reports[REPORT] = partial(report, registry)
    app.state.statistics = partial(statistics, chosen, registry)
    app.state.metrics = metrics
    app.state.ledger = Ledger(metrics, AccessLog(settings.log_format))
    app.state.draining = False
    app.state.intake = None  # set where a supervisor accepts the connections
    app.add_middleware(RequestMiddleware, ledger=app.state.ledger)
    add_problem_handlers(app)
    for part in (predict, infer, models, oip, repository, health, docs):
        app.include_router(part.router)
    describe(app)
    return app
