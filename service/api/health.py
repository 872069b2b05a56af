"""Is the process alive, should it get traffic, and what does it count?"""

from __future__ import annotations

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import JSONResponse, PlainTextResponse, Response

from service.api.problems import problem
from service.metrics import Metrics

router = APIRouter()


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Answer 200 as long as the process lives."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(request: Request) -> Response:
    """Answer 200 when every model is verified, self-tested and warm; 503 once a stop was asked for."""
    if request.app.state.draining:
        return problem(503, "this server is about to stop")
    return JSONResponse({"status": "ready"})


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Return the metrics for Prometheus."""
    counted: Metrics = request.app.state.metrics
    return Response(counted.render(), media_type=CONTENT_TYPE_LATEST)
