"""The fast lane: plain calls that run a model are answered right where their bytes arrive.

uvicorn makes a scope, a cycle and a task for every request and hands it through the layers of the framework,
which takes longer than everything that this service does with a small one. So its protocol is taught to
recognise the calls that run a model by their head. What is plain goes through the lane: whole
bodies of known length to known models, one at a time on a connection. Everything else, and whatever the lane
would have to refuse by the head alone, goes the usual way to the routes. Both use
the same functions for reading, running and rendering; one test suite runs against both.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from typing import Any

from starlette.datastructures import State
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from bundle.answer import Answer
from service.api.answering import late
from service.api.calls import Question, Sent
from service.api.heads import Head, Heads
from service.api.problems import CALLER_GONE
from service.errors import (
    BodyTimeoutError,
    ModelNotReadyError,
    UnknownModelError,
    UnsupportedMediaError,
)
from service.ledger import Ledger
from service.logs import request_id
from service.metrics import Metrics
from service.record import Record, choose_id
from service.registry import Registry, Served
from service.settings import Settings
from service.trace import TRACE_HEADER


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

    def admit(self, head: Head, protocol: LaneProtocol) -> _Call | None:
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
        return _Call(self, protocol, head, served, record)


class LaneProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 over a connection, with the lane beside it.

    uvicorn makes one for each connection, through `functools.partial(LaneProtocol, lane)`. It keeps the call
    in the place of its own request-response cycle, and asks of that what `_Call` has.
    """

    def __init__(self, lane: Lane, **options: Any) -> None:
        super().__init__(**options)
        self._lane = lane
        self._call: _Call | None = None
        self._between_messages = True
        self._raw_head = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin."""
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        self._count_connections()

    def connection_lost(self, exc: Exception | None) -> None:
        """End; nobody waits for the call any more."""
        if self._call is not None:
            self._call.abandon()
        if isinstance(self.cycle, _Call):  # it has no more of a cycle than `_Call` says
            self.cycle = None  # type: ignore[assignment]
        super().connection_lost(exc)
        self._count_connections()
        if (intake := self._lane.state.intake) is not None:
            intake.ended()

    def data_received(self, data: bytes) -> None:
        """Take a call whose head is known as it is; have everything else parsed."""
        self._raw_head = b""
        if self._between_messages:
            self._raw_head = data[: data.find(b"\r\n\r\n") + 4]
            head = self._lane.heads.recall(self._raw_head)
            if head is not None and len(data) == len(self._raw_head) + head.length and self._is_free():
                call = self._lane.admit(head, self)
                if call is not None:
                    self._unset_keepalive_if_required()
                    self.cycle = self._call = call  # type: ignore[assignment]
                    call.chunks.append(data[-head.length :] if head.length else b"")
                    call.run()
                    return
        super().data_received(data)
        if self._call is not None:
            self._call.limit_body_time()

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._between_messages = False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Choose the way of a request."""
        self._unset_keepalive_if_required()  # it is set where another one of this packet was answered already
        call = None
        if self._is_free() and self._is_plain():
            head = self._lane.heads.read(self.url, self.headers)
            if head is not None:
                self._lane.heads.remember(self._raw_head, len(self.headers), head)
                call = self._lane.admit(head, self)
        self._raw_head = b""  # what follows in the same packet is another's
        if call is None:
            super().on_headers_complete()
        else:
            self.cycle = self._call = call  # type: ignore[assignment]

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        if isinstance(self.cycle, _Call):
            self.cycle.chunks.append(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Take the end of a request."""
        self._between_messages = True
        if isinstance(self.cycle, _Call):
            self.cycle.run()
        else:
            super().on_message_complete()

    def leave(self) -> None:
        """The call is answered; go on with the connection."""
        self._call = None
        self.on_response_complete()

    def _is_free(self) -> bool:
        """Whether no other request is in work and no answers pile up unread; uvicorn queues those."""
        return (self.cycle is None or self.cycle.response_complete) and not self.flow.write_paused

    def _is_plain(self) -> bool:
        """Whether a head that was just parsed is one for the lane, as far as the parser can tell."""
        return (
            self.parser.get_method() == b"POST"
            and self.parser.should_keep_alive()
            and self.parser.get_http_version() == "1.1"
        )

    def _count_connections(self) -> None:
        metrics: Metrics = self._lane.state.metrics
        metrics.connections.set(len(self.connections))


class _Flow(FlowControl):
    """Leaves unread what a caller goes on to send while requests of it wait in uvicorn's pipeline.

    Otherwise everyone who is answered, or asks whether its caller is there, resumes the reading, and the
    pipeline of a caller that never reads has no bound.
    """

    def __init__(self, transport: asyncio.Transport, pipeline: Collection[object]) -> None:
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        if not self._pipeline:
            super().resume_reading()


class _Call:
    """One call in the lane, from its head to its answer.

    Attributes:
        response_complete, keep_alive: what uvicorn's protocol asks of a cycle; it clears `keep_alive` when
            the server stops.
        chunks: of the body.
    """

    def __init__(
        self,
        lane: Lane,
        protocol: LaneProtocol,
        head: Head,
        served: Served,
        record: Record,
    ) -> None:
        self.response_complete = False
        self.keep_alive = True
        self.chunks: list[bytes] = []
        self._lane = lane
        self._protocol = protocol
        self._head = head
        self._served = served
        self._record = record
        self._timer: asyncio.TimerHandle | None = None
        self._work: asyncio.Future[Any] | None = None
        self._question: Question | None = None
        self._whole = False
        lane.ledger.begin(record, head.parent)

    def limit_body_time(self) -> None:
        """Give the rest of the body its time, when it did not come with the head."""
        if self._timer is None and not self._whole:
            settings = self._lane.settings
            error = BodyTimeoutError(f"the body did not arrive within {settings.body_timeout_s:g} s")
            self._set_timer(settings.body_timeout_s, error)

    def run(self) -> None:
        """Read the rows out of the whole body and queue them."""
        if self.response_complete:  # it came too late
            return
        self._whole = True
        head = self._head
        expires_s = time.monotonic() + head.timeout_s
        try:
            self._set_timer(head.timeout_s, late(head.timeout_s))
            call, body = head.target.call, b"".join(self.chunks)
            sent = Sent(body, head.media_type, head.shape, head.header_length, expires_s)
            arguments = (self._served, sent, self._lane.limits)
            if call.is_quick(sent):
                self._submit(call.read(*arguments))
            else:
                loop = self._protocol.loop
                self._work = loop.run_in_executor(self._lane.state.decoders, call.read, *arguments)
                self._work.add_done_callback(self._submit_decoded)
        except Exception as error:  # noqa: BLE001 - the border: whatever it is, the caller gets an answer
            self._refuse(error)

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
        if question.timeout_s is not None and question.timeout_s < self._head.timeout_s:
            self._set_timer(question.timeout_s, late(question.timeout_s))
        self._work = self._served.batcher.submit(question.rows, question.priority)
        self._work.add_done_callback(self._answer)

    def _answer(self, work: asyncio.Future[list[Answer]]) -> None:
        if self.response_complete:
            return
        if work.cancelled():  # by the end of the server
            self._protocol.transport.close()
            return
        try:
            assert self._question is not None
            answers = work.result()
            if self._record.trace is not None:
                self._record.trace.answered(answers)
            reply = self._question.reply(answers)
            headers = b"content-type: %b\r\n" % reply.media_type.encode()
            for name, value in reply.headers:
                headers += b"%b: %b\r\n" % (name.encode(), value.encode())
            self._respond(200, headers, reply.body)
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
        protocol, transport = self._protocol, self._protocol.transport
        if self._lane.state.draining:  # a kept connection would be cut when the port closes
            self.keep_alive = False
        parts = [STATUS_LINE[status]]
        parts += [b"%b: %b\r\n" % header for header in protocol.server_state.default_headers]
        parts.append(headers)
        if not self.keep_alive and b"connection: close" not in headers:
            parts.append(b"connection: close\r\n")
        if self._record.trace is not None:
            parts.append(b"%b: %b\r\n" % (TRACE_HEADER.encode(), self._record.trace.id.encode()))
        identifier = self._record.request_id.encode()
        parts.append(b"content-length: %d\r\nx-request-id: %b\r\n\r\n" % (len(body), identifier))
        parts.append(body)
        transport.write(b"".join(parts))
        self._finish(status)
        if not self.keep_alive:
            transport.close()
        protocol.leave()

    def _finish(self, status: int) -> None:
        self.response_complete = True
        if self._timer is not None:
            self._timer.cancel()
        if self._work is not None:
            self._work.cancel()
        self._record.status = status
        self._lane.ledger.finish(self._record)

    def _set_timer(self, seconds: float, error: Exception) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._protocol.loop.call_later(seconds, self._refuse, error)
