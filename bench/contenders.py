"""What can be put under load: a running server, and the requests that it understands."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.inputs import digits, sounds
from bench.nginx import nginx_before
from bench.octet import ROOT, label_of, label_of_v2, octet
from bench.peers import Peer
from bench.peers.environment import PeerError, prepare, version
from bench.server import BenchError, Server, free_port, running
from bench.wire import (
    CNN,
    CNN_V2,
    JSON,
    LSTM,
    OCTETS,
    binary_request,
    http_request,
    json_request,
    png_request,
    v2_body,
    v2_request,
)
from bundle.predictor import load_predictor

OURS = "octet"
BEHIND_NGINX = "octet behind nginx"


@dataclass(frozen=True)
class Contender:
    """A running server under load.

    Attributes:
        requests: (model, wire) -> whole requests, sent in turn.
    """

    name: str
    processes: int
    server: Server
    requests: Mapping[tuple[str, str], Sequence[bytes]]


@contextmanager
def ours(folder: Path, *flags: str, workers: int = 2, models: Path | None = None) -> Iterator[Contender]:
    """Run this service."""
    with octet(folder, *flags, workers=workers, models=models or ROOT / "models") as server:
        yield Contender(OURS, workers, server, our_requests())


@contextmanager
def ours_behind_nginx(direct: Contender, folder: Path) -> Iterator[Contender]:
    """Run nginx in front of this service."""
    with nginx_before(direct.server.port, folder) as server:
        yield Contender(BEHIND_NGINX, direct.processes, server, direct.requests)


@contextmanager
def rival(peer: Peer, processes: int, folder: Path, environments: Path) -> Iterator[tuple[Contender, str]]:
    """Install and run a peer, and see that it gives the right answers; yield it and its version.

    Raises:
        BenchError: it cannot be installed or started, or answers wrongly.
    """
    model = bundle_of("mnist-cnn") / "model.int8.onnx"
    port = free_port(peer.extra_ports)
    with ExitStack() as stack:
        try:
            python = prepare(peer, environments)
            command = peer.command(python, model, port, processes)
            log = folder / f"{peer.name}-{processes}.log"
            server = stack.enter_context(running(command, port, peer.ready_path, log, peer.environment))
        except PeerError as error:
            raise BenchError(str(error)) from error
        _check_labels(peer, port)
        requests = {
            ("cnn", kind): [
                http_request(wire.path, wire.content_type, wire.encode(pixels), wire.headers)
                for pixels in digits()
            ]
            for kind, wire in peer.requests.items()
        }
        yield Contender(peer.name, processes, server, requests), version(python, peer.package)


def our_requests() -> dict[tuple[str, str], list[bytes]]:
    """Return the requests that this service is asked."""
    images = digits()
    return {
        ("cnn", "json"): [json_request(pixels) for pixels in images],
        ("cnn", "binary"): [binary_request(pixels) for pixels in images],
        ("cnn", "v2"): [v2_request(pixels) for pixels in images],
        ("cnn", "png"): [png_request(pixels) for pixels in images],
        ("lstm", "binary"): [binary_request(samples, LSTM) for samples in sounds()],
    }


def bundle_of(model: str) -> Path:
    """Return the newest committed bundle of a model."""
    return max((ROOT / "models" / model).iterdir(), key=lambda path: int(path.name))


def expected_labels(images: NDArray[np.uint8]) -> list[int]:
    """Return the labels of images by the predictor itself."""
    predictor = load_predictor(bundle_of("mnist-cnn"))
    return [int(index) for index in predictor.run_all(predictor.rows(list(images))).logits.argmax(1)]


def check_ours(server: Server) -> None:
    """See that this service gives the right answers.

    Raises:
        BenchError: it does not.
    """
    images = digits()
    for pixels, expected in zip(images, expected_labels(images), strict=True):
        for content_type, body in ((OCTETS, pixels.tobytes()), (JSON, _instances(pixels))):
            answer = _post(server.port, CNN, content_type, body, {})
            if label_of(answer) != expected:
                raise BenchError(f"it answers {label_of(answer)} where {expected} is right")
        answer = _post(server.port, CNN_V2, OCTETS, *v2_body(pixels))
        if (found := label_of_v2(answer)) != expected:
            raise BenchError(f"it answers {found} to v2 where {expected} is right")


def _instances(pixels: NDArray[np.uint8]) -> bytes:
    return json_request(pixels).split(b"\r\n\r\n", 1)[1]


def _check_labels(peer: Peer, port: int) -> None:
    images = digits()
    for kind, wire in peer.requests.items():
        for pixels, expected in zip(images, expected_labels(images), strict=True):
            body = _post(port, wire.path, wire.content_type, wire.encode(pixels), wire.headers)
            if (found := wire.label(body)) != expected:
                raise BenchError(f"it answers {found} to {kind} where {expected} is right")


def _post(port: int, path: str, content_type: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    url = f"http://127.0.0.1:{port}{path}"
    request = urllib.request.Request(url, body, {"Content-Type": content_type, **headers})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return bytes(answer.read())
    except OSError as error:
        raise BenchError(f"it does not answer: {error}") from error
