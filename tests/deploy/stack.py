"""The whole stack of docker-compose.yml as a person starts it, with ports and models of its own."""

from __future__ import annotations

import hashlib
import json
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.conftest import ROOT

FILES = (
    "docker-compose.yml",
    "docker/compose.local.yml",
    "docker/compose.keys.yml",
    "tests/deploy/compose.yml",
)
KEYS = {"predict": "key-that-may-predict", "feedback": "key-for-feedback", "admin": "key-that-may-all"}
REPLICAS = 2
_LONGEST_S = 300


def docker(*arguments: str, streams: bool = False) -> str:
    """Run the client of Docker; return what it prints. A failure shows what it said.

    Args:
        streams: return what it prints as an error, too, as the logs of containers may be either.
    """
    return _run(("docker", *arguments), streams=streams)


def health(name: str) -> str:
    """Return what a container's health check found last."""
    return docker("inspect", "--format", "{{.State.Health.Status}}", name).strip()


def run_octet(*arguments: str) -> str:
    """Run the command `octet` of this environment."""
    return _run((sys.executable, "-m", "octet", *arguments))


@dataclass(frozen=True)
class Stack:
    """A running stack.

    Attributes:
        folder: holds its settings, models, keys and certificate.
        ports: of this machine, by the name of the setting.
    """

    project: str
    folder: Path
    ports: dict[str, int]

    @property
    def url(self) -> str:
        """Of the front."""
        return f"https://localhost:{self.ports['PROXY_HTTPS_PORT']}"

    @property
    def certificate(self) -> Path:
        """What the front's own certificate is trusted by: itself."""
        return self.folder / "tls.crt"

    @property
    def models(self) -> Path:
        """The model repository of all replicas."""
        return self.folder / "models"

    def compose(self, *arguments: str, check: bool = True) -> str:
        """Run `docker compose` on it."""
        files = [part for file in FILES for part in ("--file", str(ROOT / file))]
        environment = str(self.folder / "settings.env")
        return _run(
            (
                "docker",
                "compose",
                "--project-name",
                self.project,
                "--env-file",
                environment,
                *files,
                *arguments,
            ),
            check=check,
        )

    def replicas(self, service: str = "service") -> list[str]:
        """The names of a service's running containers."""
        rows = self.compose("ps", "--format", "{{.Name}}", service).split()
        return sorted(rows)

    def client(self, role: str | None = "predict", *, http2: bool = True) -> httpx.Client:
        """A client of the front.

        Args:
            role: of the key that it sends; None for none.
        """
        headers = {"authorization": f"Bearer {KEYS[role]}"} if role else {}
        trusted = ssl.create_default_context(cafile=str(self.certificate))
        return httpx.Client(base_url=self.url, http2=http2, verify=trusted, headers=headers, timeout=30)

    def ask_prometheus(self, expression: str) -> list[dict[str, Any]]:
        """The series of an expression."""
        address = f"http://127.0.0.1:{self.ports['PROMETHEUS_PORT']}/api/v1/query"
        answer = httpx.get(address, params={"query": expression}, timeout=10).json()
        assert answer["status"] == "success", answer
        series: list[dict[str, Any]] = answer["data"]["result"]
        return series

    def deliveries(self) -> list[dict[str, Any]]:
        """What the webhook's receiver was told, in order, each with the time when it came."""
        lines = docker("logs", self.replicas("receiver")[0]).splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]


def prepare(folder: Path, ports: dict[str, int], *, project: str) -> Stack:
    """Write what a stack needs into a folder."""
    shutil.copytree(ROOT / "models", folder / "models")
    digests = (f"{role} {hashlib.sha256(key.encode()).hexdigest()} {role}\n" for role, key in KEYS.items())
    (folder / "keys").mkdir()
    (folder / "keys" / "api-keys").write_text("".join(digests))
    (folder / "webhook-url").write_text("http://receiver:9000/\n")
    settings = {
        **{name: str(port) for name, port in ports.items()},
        "PROXY_ADDRESS": "127.0.0.1",
        "OCTET_TAG": "test",
        "OCTET_MODELS_DIR": str(folder / "models"),
        "OCTET_KEYS_DIR": str(folder / "keys"),
        "ALERT_WEBHOOK_FILE": str(folder / "webhook-url"),
    }
    (folder / "settings.env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    for path in (folder, *folder.rglob("*")):  # the containers' users are not this one
        path.chmod(0o755 if path.is_dir() else 0o644)
    return Stack(project, folder, ports)


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = 60) -> float:
    """Wait until something holds; return for how many seconds."""
    began_s = time.monotonic()
    while not condition():
        if time.monotonic() - began_s > timeout_s:
            raise AssertionError(f"after {timeout_s:g} s still not: {what}")
        time.sleep(0.2)
    return time.monotonic() - began_s


def _run(command: Sequence[str], *, check: bool = True, streams: bool = False) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=_LONGEST_S, check=False)
    assert done.returncode == 0 or not check, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr if streams else done.stdout
