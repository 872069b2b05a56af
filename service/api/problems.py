"""The one table from failures to HTTP statuses, and how a failure looks on the wire (RFC 9457).

Beside the standard members every problem has `error`, which clients of other model servers read. Under /v2
a failure is `{"error": …}` alone, as the Open Inference Protocol has it.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any, Literal

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from bundle.errors import InputError
from service.errors import (
    BodyTimeoutError,
    BodyTooLargeError,
    CallerGoneError,
    DeadlineError,
    ForgedFeedbackError,
    LateFeedbackError,
    ModelControlError,
    ModelLoadError,
    ModelNotReadyError,
    NoReportError,
    QueueFullError,
    RepeatedFeedbackError,
    ReviewOffError,
    ReviewStoreError,
    RoleError,
    UnknownItemError,
    UnknownKeyError,
    UnknownModelError,
    UnsupportedMediaError,
)
from service.logs import request_id

logger = logging.getLogger(__name__)

Form = Literal["problem", "error"]

CALLER_GONE = 499  # nginx's number; nobody is there to read it, but it is logged and counted
STATUSES: dict[type[Exception], int] = {
    InputError: 400,
    ModelControlError: 400,
    ModelLoadError: 400,
    UnknownKeyError: 401,
    RoleError: 403,
    ForgedFeedbackError: 401,
    UnknownModelError: 404,
    NoReportError: 404,
    ReviewOffError: 404,
    UnknownItemError: 404,
    BodyTimeoutError: 408,
    RepeatedFeedbackError: 409,
    LateFeedbackError: 410,
    BodyTooLargeError: 413,
    UnsupportedMediaError: 415,
    QueueFullError: 429,
    CallerGoneError: CALLER_GONE,
    ModelNotReadyError: 503,
    ReviewStoreError: 503,
    DeadlineError: 504,
}
# What is left of a body that is too large or too slow is not read to its end.
_HEADERS: dict[int, dict[str, str]] = {
    401: {"www-authenticate": "Bearer"},
    408: {"connection": "close"},
    413: {"connection": "close"},
    429: {"retry-after": "1"},
    503: {"retry-after": "1"},
}


def form_of(path: str) -> Form:
    """Return the form in which failures of a path are told."""
    return "error" if path == "/v2" or path.startswith("/v2/") else "problem"


def problem(
    status: int, detail: str, headers: dict[str, str] | None = None, form: Form = "problem"
) -> Response:
    """Return the answer to a failure; `detail` is one sentence for the caller."""
    headers = {**_HEADERS.get(status, {}), **(headers or {})}
    if form == "error":
        return Response(orjson.dumps({"error": detail}), status, headers, "application/json")
    title = "Client Closed Request" if status == CALLER_GONE else HTTPStatus(status).phrase
    content = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": detail,
        "error": detail,
        "request_id": request_id.get(),
    }
    return Response(orjson.dumps(content), status, headers, "application/problem+json")


def refuse(error: Exception, form: Form = "problem") -> Response:
    """Return the answer to any failure: as `STATUSES` says, or as this server's own fault."""
    for kind in type(error).__mro__:
        if kind in STATUSES:
            status = STATUSES[kind]
            # Under /v2 any media type is taken, and an unknown coding is answered as Triton does.
            return problem(400 if (status, form) == (415, "error") else status, str(error), form=form)
    return fail(error, form)


def fail(error: Exception, form: Form = "problem") -> Response:
    """Return the answer to a failure that is this server's fault, and log its trace."""
    logger.error("a request failed inside the server", exc_info=error)
    identifier = request_id.get()
    detail = f"the server failed to answer; its log tells why, under request {identifier}"
    return problem(500, detail, form=form)


def refuse_parameter(error: RequestValidationError, form: Form = "problem") -> Response:
    """Return the answer to a query parameter that is wrong."""
    return problem(400, _describe(error.errors()[0]), form=form)


def add_problem_handlers(app: FastAPI) -> None:
    """Answer every known failure with a problem, the framework's own ones too."""

    async def on_refusal(request: Request, error: Exception) -> Response:
        return refuse(error, form_of(request.url.path))

    async def on_parameter(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return refuse_parameter(error, form_of(request.url.path))

    async def refuse_route(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        detail = {
            404: f"there is nothing at {request.url.path}",
            405: f"{request.method} is not allowed at {request.url.path}",
        }.get(error.status_code, error.detail)
        form = form_of(request.url.path)
        return problem(error.status_code, detail, dict(error.headers or {}), form)

    for kind in STATUSES:
        app.add_exception_handler(kind, on_refusal)
    app.add_exception_handler(RequestValidationError, on_parameter)
    app.add_exception_handler(HTTPException, refuse_route)


def _describe(error: dict[str, Any]) -> str:
    where, *path = (str(part) for part in error["loc"])
    name = ".".join(path) or where
    if error["type"] == "extra_forbidden":
        return f"there is no {where} parameter {name!r}"
    return f"the {where} parameter {name!r} is wrong: {error['msg']}"
