"""What every call gets: an id, a log line, a count and a time, and a code and a sentence if it fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from google.protobuf.message import DecodeError, Message
from grpc import StatusCode

from bundle.errors import InputError
from service.api_keys import API_KEY, AUTHORIZATION, ApiKeys, Role, sent_key
from service.errors import RoleError, UnknownKeyError
from service.ledger import Ledger
from service.logs import request_id
from service.record import HEADER, Record, choose_id
from service.rpc.failures import STATUSES, StoppingError, refuse
from service.trace import PARENT_HEADER, TRACE_HEADER

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)


class Context(Protocol):
    """What is used of `grpc.aio.ServicerContext`."""

    def invocation_metadata(self) -> Any:
        """Return the pairs that the caller sent beside its message."""

    def set_trailing_metadata(self, trailing_metadata: tuple[tuple[str, str], ...]) -> None:
        """Set the pairs that go with the status."""

    def time_remaining(self) -> float | None:
        """Return the seconds until the caller's deadline, or None where it set none."""

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Have a function called when the status has been sent, or nobody waits for it."""

    async def abort(self, code: StatusCode, details: str) -> Any:
        """End the call with a failure, by raising."""


@dataclass(slots=True)
class Caller:
    """Who asks, and how long it waits.

    Attributes:
        record: of the call; who answers it fills in the model.
        sent_id: the id that the caller gave; empty where it gave none.
        size_bytes: of its message.
        time_left_s: until its deadline; None where it set none.
    """

    record: Record
    sent_id: str
    size_bytes: int
    time_left_s: float | None


Handle = Callable[[Caller, Request], Awaitable[Response]]


class InFlight:
    """Counts the calls that are being answered, so that a stop can wait for them.

    Attributes:
        closed: set where no more are welcome.
    """

    def __init__(self) -> None:
        self.closed = False
        self._calls = 0
        self._none = asyncio.Event()
        self._none.set()

    def begin(self) -> None:
        """Note that a call has come."""
        self._calls += 1
        self._none.clear()

    def end(self) -> None:
        """Note that its answer has been sent."""
        self._calls -= 1
        if not self._calls:
            self._none.set()

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count a call that lasts as long as the block."""
        self.begin()
        try:
            yield
        finally:
            self.end()

    async def wait_for_none(self) -> None:
        """Wait until every call is answered."""
        await self._none.wait()

    def forget(self) -> None:
        """End all waiting."""
        self._none.set()


class Answering:
    """Answers calls of any kind through the functions that know what they ask.

    Args:
        ledger: gets a record of each.
        in_flight: counts them.
        keys: that their callers need, if any.
    """

    def __init__(self, ledger: Ledger, in_flight: InFlight, keys: ApiKeys) -> None:
        self._ledger = ledger
        self._keys = keys
        self.in_flight = in_flight

    async def answer(
        self,
        path: str,
        kind: type[Request],
        handle: Handle[Request, Response],
        role: Role | None,
        content: bytes,
        context: Context,
    ) -> Response:
        """Answer a call that has one message.

        Args:
            path: "/service/call".
            kind: of the message.
            handle: gives the answer, or raises what `service.rpc.failures` knows.
            role: that a caller's key needs, where keys are needed; None for none.
            content: the message's bytes.
        """
        self.in_flight.begin()
        context.add_done_callback(lambda _: self.in_flight.end())
        with self._recording(path, content, context) as caller:
            try:
                if self.in_flight.closed:
                    raise StoppingError
                self._check_key(caller.record, role, context)
                return await handle(caller, _parse(kind, content))
            except Exception as error:  # noqa: BLE001 - the border: the caller gets a code and the log the trace
                code, detail = refuse(error)
                caller.record.status = STATUSES[code]
            await context.abort(code, detail)
            raise AssertionError("abort has not raised")

    async def answer_part(
        self,
        path: str,
        kind: type[Request],
        handle: Handle[Request, Response],
        role: Role | None,
        content: bytes,
        context: Context,
    ) -> Response | str:
        """Answer one message of a stream; a failure leaves the stream open and is returned as a sentence.

        Who writes the answer counts it as in flight until then.

        Raises:
            UnknownKeyError, RoleError: the caller's key does not allow this.
        """
        with self._recording(path, content, context) as caller:
            try:
                self._check_key(caller.record, role, context)
                return await handle(caller, _parse(kind, content))
            except Exception as error:
                code, detail = refuse(error)
                caller.record.status = STATUSES[code]
                if isinstance(error, UnknownKeyError | RoleError):
                    raise
                return detail

    def _check_key(self, record: Record, role: Role | None, context: Context) -> None:
        if role is not None and self._keys.required:
            sent = {key: str(value) for key, value in context.invocation_metadata()}
            key = self._keys.identify(sent_key(sent.get(AUTHORIZATION), sent.get(API_KEY)))
            record.key = key.name
            key.require(role)

    @contextmanager
    def _recording(self, path: str, content: bytes, context: Context) -> Iterator[Caller]:
        """Give a call its id, and note how it ends."""
        sent = {key: str(value) for key, value in context.invocation_metadata()}
        sent_id = sent.get(HEADER, "")
        route = path.rpartition("/")[2]
        record = Record(choose_id(sent_id), "GRPC", path, route, status=200)
        request_id.set(record.request_id)  # the task is this call's alone
        self._ledger.begin(record, sent.get(PARENT_HEADER, ""))
        told = () if record.trace is None else ((TRACE_HEADER, record.trace.id),)
        context.set_trailing_metadata(((HEADER, record.request_id), *told))
        try:
            yield Caller(record, sent_id, len(content), context.time_remaining())
        except asyncio.CancelledError:
            late = context.time_remaining() == 0
            record.status = STATUSES[StatusCode.DEADLINE_EXCEEDED if late else StatusCode.CANCELLED]
            raise
        finally:
            self._ledger.finish(record)


def _parse(kind: type[Request], content: bytes) -> Request:
    try:
        return kind.FromString(content)
    except DecodeError as error:
        raise InputError(f"the message is not a valid {kind.DESCRIPTOR.name}") from error
