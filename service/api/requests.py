"""What every request gets: an id, a log line, a count and a time, and a problem instead of a stack trace."""

from __future__ import annotations

import logging
import re
import time
import uuid
from dataclasses import dataclass
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import problem
from service.logs import request_id
from service.metrics import Metrics

logger = logging.getLogger(__name__)

HEADER = "x-request-id"
_SANE_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
_SCOPE_KEY = "octet.record"


@dataclass
class Record:
    """What is logged and counted of one request. Handlers fill in which model they found."""

    model: str = ""
    version: str = ""
    status: int = 500


def record_of(scope: Scope) -> Record:
    """Return the record of the request that a scope belongs to."""
    record: Record = scope[_SCOPE_KEY]
    return record


class RequestMiddleware:
    """Give every request an id, and log and count it when it is answered."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = Headers(scope=scope).get(HEADER, "")
        identifier = sent if _SANE_ID.fullmatch(sent) else uuid.uuid4().hex
        token = request_id.set(identifier)
        record = scope[_SCOPE_KEY] = Record()
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                record.status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[HEADER] = identifier
                if scope["app"].state.draining:  # a kept connection would be cut when the port closes
                    headers["connection"] = "close"
            await send(message)

        began_s = time.perf_counter()
        self._metrics.in_flight.inc()
        try:
            await self._app(scope, receive, send_with_id)
        except Exception:  # the border: whatever it is, the caller gets an answer and the log the trace
            logger.exception("a request failed inside the server")
            if not started:
                detail = f"the server failed to answer; its log tells why, under request {identifier}"
                await problem(500, detail)(scope, receive, send_with_id)
        finally:
            self._metrics.in_flight.dec()
            self._finish(scope, record, time.perf_counter() - began_s)
            request_id.reset(token)

    def _finish(self, scope: Scope, record: Record, seconds: float) -> None:
        route = scope.get("octet.route") or getattr(scope.get("route"), "path_format", "unmatched")
        self._metrics.requests.labels(record.model, record.version, route, str(record.status)).inc()
        self._metrics.request_seconds.labels(record.model, record.version, route).observe(seconds)
        fields = {
            "method": scope["method"],
            "path": quote(scope["path"], safe="/:"),  # a line break in it must not forge a line
            "status": record.status,
            "milliseconds": round(seconds * 1e3, 2),
        }
        message = "%(method)s %(path)s %(status)s %(milliseconds).2f ms"
        logger.info(message, fields, extra={"fields": fields})
