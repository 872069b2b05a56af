"""The one table from failures to gRPC's codes, and from these to the HTTP statuses that are logged."""

from __future__ import annotations

import logging

from grpc import StatusCode

from bundle.errors import InputError
from service.errors import (
    DeadlineError,
    ModelControlError,
    ModelLoadError,
    ModelNotReadyError,
    QueueFullError,
    RoleError,
    UnknownKeyError,
    UnknownModelError,
)
from service.logs import request_id

logger = logging.getLogger(__name__)


class StoppingError(Exception):
    """The server does not take calls any more."""

    def __init__(self) -> None:
        super().__init__("this server is about to stop")


CODES: dict[type[Exception], StatusCode] = {
    InputError: StatusCode.INVALID_ARGUMENT,
    UnknownModelError: StatusCode.NOT_FOUND,
    ModelNotReadyError: StatusCode.UNAVAILABLE,
    StoppingError: StatusCode.UNAVAILABLE,
    QueueFullError: StatusCode.RESOURCE_EXHAUSTED,
    UnknownKeyError: StatusCode.UNAUTHENTICATED,
    RoleError: StatusCode.PERMISSION_DENIED,
    DeadlineError: StatusCode.DEADLINE_EXCEEDED,
    # A client that tries again what is not allowed, or cannot be loaded, gets the same answer.
    ModelControlError: StatusCode.FAILED_PRECONDITION,
    ModelLoadError: StatusCode.FAILED_PRECONDITION,
}
# The statuses that REST answers with in the same case.
STATUSES: dict[StatusCode, int] = {
    StatusCode.OK: 200,
    StatusCode.INVALID_ARGUMENT: 400,
    StatusCode.FAILED_PRECONDITION: 400,
    StatusCode.UNAUTHENTICATED: 401,
    StatusCode.PERMISSION_DENIED: 403,
    StatusCode.NOT_FOUND: 404,
    StatusCode.RESOURCE_EXHAUSTED: 429,
    StatusCode.CANCELLED: 499,
    StatusCode.INTERNAL: 500,
    StatusCode.UNAVAILABLE: 503,
    StatusCode.DEADLINE_EXCEEDED: 504,
}
# It travels in a header, percent-encoded, and clients take no more than 8 KiB of those.
_LONGEST_DETAIL = 500


def refuse(error: Exception) -> tuple[StatusCode, str]:
    """Return what a caller is told of any failure: as `CODES` says, or that it is this server's own fault.

    The trace of the latter is logged.
    """
    for kind in type(error).__mro__:
        if kind in CODES:
            detail = str(error)
            cut = detail if len(detail) <= _LONGEST_DETAIL else f"{detail[:_LONGEST_DETAIL]}…"
            return CODES[kind], cut
    logger.error("a request failed inside the server", exc_info=error)
    detail = f"the server failed to answer; its log tells why, under request {request_id.get()}"
    return StatusCode.INTERNAL, detail
