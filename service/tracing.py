"""Traces: what became of a request and when, as OpenTelemetry spans sent by OTLP. Off unless asked for.

The span of a request begins with it, so that its id can stand in the answer and the log. What happened
inside is known only when it is over, so its parts (read, queue, batch, run, reply) are told afterwards, with
the times that were taken anyway.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

from service.record import Record
from service.trace import PARENT_HEADER, Trace

# How long a stop waits for the last spans to be sent.
_LAST_SPANS_S = 2.0


class Tracing:
    """Makes traces and sends them, from a thread of its own and many at once.

    Args:
        url: of an OTLP receiver over HTTP, such as `http://collector:4318/v1/traces`.
        share: of the requests whose callers have not decided whether they are traced.
    """

    def __init__(self, url: str, share: float) -> None:
        # An extra of its own, which takes its time to import.
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES beat what stands here.
        resource = Resource.create({SERVICE_NAME: "octet"} if "OTEL_SERVICE_NAME" not in os.environ else {})
        self._provider = TracerProvider(
            sampler=ParentBasedTraceIdRatio(share), resource=resource, shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url)))
        self._tracer = self._provider.get_tracer("octet")
        self._read_parent = TraceContextTextMapPropagator().extract
        self._within = set_span_in_context
        self._server = SpanKind.SERVER
        self._failed = Status(StatusCode.ERROR)

    def begin(self, record: Record, parent: str) -> Trace:
        """Begin the trace of a request, or a part of its caller's.

        Args:
            parent: the header `traceparent` as it was sent, maybe empty; one without sense is ignored.
        """
        context = self._read_parent({PARENT_HEADER: parent}) if parent else None
        epoch_ns = time.time_ns() - time.perf_counter_ns()
        began_ns = epoch_ns + round(record.began_s * 1e9)
        span = self._tracer.start_span(record.method, context, self._server, start_time=began_ns)
        return Trace(span, epoch_ns)

    def finish(self, record: Record, trace: Trace) -> None:
        """End the trace of a request that is answered, and tell its parts."""
        span = trace.span
        ended_s = record.began_s + record.seconds
        if span.is_recording():
            span.update_name(f"{record.method} {record.route}")
            span.set_attributes(
                {
                    "http.request.method": record.method,
                    "http.route": record.route,
                    "http.response.status_code": record.status,
                    "octet.request_id": record.request_id,
                    "octet.model": record.model,
                    "octet.version": record.version,
                }
            )
            if record.status >= 500:
                span.set_status(self._failed)
            within = self._within(span)
            for name, begin_s, end_s, rows in _parts(record.began_s, ended_s, trace):
                attributes = {"octet.rows": rows} if rows else None
                part = self._tracer.start_span(
                    name, within, attributes=attributes, start_time=trace.wall_ns(begin_s)
                )
                part.end(trace.wall_ns(end_s))
        span.end(trace.wall_ns(ended_s))

    def stop(self) -> None:
        """Send what is left and end; a receiver that does not answer is not waited for."""
        ending = threading.Thread(target=self._provider.shutdown, daemon=True)
        ending.start()
        ending.join(_LAST_SPANS_S)


def _parts(began_s: float, ended_s: float, trace: Trace) -> Iterator[tuple[str, float, float, int]]:
    """Name, begin and end by `time.perf_counter()`, and rows of each part that took place."""
    if trace.submitted_s is None:
        return
    yield "read", began_s, trace.submitted_s, 0
    if not trace.runs:
        return
    yield "queue", trace.submitted_s, max(trace.submitted_s, min(run.began_s for run in trace.runs)), 0
    last_s = trace.submitted_s
    for run in trace.runs:
        collated_s = run.began_s + run.collate_s
        yield "batch", run.began_s, collated_s, run.rows
        yield "run", collated_s, collated_s + run.run_s, run.rows
        last_s = max(last_s, collated_s + run.run_s)
    yield "reply", last_s, max(last_s, ended_s), 0
