"""What callers see of the stack: through nginx, over TLS, with keys."""

from __future__ import annotations

import json
import subprocess

import grpc
import httpx
import pytest

from service.rpc import open_inference_pb2 as messages
from tests.deploy.conftest import PREDICT
from tests.deploy.stack import KEYS, Stack, docker, health, wait_until

pytestmark = pytest.mark.deploy

CONFIDENCE = "/v1/models/spoken-digits-lstm:confidence"


def test_a_digit_is_recognised_over_http2(stack: Stack, digit: bytes) -> None:
    with stack.client() as client:
        answer = client.post(PREDICT, content=digit, headers={"content-type": "image/png"})
    assert answer.http_version == "HTTP/2"
    assert answer.status_code == 200, answer.text
    assert answer.json()["predictions"][0]["label"] == "7"


def test_a_spoken_digit_is_recognised_over_http1(stack: Stack, sound: bytes) -> None:
    with stack.client(http2=False) as client:
        answer = client.post(CONFIDENCE, content=sound, headers={"content-type": "audio/wav"})
    assert answer.http_version == "HTTP/1.1"
    assert answer.json()["results"][0]["label"] == "7"


def test_grpc_passes(stack: Stack) -> None:
    credentials = grpc.ssl_channel_credentials(stack.certificate.read_bytes())
    address = f"localhost:{stack.ports['PROXY_HTTPS_PORT']}"
    pixels = messages.ModelInferRequest.InferInputTensor(name="pixels", datatype="UINT8", shape=[1, 28, 28])
    request = messages.ModelInferRequest(
        model_name="mnist-cnn", inputs=[pixels], raw_input_contents=[bytes(784)]
    )
    metadata = (("authorization", f"Bearer {KEYS['predict']}"),)
    with grpc.secure_channel(address, credentials) as channel:
        infer = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=messages.ModelInferRequest.SerializeToString,
            response_deserializer=messages.ModelInferResponse.FromString,
        )
        assert infer(request, timeout=10, metadata=metadata).outputs[0].shape[-1] == 10
        with pytest.raises(grpc.RpcError) as refused:
            infer(request, timeout=10)
        assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
        unload = channel.unary_unary(
            "/inference.GRPCInferenceService/RepositoryModelUnload",
            request_serializer=messages.RepositoryModelUnloadRequest.SerializeToString,
            response_deserializer=messages.RepositoryModelUnloadResponse.FromString,
        )
        with pytest.raises(grpc.RpcError) as closed:
            unload(messages.RepositoryModelUnloadRequest(model_name="mnist-cnn"), timeout=10)
        assert closed.value.code() == grpc.StatusCode.PERMISSION_DENIED


def test_plain_http_leads_to_tls(stack: Stack) -> None:
    port = stack.ports["PROXY_HTTP_PORT"]
    answer = httpx.post(f"http://localhost:{port}{PREDICT}?top=2")
    assert answer.status_code == 308
    assert answer.headers["location"] == f"{stack.url}{PREDICT}?top=2"


def test_a_call_needs_a_key(stack: Stack, digit: bytes) -> None:
    with stack.client(role=None) as client:
        answer = client.post(PREDICT, content=digit, headers={"content-type": "image/png"})
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == 401


@pytest.mark.parametrize("path", [PREDICT, "/v2/models/mnist-cnn/infer"])
def test_a_body_over_the_limit_is_refused_in_the_services_form(stack: Stack, path: str) -> None:
    with stack.client(http2=False) as client:
        answer = client.post(path, content=bytes(16_777_217), headers={"content-type": "image/png"})
        largest = client.post(path, content=bytes(16_777_216), headers={"content-type": "image/png"})
    assert answer.status_code == 413
    assert largest.status_code == 400  # it is let through, and is no image
    if path == PREDICT:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json().keys() == largest.json().keys()
    else:
        assert answer.json().keys() == {"error"}


@pytest.mark.parametrize(
    "path",
    [
        "/metrics", "//metrics", "/%6detrics", "/v1/../metrics", "/metrics?x=1",
        "/v1/models/mnist-cnn/serving", "/v1/models/mnist-cnn%2Fserving", "/v2/repository/index",
        "/v1/models/mnist-cnn/review",
        "/v1/models/mnist-cnn/review:export", "/v1/models/mnist-cnn/review/1",
        "/v2/repository/models/mnist-cnn/unload",
        "/v2//repository/models/mnist-cnn/load", "/nothing",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
def test_what_is_for_operators_is_closed(stack: Stack, path: str, method: str) -> None:
    command = [
        "curl", "--silent", "--path-as-is", "--cacert", str(stack.certificate), "--request", method,
        "--header", f"Authorization: Bearer {KEYS['admin']}", "--write-out", "\n%{http_code}",
        stack.url + path,
    ]  # fmt: skip
    body, status = subprocess.run(command, capture_output=True, text=True, check=True).stdout.rsplit("\n", 1)
    assert status == "404"
    assert json.loads(body)["error"] == "there is nothing at this path"


def test_every_answer_has_the_security_headers(stack: Stack) -> None:
    with stack.client() as client:
        for path in ("/readyz", "/docs", "/metrics", "/v1/models"):
            headers = client.get(path).headers
            assert headers.get_list("x-content-type-options") == ["nosniff"], path
            assert len(headers.get_list("content-security-policy")) == 1, path
            assert "frame-ancestors 'none'" in headers["content-security-policy"], path
            assert headers["strict-transport-security"]
            assert headers["server"] == "nginx"  # without its version


def test_one_id_stands_in_the_answer_and_in_both_logs(stack: Stack, digit: bytes) -> None:
    headers = {"content-type": "image/png", "x-request-id": "find-me-17"}
    with stack.client() as client:
        answer = client.post(PREDICT, content=digit, headers=headers)
        forged = client.get("/readyz", headers={"x-request-id": 'x" forged'})
    assert answer.headers.get_list("x-request-id") == ["find-me-17"]
    assert len(forged.headers["x-request-id"]) == 32
    (front,) = [line for line in _lines(stack, "nginx") if line.get("request_id") == "find-me-17"]
    (service,) = [line for line in _lines(stack, "service") if line.get("request_id") == "find-me-17"]
    assert front["status"] == service["status"] == 200
    assert front["path"] == service["path"] == PREDICT
    assert front["replica"].endswith(":8000")


def test_too_many_calls_of_one_client_are_refused(stack: Stack) -> None:
    """Asked of a second front, whose limit is so small that a few calls at once are too many."""
    options = ("--detach", "--no-deps", "--env", "PROXY_RATE=1", "--env", "PROXY_BURST=1")
    name = stack.compose("run", *options, "nginx").split()[-1]
    addresses = [f"https://127.0.0.1:8443{path}" for path in ["/v2/health/ready"] * 5 + ["/readyz"] * 5]
    try:
        wait_until(lambda: health(name) == "healthy", "the second front is healthy")
        text = docker("exec", name, "curl", "--silent", "--insecure", "--include", "--http1.1", *addresses)
    finally:
        docker("rm", "--force", name)
    answers = [part.split("\n\n") for part in text.split("HTTP/1.1 ")[1:]]
    assert answers[0][0].startswith("200")
    refused = [(head, json.loads(body)) for head, body in answers if head.startswith("429")]
    assert all("\nRetry-After: 1\n" in head for head, _ in refused)
    assert [body.keys() for head, body in refused if "application/json" in head] == [{"error"}] * 3
    problems = [body for head, body in refused if "application/problem+json" in head]
    assert len(problems) == 5
    assert problems[0]["status"] == 429
    assert problems[0]["request_id"]


def _lines(stack: Stack, service: str) -> list[dict[str, object]]:
    """The JSON lines that the containers of a service have logged."""
    done = []
    for name in stack.replicas(service):
        done.append(docker("logs", "--since", "1m", name, streams=True))
    return [json.loads(line) for text in done for line in text.splitlines() if line.startswith("{")]
