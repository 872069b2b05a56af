"""The usual way of a call that runs a model: a route's, through FastAPI. The other one is the lane."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from fastapi import Request
from starlette.responses import Response

from bundle.answer import Answer
from bundle.errors import InputError
from service.api.body import finish_in_time, read_body
from service.api.calls import Call, Question, Sent
from service.api.compression import coding_of, compress, decompress, wanted_coding
from service.api.forms import MULTIPART, boundary_of
from service.api.inputs import OCTETS, media_type_of, parse_shape
from service.api.requests import choose_served, record_of
from service.api.tensors import HEADER_LENGTH, parse_header_length
from service.errors import DeadlineError
from service.record import HEADER
from service.registry import Served, Which
from service.settings import Settings

T = TypeVar("T")


async def answer(request: Request, call: Call, which: Which) -> Response:
    """Answer one call.

    Args:
        which: model and version.

    Raises:
        ServiceError, InputError: the request is refused.
    """
    settings: Settings = request.app.state.settings
    headers = request.headers
    served = choose_served(request, which, headers.get(HEADER, ""))
    record_of(request.scope).statistics = served.statistics
    media_type = media_type_of(headers.get("content-type", ""))
    call.check_media_type(served.predictor.bundle.manifest, media_type)
    shape = parse_shape(headers.get("x-tensor-shape")) if media_type == OCTETS else None
    header_length = parse_header_length(headers.get(HEADER_LENGTH))
    timeout_s = parse_timeout(headers.get("x-timeout-ms"), settings)
    coding = coding_of(headers.get("content-encoding", ""))
    body = await read_body(request, settings.max_body_bytes, settings.body_timeout_s)
    if coding is not None:
        body = await _in_thread(request, decompress, body, settings.max_body_bytes)
    boundary = boundary_of(headers.get("content-type", "")) if media_type == MULTIPART else b""
    sent = Sent(body, media_type, shape, header_length, time.monotonic() + timeout_s, boundary)
    question, answers = await finish_in_time(request, _run(request, served, call, sent, settings), timeout_s)
    if (trace := record_of(request.scope).trace) is not None:
        trace.answered(answers)
    reply = question.reply(answers)
    content, extra = reply.body, dict(reply.headers)
    if (wanted := wanted_coding(headers.get("accept-encoding", ""))) is not None:
        content = await _in_thread(request, compress, content, wanted)
        extra["content-encoding"] = wanted
    return Response(content, headers=extra, media_type=reply.media_type)


async def _run(
    request: Request, served: Served, call: Call, sent: Sent, settings: Settings
) -> tuple[Question, list[Answer]]:
    """Validate and decode before the queue, then wait for the batcher."""
    if call.is_quick(sent):
        question = call.read(served, sent, settings.limits)
    else:
        question = await _in_thread(request, call.read, served, sent, settings.limits)
    if (trace := record_of(request.scope).trace) is not None:
        trace.submit()
    try:
        async with asyncio.timeout(question.timeout_s):
            return question, await served.batcher.submit(question.rows, question.priority)
    except TimeoutError as error:
        raise late(question.timeout_s or 0) from error


async def _in_thread(request: Request, function: Callable[..., T], *arguments: Any) -> T:
    """Do what may take long without keeping the event loop from others."""
    decoders: ThreadPoolExecutor = request.app.state.decoders
    return await asyncio.get_running_loop().run_in_executor(decoders, function, *arguments)


def late(seconds: float) -> DeadlineError:
    """Return what a caller is told who has waited for so long."""
    return DeadlineError(f"the answer was not ready within {seconds * 1000:.0f} ms")


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
