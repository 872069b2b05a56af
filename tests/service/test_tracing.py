from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from service.rpc import open_inference_pb2 as pb
from tests.conftest import LiveServer, running_service

LIMIT_S = 20
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = PARENT[:-2] + "00"
PIXELS = np.zeros((3, 4, 4), np.uint8)
HEADERS = {"content-type": "application/octet-stream", "x-tensor-shape": "3,4,4"}
PREDICT = "/v1/models/tiny-image:predict"


class Receiver:
    """What an OTLP collector is: it takes spans over HTTP."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["content-length"]))
                receiver.take(ExportTraceServiceRequest.FromString(content))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1/traces"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, request: ExportTraceServiceRequest) -> None:
        for each in request.resource_spans:
            self.services |= {
                found.value.string_value for found in each.resource.attributes if found.key == "service.name"
            }
            for scope in each.scope_spans:
                self.spans += scope.spans

    def trace(self, identifier: str, parts: int) -> dict[str, Span]:
        """Wait for all spans of a trace; return them by name."""
        end_s = time.monotonic() + LIMIT_S
        while time.monotonic() < end_s:
            found = {span.name: span for span in self.spans if span.trace_id.hex() == identifier}
            if len(found) == parts:
                return found
            time.sleep(0.02)
        raise AssertionError(f"{identifier} has not {parts} spans: {self.spans}")


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()


@pytest.fixture(scope="module")
def server(repository: Path, receiver: Receiver) -> Iterator[LiveServer]:
    environment = {"OTEL_BSP_SCHEDULE_DELAY": "50"}
    arguments = ("--models", str(repository), "--traces-url", receiver.url, "--log-format", "json")
    with running_service(*arguments, environment=environment) as server:
        yield server


def attributes(span: Span) -> dict[str, object]:
    return {
        each.key: getattr(each.value, each.value.WhichOneof("value") or "string_value")
        for each in span.attributes
    }


# The routes alone compress.
@pytest.mark.parametrize("coding", ["identity", "gzip"], ids=["lane", "routes"])
def test_a_request_and_its_parts_are_spans(server: LiveServer, receiver: Receiver, coding: str) -> None:
    headers = {**HEADERS, "accept-encoding": coding, "x-request-id": "mine"}
    answer = httpx.post(server.url + PREDICT, content=PIXELS.tobytes(), headers=headers)
    assert answer.headers.get("content-encoding", "identity") == coding
    identifier = answer.headers["x-trace-id"]
    assert re.fullmatch("[0-9a-f]{32}", identifier)
    found = receiver.trace(identifier, 6)
    (whole,) = [span for span in found.values() if not span.parent_span_id]
    assert (whole.kind, whole.name) == (Span.SPAN_KIND_SERVER, "POST /v1/models/{name}:predict")
    told = attributes(whole)
    assert told["http.response.status_code"] == 200
    assert told["octet.request_id"] == "mine"
    assert (told["octet.model"], told["octet.version"]) == ("tiny-image", "2")
    parts = [found[name] for name in ("read", "queue", "batch", "run", "reply")]
    assert all(part.parent_span_id == whole.span_id for part in parts)
    assert attributes(found["run"])["octet.rows"] == 3
    times = [moment for part in parts for moment in (part.start_time_unix_nano, part.end_time_unix_nano)]
    slack_ns = 1_000  # of rounding
    assert all(later >= earlier - slack_ns for earlier, later in pairwise(times))
    assert whole.start_time_unix_nano <= times[0] + slack_ns
    assert times[-1] <= whole.end_time_unix_nano + slack_ns
    assert abs(whole.end_time_unix_nano - time.time_ns()) < LIMIT_S * 1e9


@pytest.mark.parametrize("body", [PIXELS.tobytes(), b"short"], ids=["answered", "refused"])
def test_a_callers_trace_is_gone_on_with(server: LiveServer, receiver: Receiver, body: bytes) -> None:
    identifier = PARENT.split("-")[1]
    receiver.spans.clear()
    answer = httpx.post(server.url + PREDICT, content=body, headers={**HEADERS, "traceparent": PARENT})
    assert answer.headers["x-trace-id"] == identifier
    found = receiver.trace(identifier, 6 if answer.status_code == 200 else 1)
    whole = next(span for span in found.values() if span.kind == Span.SPAN_KIND_SERVER)
    assert whole.parent_span_id.hex() == PARENT.split("-")[2]


def test_a_caller_can_decide_not_to_be_traced(server: LiveServer, receiver: Receiver) -> None:
    receiver.spans.clear()
    httpx.post(server.url + PREDICT, content=PIXELS.tobytes(), headers={**HEADERS, "traceparent": UNSAMPLED})
    answer = httpx.get(server.url + "/v1/models", headers={"traceparent": "nonsense"})
    found = receiver.trace(answer.headers["x-trace-id"], 1)
    assert list(found) == ["GET /v1/models"]
    assert len(receiver.spans) == 1
    assert receiver.services == {"octet"}


def test_the_log_names_the_trace(server: LiveServer) -> None:
    answer = httpx.get(server.url + "/v1/models")
    server.wait_for(f'"trace_id":"{answer.headers["x-trace-id"]}"')


def test_calls_of_grpc_are_traced(server: LiveServer, receiver: Receiver) -> None:
    address = server.wait_for(r"listening on grpc://([^\s\"]+)")[1]
    request = pb.ModelInferRequest(
        model_name="tiny-image",
        inputs=[pb.ModelInferRequest.InferInputTensor(name="pixels", datatype="UINT8", shape=(3, 4, 4))],
        raw_input_contents=[PIXELS.tobytes()],
    )
    with grpc.insecure_channel(address) as channel:
        ask = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            pb.ModelInferRequest.SerializeToString,
            pb.ModelInferResponse.FromString,
        )
        _, call = ask.with_call(request, metadata=(("traceparent", PARENT[:-4] + "1-01"),))
    identifier = dict(call.trailing_metadata())["x-trace-id"]
    found = receiver.trace(identifier, 6)
    assert "GRPC ModelInfer" in found


def test_a_receiver_that_is_not_there_harms_nobody(repository: Path) -> None:
    nowhere = "http://127.0.0.1:9/v1/traces"
    with running_service("--models", str(repository), "--traces-url", nowhere) as server:
        for _ in range(3):
            answer = httpx.post(server.url + PREDICT, content=PIXELS.tobytes(), headers=HEADERS)
            assert answer.status_code == 200
        server.process.send_signal(2)
        assert server.process.wait(LIMIT_S) == 0


@pytest.mark.parametrize("url", ["collector:4318", "ftp://collector"])
def test_what_is_no_url_is_refused(repository: Path, url: str) -> None:
    with running_service("--traces-url", url, wait=False) as server:
        assert server.process.wait(LIMIT_S) == 2
        server.wait_for("error: setting traces_url: .*must be a URL")
