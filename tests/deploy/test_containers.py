"""What runs in the containers, and what it may do."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.deploy.stack import REPLICAS, Stack, docker

pytestmark = pytest.mark.deploy

LARGEST_BYTES = 220_000_000
SERVICES = ("service", "nginx", "prometheus", "alertmanager", "grafana")


def inspected(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(docker("inspect", name))[0]
    return found


def run_python(stack: Stack, code: str) -> str:
    return docker("exec", stack.replicas()[0], "python", "-c", code).strip()


def test_the_image_is_small() -> None:
    service, base = (inspected(name)["Size"] for name in ("octet/service:test", "python:3.11-slim-bookworm"))
    print(f"octet/service: {(service - base) / 1e6:.1f} MB above its base")
    assert service - base <= LARGEST_BYTES


def test_the_image_tells_what_it_is() -> None:
    labels = inspected("octet/service:test")["Config"]["Labels"]
    assert labels["org.opencontainers.image.title"] == "Octet"
    assert labels["org.opencontainers.image.version"] == "test"
    assert labels.keys() >= {"org.opencontainers.image.revision", "org.opencontainers.image.created"}


def test_nothing_that_trains_or_installs_is_in_the_image(stack: Stack) -> None:
    code = (
        "import importlib.util as u, os; "
        "print([n for n in ('torch', 'onnx', 'lightning', 'sklearn', 'scipy', 'pip', 'training', 'octet')"
        " if u.find_spec(n)], sorted(os.listdir('/app')))"
    )
    found, folders = run_python(stack, code).split("] ", 1)
    assert found == "["
    assert folders == "['bundle', 'service']"


def test_the_service_needs_no_shell(stack: Stack) -> None:
    config = inspected(stack.replicas()[0])["Config"]
    assert config["Entrypoint"] == ["python", "-m", "service"]
    assert config["Healthcheck"]["Test"] == ["CMD", "python", "-m", "service.healthcheck"]


def test_the_replicas_run_as_nobody_and_write_nothing(stack: Stack) -> None:
    assert len(stack.replicas()) == REPLICAS
    assert run_python(stack, "import os; print(os.getuid(), os.getgid())") == "10001 10001"
    code = """
import pathlib
for folder in ("/", "/app", "/models", "/opt/octet", "/secrets", "/usr"):
    try:
        pathlib.Path(folder, "file").write_text("x")
        print("written to", folder)
    except OSError as error:
        pass
pathlib.Path("/tmp/file").write_text("x")
"""
    assert run_python(stack, code) == ""
    status = run_python(stack, "print(open('/proc/1/status').read())")
    assert "CapEff:\t0000000000000000" in status
    assert "CapBnd:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status


@pytest.mark.parametrize("service", SERVICES)
def test_every_container_is_hardened_and_limited(stack: Stack, service: str) -> None:
    for name in stack.replicas(service):
        container = inspected(name)
        host = container["HostConfig"]
        assert host["ReadonlyRootfs"]
        assert host["CapDrop"] == ["ALL"]
        assert not host["CapAdd"]
        assert "no-new-privileges:true" in host["SecurityOpt"]
        assert not host["Privileged"]
        assert host["Memory"] > 0
        assert host["NanoCpus"] > 0
        assert host["PidsLimit"] > 0
        assert container["Config"]["User"].split(":")[0] not in ("", "0", "root")
        assert container["State"]["Health"]["Status"] == "healthy"


def test_limits_hold(stack: Stack) -> None:
    """The kernel's own files say so, and the service counts its threads by them."""
    read = (
        "from pathlib import Path; p = Path('/sys/fs/cgroup'); print(*(open(f).read().strip() for f in {}))"
    )
    host = inspected(stack.replicas()[0])["HostConfig"]
    v2 = docker(
        "exec",
        stack.replicas()[0],
        "python",
        "-c",
        "import os; print(os.path.exists('/sys/fs/cgroup/memory.max'))",
    )
    file = (
        "/sys/fs/cgroup/memory.max" if v2.strip() == "True" else "/sys/fs/cgroup/memory/memory.limit_in_bytes"
    )
    assert int(run_python(stack, read.format([file]))) == host["Memory"]


def test_only_the_front_is_published(stack: Stack) -> None:
    """compose.local.yml, which the tests use to look inside, binds to loopback addresses alone."""
    for service in SERVICES:
        for name in stack.replicas(service):
            ports = inspected(name)["HostConfig"]["PortBindings"] or {}
            addresses = {binding["HostIp"] for bindings in ports.values() for binding in bindings}
            assert addresses <= {"127.0.0.1"}
            assert bool(ports) == (service != "service")


def test_the_service_network_leads_nowhere(stack: Stack) -> None:
    networks = inspected(stack.replicas()[0])["NetworkSettings"]["Networks"]
    assert len(networks) == 1
    assert inspected(next(iter(networks)))["Internal"]


def test_nothing_complains(stack: Stack) -> None:
    """No warning of ONNX Runtime about what it may not write, and none of nginx."""
    for name in (*stack.replicas(), *stack.replicas("nginx")):
        text = docker("logs", name, streams=True)
        assert "telemetry" not in text.lower()
        complaints = [line for line in text.splitlines() if re.search(r"\[(error|crit|alert|emerg)\]", line)]
        assert [
            line for line in complaints if "too large body" not in line
        ] == []  # other tests have sent these
