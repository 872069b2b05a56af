"""`/report`: the evaluation report that a bundle holds, as a page for people and as JSON for programs.

The page comes from the bundle, so it is trusted no further than that: the policy in the header keeps it from
running anything, from asking any server, and from being taken for a page of this one.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from bundle.manifest import REPORT_FILE, REPORT_PAGE
from service.api import paths  # noqa: F401 - the routes below use its convertor
from service.api.requests import choose_served
from service.errors import NoReportError
from service.registry import Which

router = APIRouter()

HTML = "text/html"
JSON = "application/json"
POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; sandbox"
)
_HEADERS = {"content-security-policy": POLICY, "x-content-type-options": "nosniff", "vary": "Accept"}


class ReportParameters(BaseModel):
    """The query parameters."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    format: Literal["html", "json"] | None = None
    """The form of the report; by default what `Accept` asks for, and the page where it does not care."""


_Parameters = Annotated[ReportParameters, Query()]


@router.get("/v1/models/{name:model}/report")
async def report(request: Request, name: str, parameters: _Parameters) -> Response:
    """Return the evaluation report of a model."""
    return await _report(request, Which(name), parameters)


@router.get("/v1/models/{name:model}/versions/{version:model}/report")
async def report_of_version(request: Request, name: str, version: str, parameters: _Parameters) -> Response:
    """Return the evaluation report of one version."""
    return await _report(request, Which(name, version), parameters)


@router.get("/v1/models/{name:model}/labels/{alias:model}/report")
async def report_of_alias(request: Request, name: str, alias: str, parameters: _Parameters) -> Response:
    """Return the evaluation report of the version that an alias stands for."""
    return await _report(request, Which(name, alias=alias), parameters)


async def _report(request: Request, which: Which, parameters: ReportParameters) -> Response:
    served = choose_served(request, which)
    bundle = served.predictor.bundle
    wanted = parameters.format or ("json" if wants_json(request.headers.get("accept", "")) else "html")
    file, media_type = (REPORT_FILE, JSON) if wanted == "json" else (REPORT_PAGE, HTML)
    if file not in bundle.manifest.files:
        raise NoReportError(f"version {served.version} of {served.name!r} holds no evaluation report")
    loop = asyncio.get_running_loop()
    content = await loop.run_in_executor(request.app.state.decoders, bundle.read, file)
    return Response(content, headers=_HEADERS, media_type=media_type)


def wants_json(accept: str) -> bool:
    """Return whether a caller prefers JSON to a page, by its Accept header (RFC 9110, section 12.5.1).

    Of two that are as welcome, the one that is named more closely: programs name JSON and take anything else.
    """
    return _preference(accept, JSON) > _preference(accept, HTML)


def _preference(accept: str, media_type: str) -> tuple[float, int]:
    """Return the weight of a media type, 0..1, and how closely the entry names it that gives the weight."""
    kinds = ("*/*", f"{media_type.partition('/')[0]}/*", media_type)
    found = (0.0, -1)
    for entry in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in entry.split(";"))
        if kind in kinds and kinds.index(kind) > found[1]:
            quality = next((part[2:] for part in parameters if part.startswith("q=")), "1")
            found = (_number(quality), kinds.index(kind))
    return found


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
