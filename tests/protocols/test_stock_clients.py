"""The clients that users have already, tritonclient and KServe's, against a service in a process of its own.

They have an environment of their own, `make install-clients`: their pins and ours exclude each other.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import tiny
from tests.conftest import ROOT, LiveServer, running_service
from tests.protocol_models import make_protocol_models

PYTHON = ROOT / ".venv-clients" / "bin" / "python"
CLIENTS = Path(__file__).parent / "clients"
LIMIT_S = 120

pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason="needs the stock clients: make install-clients")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_protocol_models(folder)
    tiny.make_image_bundle(folder)
    return folder


@pytest.fixture(scope="module", params=[1, 2], ids=["1 worker", "2 workers"])
def server(models: Path, request: pytest.FixtureRequest) -> Iterator[LiveServer]:
    with running_service("--models", str(models), "--workers", str(request.param)) as server:
        yield server


def address(server: LiveServer, kind: str) -> str:
    if kind == "http":
        return server.url.removeprefix("http://")
    return server.wait_for(r"listening on grpc://([^\s\"]+)")[1]


def use(script: str, *arguments: str) -> None:
    """Run a client's script; what it says in a failure is the test's."""
    command = [str(PYTHON), "-W", "ignore", str(CLIENTS / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_tritonclient_infers_in_every_form(server: LiveServer, kind: str) -> None:
    use("triton_infer.py", kind, address(server, kind))


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_tritonclient_infers_on_an_event_loop(server: LiveServer, kind: str) -> None:
    use("triton_aio.py", kind, address(server, kind))


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_tritonclient_unloads_and_loads_models(server: LiveServer, kind: str) -> None:
    use("triton_control.py", kind, address(server, kind))


def test_kserves_client_infers_with_both_of_its_protocols(server: LiveServer) -> None:
    use("kserve_rest.py", address(server, "http"))
