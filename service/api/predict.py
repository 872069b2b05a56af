"""The calls that run a model: `:predict` and `:confidence`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from bundle.confidence import RowConfidence
from bundle.errors import InputError
from bundle.predictor import Predictor
from service.api import paths  # noqa: F401 - the routes below use its convertor
from service.api.body import finish_in_time, read_body
from service.api.description import RUNS_A_MODEL
from service.api.inputs import (
    JSON,
    OCTETS,
    Inputs,
    check_media_type,
    is_quick,
    media_type_of,
    parse_shape,
    read_rows,
)
from service.api.outputs import render_confidence, render_predictions
from service.api.requests import record_of
from service.registry import Registry, Served
from service.settings import Settings

router = APIRouter()

Render = Callable[[Predictor, Sequence[RowConfidence], int], dict[str, Any]]


class Parameters(BaseModel):
    """The query parameters of a call."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    top_k: int = Field(default=3, ge=1)
    """How many labels `top` lists, most probable first; more than there are gives all."""
    invert: bool = False
    """Swap dark and light of an image before it is padded; never guessed."""


@router.post("/v1/models/{name:model}:predict", openapi_extra=RUNS_A_MODEL)
async def predict(request: Request, name: str, parameters: Annotated[Parameters, Query()]) -> Response:
    """Classify one or more inputs.

    The body is JSON `{"instances": […]}` (nested numbers, or `{"b64": "…"}` for media), a media file as it
    is (`image/png`, `image/jpeg`, `audio/wav`, as the model takes), or a little-endian tensor as
    `application/octet-stream`, with its shape in `X-Tensor-Shape` where it is not plain.
    """
    return await answer(request, name, None, parameters, render_predictions)


@router.post("/v1/models/{name:model}/versions/{version:model}:predict", openapi_extra=RUNS_A_MODEL)
async def predict_with_version(
    request: Request, name: str, version: str, parameters: Annotated[Parameters, Query()]
) -> Response:
    """Classify with one version of a model."""
    return await answer(request, name, version, parameters, render_predictions)


@router.post("/v1/models/{name:model}:confidence", openapi_extra=RUNS_A_MODEL)
async def confidence(request: Request, name: str, parameters: Annotated[Parameters, Query()]) -> Response:
    """Classify one or more inputs and say how sure the answer is, and how that is known.

    Takes the same bodies as `:predict`.
    """
    return await answer(request, name, None, parameters, render_confidence)


@router.post("/v1/models/{name:model}/versions/{version:model}:confidence", openapi_extra=RUNS_A_MODEL)
async def confidence_with_version(
    request: Request, name: str, version: str, parameters: Annotated[Parameters, Query()]
) -> Response:
    """Classify with one version of a model and say how sure the answer is."""
    return await answer(request, name, version, parameters, render_confidence)


# The last part of a path -> what renders its answer.
CALLS: dict[str, Render] = {"predict": render_predictions, "confidence": render_confidence}


async def answer(
    request: Request, name: str, version: str | None, parameters: Parameters, render: Render
) -> Response:
    """Answer one call, whoever routed it.

    Args:
        render: makes the answer's content from what is known of each row.

    Raises:
        ServiceError, InputError: the request is refused.
    """
    settings: Settings = request.app.state.settings
    registry: Registry = request.app.state.registry
    served = registry.get(name, version)
    record = record_of(request.scope)
    record.model, record.version = served.name, served.version
    media_type = media_type_of(request.headers.get("content-type", ""))
    check_media_type(served.predictor.bundle.manifest, media_type)
    shape = parse_shape(request.headers.get("x-tensor-shape")) if media_type == OCTETS else None
    timeout_s = parse_timeout(request.headers.get("x-timeout-ms"), settings)
    body = await read_body(request, settings.max_body_bytes, settings.body_timeout_s)
    inputs = Inputs(body, media_type, shape, parameters.invert, time.monotonic() + timeout_s)
    rows = await finish_in_time(request, _run(request, served, inputs, settings), timeout_s)
    content = render(served.predictor, rows, parameters.top_k)
    return Response(orjson.dumps(content), media_type=JSON)


async def _run(request: Request, served: Served, inputs: Inputs, settings: Settings) -> list[RowConfidence]:
    """Validate and decode before the queue, then wait for the batcher."""
    arguments = (served.predictor.bundle.manifest, inputs, settings.limits)
    if is_quick(inputs):
        rows = read_rows(*arguments)
    else:
        decoders: ThreadPoolExecutor = request.app.state.decoders
        rows = await asyncio.get_running_loop().run_in_executor(decoders, read_rows, *arguments)
    return await served.batcher.submit(rows)


def parse_timeout(text: str | None, settings: Settings) -> float:
    """Return the seconds that a caller waits: as X-Timeout-Ms says, but no more than the service allows.

    Raises:
        InputError: it is no positive whole number.
    """
    if text is None:
        return settings.deadline_ms / 1e3
    text = text.strip()
    if not (text.isascii() and text.isdigit() and 0 < len(text) < 10 and int(text) > 0):
        raise InputError(f"X-Timeout-Ms must be a positive whole number of milliseconds, not {text[:80]!r}")
    return min(int(text), settings.deadline_ms) / 1e3
