"""The tools that check configurations: of the very images that the stack runs, where there is Docker."""

from __future__ import annotations

import functools
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT

_LIMIT_S = 180
# Tool -> the Compose service whose image holds it.
_HOLDERS = {"promtool": "prometheus", "amtool": "alertmanager"}
DEPLOY_BIN = ROOT / ".venv-deploy" / "bin"


def read_yaml(path: Path) -> Any:
    """Read a file that holds one document."""
    return yaml.safe_load(path.read_text())


def run(*command: str | Path, folder: Path = ROOT, code: int = 0) -> str:
    """Run a command; return what it printed. What it says in a failure is the test's."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_LIMIT_S,
        check=False,
    )
    assert done.returncode == code, f"{' '.join(map(str, command))}\n{done.stdout}"
    return done.stdout


def monitoring_tool(name: str, *arguments: str | Path, folder: Path) -> str:
    """Run promtool or amtool, which sees `folder` and nothing else of what tests make."""
    return run(*_command(name, folder), *arguments, folder=folder)


def kustomize(directory: Path) -> str:
    """Render a kustomization."""
    for command in (["kubectl", "kustomize"], ["kustomize", "build"]):
        if shutil.which(command[0]):
            return run(*command, directory)
    pytest.fail("rendering needs kubectl or kustomize on the PATH")


def deploy_tool(name: str) -> Path:
    """Return the path of a tool of `make install-deploy`."""
    path = DEPLOY_BIN / name
    assert path.exists(), f"{name} is missing: make install-deploy"
    return path


@functools.cache
def has_docker() -> bool:
    """Whether a Docker engine answers."""
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True, timeout=60, check=False).returncode == 0


def _command(name: str, folder: Path) -> list[str]:
    if has_docker():
        image = read_yaml(ROOT / "docker-compose.yml")["services"][_HOLDERS[name]]["image"]
        mount = ["--volume", f"{folder}:{folder}:ro", "--workdir", str(folder)]
        return [
            "docker",
            "run",
            "--rm",
            "--user",
            "root",
            "--network",
            "none",
            *mount,
            "--entrypoint",
            name,
            image,
        ]
    if shutil.which(name):
        return [name]
    pytest.fail(f"checking needs Docker, or {name} on the PATH")
