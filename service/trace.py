"""The trace of one request: what is noted of it while it is answered; `service.tracing` makes spans of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bundle.answer import Answer, Run

if TYPE_CHECKING:
    from opentelemetry.trace import Span

# The header of HTTP, and the metadata of gRPC, by which a caller says whose part its request is.
PARENT_HEADER = "traceparent"
# The one that tells it the id of the trace.
TRACE_HEADER = "x-trace-id"


class Trace:
    """The trace of one request.

    Attributes:
        id: 32 hexadecimal digits.
        epoch_ns: nanoseconds since the epoch when `time.perf_counter()` was 0; one for the whole trace, so
            that its parts follow one another.
        span: of the whole request.
        submitted_s: `time.perf_counter()` when its rows were queued; None where none were.
        runs: that its rows were in.
    """

    __slots__ = ("epoch_ns", "id", "runs", "span", "submitted_s")

    def __init__(self, span: Span, epoch_ns: int) -> None:
        self.span = span
        self.epoch_ns = epoch_ns
        self.id = f"{span.get_span_context().trace_id:032x}"
        self.submitted_s: float | None = None
        self.runs: list[Run] = []

    def wall_ns(self, moment_s: float) -> int:
        """Return the nanoseconds since the epoch of a moment by `time.perf_counter()`."""
        return self.epoch_ns + round(moment_s * 1e9)

    def submit(self) -> None:
        """Note that the rows are queued now."""
        self.submitted_s = time.perf_counter()

    def answered(self, answers: Sequence[Answer]) -> None:
        """Note which runs gave the answers."""
        self.runs = list({id(each.run): each.run for each in answers}.values())
