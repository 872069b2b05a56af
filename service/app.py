"""The application: routes, middleware and lifespan around a registry that is ready."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, nullcontext
from functools import partial

from fastapi import Depends, FastAPI

from service import __version__
from service.access_log import AccessLog
from service.api import docs, health, infer, models, monitoring, oip, predict, reports, repository, review
from service.api.description import describe
from service.api.problems import add_problem_handlers
from service.api.requests import RequestMiddleware
from service.api.roles import check_key
from service.api_keys import ApiKeys
from service.control import Control
from service.ledger import Ledger
from service.lifecycle import Lifecycle
from service.metrics import Metrics
from service.oip.statistics import REPORT, report, statistics
from service.registry import Registry
from service.review.queue import Review
from service.settings import Settings
from service.shadow import Shadow
from service.tracing import Tracing


def create_app(
    settings: Settings, registry: Registry, metrics: Metrics, control: Control | None = None
) -> FastAPI:
    """Build the application. Its lifespan stops the registry's batchers.

    Args:
        control: changes what the registry serves; by default of this process alone.
    """
    chosen = control or Control(settings, Lifecycle(settings, registry, metrics))
    tracing = None if settings.traces_url is None else Tracing(settings.traces_url, settings.traces_share)

    api_keys = ApiKeys(settings.api_keys_file)
    shadow = Shadow(settings, metrics, chosen.fall_back)
    if settings.shadow_share:
        registry.resources.tap.add(shadow)

    kept = None if settings.review_url is None else Review(settings, metrics)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        keeping = nullcontext() if kept is None else kept.running(registry.resources.tap)
        with ThreadPoolExecutor(settings.run_threads, thread_name_prefix="decode") as decoders:
            app.state.decoders = decoders
            async with api_keys.watching(), chosen.running(), shadow.running(), keeping:
                yield
            await registry.stop()
        metrics.gather()
        if tracing is not None:
            await asyncio.to_thread(tracing.stop)

    app = FastAPI(
        title="Octet",
        version=__version__,
        description="Quantized models with honest confidence.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        dependencies=[Depends(check_key)],
    )
    app.state.settings = settings
    app.state.registry = registry
    app.state.control = chosen
    app.state.api_keys = api_keys
    chosen.reports[REPORT] = partial(report, registry, metrics)
    monitoring.add_report(chosen, registry)
    app.state.statistics = partial(statistics, chosen, registry)
    app.state.metrics = metrics
    app.state.ledger = Ledger(metrics, AccessLog(settings.log_format), tracing)
    app.state.draining = False
    app.state.intake = None  # set where a supervisor accepts the connections
    app.add_middleware(RequestMiddleware, ledger=app.state.ledger)
    add_problem_handlers(app)
    for part in (predict, infer, models, reports, oip, repository, monitoring, review, health, docs):
        app.include_router(part.router)
    describe(app)
    return app
