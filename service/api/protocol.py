"""The protocol: uvicorn's HTTP/1.1 over a connection, with the lane for plain calls beside it.

uvicorn makes a scope, a cycle and a task for every request and hands it through the layers of the framework,
which takes longer than everything that this service does with a small one. So its protocol is taught to
recognise the calls that run a model by their head. What is plain goes through the lane: whole bodies of known
length to known models, one at a time on a connection. Everything else, and whatever the lane would have to
refuse by the head alone, goes the usual way to the routes.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.api.lane import Lane, LaneCall
from service.metrics import Metrics


class LaneProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 over a connection, with the lane beside it.

    uvicorn makes one for each connection, through `functools.partial(LaneProtocol, lane)`. It keeps the call
    in the place of its own request-response cycle, and asks of that what `LaneCall` has.
    """

    def __init__(self, lane: Lane, **options: Any) -> None:
        super().__init__(**options)
        self._lane = lane
        self._call: LaneCall | None = None
        self._between_messages = True
        self._raw_head = b""
        self._idle_since_s = math.inf  # on the loop's clock; infinite while the connection is not idle

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin."""
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        self._count_connections()

    def connection_lost(self, exc: Exception | None) -> None:
        """End; nobody waits for the call any more."""
        if self._call is not None:
            self._call.abandon()
        if isinstance(self.cycle, LaneCall):  # it has no more of a cycle than `LaneCall` says
            self.cycle = None  # type: ignore[assignment]
        super()._unset_keepalive_if_required()
        super().connection_lost(exc)
        self._count_connections()
        if (intake := self._lane.state.intake) is not None:
            intake.ended()

    def data_received(self, data: bytes) -> None:
        """Take a call whose head is known as it is; have everything else parsed."""
        self._raw_head = b""
        self._idle_since_s = math.inf
        if self._between_messages:
            self._raw_head = data[: data.find(b"\r\n\r\n") + 4]
            head = self._lane.heads.recall(self._raw_head)
            if head is not None and len(data) == len(self._raw_head) + head.length and self._is_free():
                call = self._lane.admit(head, self)
                if call is not None:
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
        self._idle_since_s = math.inf  # another one of this packet may have been answered already
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
        if isinstance(self.cycle, LaneCall):
            self.cycle.chunks.append(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Take the end of a request."""
        self._between_messages = True
        if isinstance(self.cycle, LaneCall):
            self.cycle.run()
        else:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Go on with the connection after an answer, as uvicorn does but for the timer."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
            return
        self._idle_since_s = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._watch_idleness(self.timeout_keep_alive)

    def timeout_keep_alive_handler(self) -> None:
        """Hang up if nothing has come for so long, else look again later."""
        idle_s = self.loop.time() - self._idle_since_s
        if idle_s >= self.timeout_keep_alive:
            super().timeout_keep_alive_handler()
        else:
            self._watch_idleness(self.timeout_keep_alive - max(0.0, idle_s))

    def leave(self) -> None:
        """The call is answered; go on with the connection."""
        self._call = None
        self.on_response_complete()

    def _watch_idleness(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _unset_keepalive_if_required(self) -> None:
        """Leave the timer: taking it back with every request and setting it anew costs more than a look."""

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
