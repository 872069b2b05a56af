"""The fast lane: plain calls that run a model are answered right where their bytes arrive.

It uses the same functions for reading, running and rendering as the routes do; one test suite runs against
both.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import Protocol

from starlette.datastructures import State
from uvicorn.protocols.http.httptools_impl import STATUS_LINE
from uvicorn.server import ServerState

from bundle.answer import Answer
from service.api.answering import late
from service.api.calls import Question, Sent
from service.api.heads import Head, Heads
from service.api.problems import CALLER_GONE
from service.deadlines import Deadlines
from service.errors import (
    BodyTimeoutError,
    ModelNotReadyError,
    UnknownModelError,
    UnsupportedMediaError,
)
from service.ledger import Ledger
from service.logs import request_id
from service.record import Record, choose_id
from service.registry import Registry, Served
from service.settings import Settings
from service.ticket import Asked, Outcome
from service.trace import TRACE_HEADER


class Connection(Protocol):
    """What is used of the connection on which a call came."""

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    server_state: ServerState

    def leave(self) -> None:
        """Go on: the call is answered."""


class Lane:
    """Admits calls to the lane.

    Args:
        state: of the application: its settings, registry, ledger, metrics, decoders, and whether it drains.
    """

    def __init__(self, state: State) -> None:
        self.state = state
        self.settings: Settings = state.settings
        self.limits = self.settings.limits
        self.ledger: Ledger = state.ledger
        self.registry: Registry = state.registry
        self.heads = Heads(self.settings, state.api_keys)
        self.deadlines = Deadlines()
        self._usual: list[tuple[bytes, bytes]] = []
        self._usual_lines = b""

    def usual_lines(self, headers: list[tuple[bytes, bytes]]) -> bytes:
        """Return the headers of every answer as they go over the wire; uvicorn has others each second."""
        if headers is not self._usual:
            self._usual, self._usual_lines = headers, b"".join(b"%b: %b\r\n" % header for header in headers)
        return self._usual_lines

    def admit(self, head: Head, connection: Connection) -> LaneCall | None:
        """Return a call, or None where it would be refused, which is said the usual way."""
        if self.state.draining:
            return None
        target = head.target
        try:
            served = self.registry.choose(target.which, head.sent_id)
            target.call.check_media_type(served.predictor.bundle.manifest, head.media_type)
        except (UnknownModelError, ModelNotReadyError, UnsupportedMediaError):
            return None
        identifier = choose_id(head.sent_id)
        record = Record(identifier, "POST", target.log_path, target.route, served.name, served.version)
        record.statistics = served.statistics
        record.key = head.key_name
        return LaneCall(self, connection, head, served, record)


class LaneCall:
    """One call in the lane, from its head to its answer.

    Attributes:
        response_complete, keep_alive: what uvicorn's protocol asks of a cycle; it clears `keep_alive` when
            the server stops.
        chunks: of the body.
        due_s: `time.monotonic()` until which the body, or once it is whole the answer, has time.
    """

    __slots__ = (
        "_connection", "_head", "_lane", "_question", "_record", "_served", "_timeout_s", "_whole", "_work",
        "chunks", "due_s", "keep_alive", "response_complete",
    )  # fmt: skip

    def __init__(
        self,
        lane: Lane,
        connection: Connection,
        head: Head,
        served: Served,
        record: Record,
    ) -> None:
        self.response_complete = False
        self.keep_alive = True
        self.chunks: list[bytes] = []
        self._lane = lane
        self._connection = connection
        self._head = head
        self._served = served
        self._record = record
        self.due_s = math.inf
        self._timeout_s = head.timeout_s
        self._work: Asked | asyncio.Future[Question] | None = None
        self._question: Question | None = None
        self._whole = False
        lane.ledger.begin(record, head.parent)

    def limit_body_time(self) -> None:
        """Give the rest of the body its time, when it did not come with the head."""
        if self.due_s == math.inf:
            self._give_time(self._lane.settings.body_timeout_s)

    def run(self) -> None:
        """Read the rows out of the whole body and queue them."""
        if self.response_complete:  # it came too late
            return
        self._whole = True
        head = self._head
        self._give_time(head.timeout_s)
        try:
            call, body = head.target.call, b"".join(self.chunks)
            sent = Sent(body, head.media_type, head.shape, head.header_length, self.due_s)
            arguments = (self._served, sent, self._lane.limits)
            if call.is_quick(sent):
                self._submit(call.read(*arguments))
            else:
                loop = self._connection.loop
                decoded = loop.run_in_executor(self._lane.state.decoders, call.read, *arguments)
                decoded.add_done_callback(self._submit_decoded)
                self._work = decoded
        except Exception as error:  # noqa: BLE001 - the border: whatever it is, the caller gets an answer
            self._refuse(error)

    def expire(self) -> None:
        """Refuse: the body or the answer has taken too long."""
        if self._whole:
            self._refuse(late(self._timeout_s))
        else:
            limit_s = self._lane.settings.body_timeout_s
            self._refuse(BodyTimeoutError(f"the body did not arrive within {limit_s:g} s"))

    def abandon(self) -> None:
        """Drop the work: the caller has gone."""
        if not self.response_complete:
            self._finish(CALLER_GONE)

    def _submit_decoded(self, decoded: asyncio.Future[Question]) -> None:
        if self.response_complete or decoded.cancelled():
            return
        try:
            self._submit(decoded.result())
        except Exception as error:  # noqa: BLE001 - as above
            self._refuse(error)

    def _submit(self, question: Question) -> None:
        self._question = question
        if self._record.trace is not None:
            self._record.trace.submit()
        if question.timeout_s is not None and question.timeout_s < self._timeout_s:
            self._timeout_s = question.timeout_s
            self._give_time(question.timeout_s)
        self._work = self._served.batcher.ask(question.rows, self._answer, question.priority)

    def _answer(self, outcome: Outcome[Answer]) -> None:
        """Answer with what came of the rows. The batcher calls it, but not once this is over."""
        self._work = None
        if isinstance(outcome, asyncio.CancelledError):  # by the end of the server
            self._connection.transport.close()
            return
        if isinstance(outcome, Exception):
            self._refuse(outcome)
            return
        try:
            assert self._question is not None
            if self._record.trace is not None:
                self._record.trace.answered(outcome)
            reply = self._question.reply(outcome)
            headers = f"content-type: {reply.media_type}\r\n"
            for name, value in reply.headers:
                headers += f"{name}: {value}\r\n"
            self._respond(200, headers.encode(), reply.body)
        except Exception as error:  # noqa: BLE001 - as above
            self._refuse(error)

    def _refuse(self, error: Exception) -> None:
        token = request_id.set(self._record.request_id)
        response = self._head.target.call.refuse(error)
        request_id.reset(token)
        headers = [
            b"%b: %b\r\n" % header for header in response.raw_headers if header[0] != b"content-length"
        ]
        self.keep_alive = self.keep_alive and (b"connection", b"close") not in response.raw_headers
        self._respond(response.status_code, b"".join(headers), bytes(response.body))

    def _respond(self, status: int, headers: bytes, body: bytes) -> None:
        connection, transport = self._connection, self._connection.transport
        if self._lane.state.draining:  # a kept connection would be cut when the port closes
            self.keep_alive = False
        if not self.keep_alive and b"connection: close" not in headers:
            headers += b"connection: close\r\n"
        if self._record.trace is not None:
            headers += b"%b: %b\r\n" % (TRACE_HEADER.encode(), self._record.trace.id.encode())
        start = STATUS_LINE[status] + self._lane.usual_lines(connection.server_state.default_headers)
        own = b"content-length: %d\r\nx-request-id: %b\r\n" % (len(body), self._record.request_id.encode())
        transport.write(b"%b%b%b\r\n%b" % (start, headers, own, body))
        self._finish(status)
        if not self.keep_alive:
            transport.close()
        connection.leave()

    def _finish(self, status: int) -> None:
        self.response_complete = True
        self._lane.deadlines.discard(self)
        if self._work is not None:
            self._work.cancel()
            self._work = None
        self._record.status = status
        self._lane.ledger.finish(self._record)

    def _give_time(self, seconds: float) -> None:
        self.due_s = time.monotonic() + seconds
        self._lane.deadlines.add(self)
