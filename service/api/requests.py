"""What every request gets: an id, a log line, a count and a time, and a problem instead of a stack trace."""

from __future__ import annotations

import logging
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import fail, form_of
from service.ledger import Ledger
from service.logs import request_id
from service.record import HEADER, Record, choose_id
from service.registry import Registry, Served, Which
from service.trace import PARENT_HEADER, TRACE_HEADER

logger = logging.getLogger(__name__)

_SCOPE_KEY = "octet.record"


def record_of(scope: Scope) -> Record:
    """Return the record of the request that a scope belongs to."""
    record: Record = scope[_SCOPE_KEY]
    return record


def choose_served(request: Request, which: Which, sticky_id: str = "") -> Served:
    """Return the version that serves a request, and note it in its record.

    Raises:
        UnknownModelError, ModelNotReadyError: there is none.
    """
    registry: Registry = request.app.state.registry
    served = registry.choose(which, sticky_id)
    record = record_of(request.scope)
    record.model, record.version = served.name, served.version
    return served


def quote_path(path: str) -> str:
    """Return a path as it may stand in a log: a line break in it must not forge a line."""
    return quote(path, safe="/:")


class RequestMiddleware:
    """Give every request an id, and log and count it when it is answered."""

    def __init__(self, app: ASGIApp, ledger: Ledger) -> None:
        self._app = app
        self._ledger = ledger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = Headers(scope=scope)
        identifier = choose_id(sent.get(HEADER, ""))
        token = request_id.set(identifier)
        record = scope[_SCOPE_KEY] = Record(identifier, scope["method"], quote_path(scope["path"]))
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                record.status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[HEADER] = identifier
                if record.trace is not None:
                    headers[TRACE_HEADER] = record.trace.id
                if scope["app"].state.draining:  # a kept connection would be cut when the port closes
                    headers["connection"] = "close"
            await send(message)

        self._ledger.begin(record, sent.get(PARENT_HEADER, ""))
        try:
            await self._app(scope, receive, send_with_id)
        except Exception as error:  # noqa: BLE001 - the border: the caller gets an answer and the log the trace
            response = fail(error, form_of(scope["path"]))
            if not started:
                await response(scope, receive, send_with_id)
        finally:
            record.route = getattr(scope.get("route"), "path_format", "unmatched")
            self._ledger.finish(record)
            request_id.reset(token)
