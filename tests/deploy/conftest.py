"""The stack that tests here share. Without Docker they fail: who runs them has asked for it."""

from __future__ import annotations

import io
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import ROOT
from tests.deploy.load import Load
from tests.deploy.stack import KEYS, REPLICAS, Stack, docker, prepare
from training.data.mnist import read_idx

PREDICT = "/v1/models/mnist-cnn:predict"


@pytest.fixture(scope="session")
def engine() -> str:
    """The version of the engine that runs."""
    return docker("version", "--format", "{{.Server.Version}}").strip()


@pytest.fixture(scope="session")
def stack(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Build the images and start everything, with two replicas; remove it all at the end."""
    names = ("PROXY_HTTPS_PORT", "PROXY_HTTP_PORT", "PROMETHEUS_PORT", "ALERTMANAGER_PORT", "GRAFANA_PORT")
    folder = tmp_path_factory.mktemp("stack")
    for parent in (folder.parent, folder.parent.parent):
        parent.chmod(0o755)  # containers read what lies here
    stack = prepare(
        folder, dict(zip(names, _free_ports(len(names)), strict=True)), project=f"octet-test-{os.getpid()}"
    )
    began_s = time.monotonic()
    stack.compose("build", "--quiet")
    print(f"built in {time.monotonic() - began_s:.0f} s")
    try:
        began_s = time.monotonic()
        stack.compose("up", "--detach", "--wait", "--scale", f"service={REPLICAS}")
        print(f"the stack was healthy after {time.monotonic() - began_s:.1f} s")
        front = stack.replicas("nginx")[0]
        stack.certificate.write_text(docker("exec", front, "cat", "/certificates/tls.crt"))
        yield stack
    finally:
        print(stack.compose("logs", "--no-color", "--tail", "60", check=False)[-20_000:])
        stack.compose("down", "--volumes", "--timeout", "1", check=False)


@pytest.fixture(scope="session")
def digit() -> bytes:
    """A PNG of a seven: the first of MNIST's test set where there is one, otherwise the example."""
    if not (folder := os.environ.get("OCTET_DATA_DIR")):
        return (ROOT / "examples" / "seven.png").read_bytes()
    file = io.BytesIO()
    Image.fromarray(read_idx(Path(folder) / "mnist" / "t10k-images-idx3-ubyte.gz")[0]).save(
        file, format="PNG"
    )
    return file.getvalue()


@pytest.fixture(scope="session")
def sound() -> bytes:
    """A WAV of somebody, or of a synthetic voice, who says seven."""
    if not (folder := os.environ.get("OCTET_DATA_DIR")):
        return (ROOT / "examples" / "seven.wav").read_bytes()
    return (Path(folder) / "fsdd" / "recordings" / "7_jackson_0.wav").read_bytes()


@pytest.fixture
def load(stack: Stack, digit: bytes) -> Load:
    """100 calls a second, while its `with` block lasts."""
    return Load(
        stack.ports["PROXY_HTTPS_PORT"], PREDICT, digit, str(stack.certificate), key=KEYS["predict"], rate=100
    )


def _free_ports(count: int) -> list[int]:
    listeners = [socket.socket() for _ in range(count)]
    for listener in listeners:
        listener.bind(("127.0.0.1", 0))
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports
