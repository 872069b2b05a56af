"""The files of the deployment, checked by the programs that know their formats."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.deploy.stack import Stack, docker

pytestmark = pytest.mark.deploy

TOOLS = ROOT / ".venv-deploy" / "bin"
DOCKERFILES = sorted([*(ROOT / "docker").glob("*.Dockerfile"), *(ROOT / "docker").glob("*/Dockerfile")])
COMPOSE = [ROOT / "docker-compose.yml", *sorted((ROOT / "docker").glob("compose.*.yml"))]
FLAVOURS = ("cpu", "openvino", "cuda")


def run(*command: str | Path) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_hadolint_finds_nothing(file: Path) -> None:
    assert len(DOCKERFILES) >= 3
    assert run(TOOLS / "hadolint", file) == ""


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_base_images_have_pinned_tags(file: Path) -> None:
    images = re.findall(r"(?:^FROM|^ARG \w+_IMAGE=)\s*([\w./-]+:[\w.-]+)", file.read_text(), re.MULTILINE)
    assert images
    assert not any(image.endswith(":latest") for image in images)


@pytest.mark.parametrize("file", COMPOSE, ids=lambda path: str(path.relative_to(ROOT)))
def test_compose_files_are_valid(file: Path) -> None:
    run(TOOLS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", file)


def test_compose_understands_its_files(stack: Stack) -> None:
    stack.compose("config", "--quiet")
    stack.compose("--profile", "gpu", "--profile", "training", "config", "--quiet")


def test_the_rendered_configuration_of_nginx_is_sound(stack: Stack, tmp_path: Path) -> None:
    front = stack.replicas("nginx")[0]
    folder = tmp_path / "nginx"
    folder.mkdir()
    for name in docker("exec", front, "sh", "-c", "ls /tmp/nginx/*.conf").split():
        docker("exec", front, "nginx", "-t", "-q", "-c", "/tmp/nginx/front.conf")
        text = docker("exec", front, "cat", name)
        assert not re.search(r"\$\{[A-Z]+_", text.replace("${PROXY_…} and ${OCTET_…}", "")), name
        (folder / Path(name).name).write_text(text.replace("/tmp/nginx/", f"{folder}/"))
    docker("exec", front, "nginx", "-t", "-q", "-c", "/tmp/nginx/balancer.conf")
    for part in ("front", "balancer"):
        found = run(TOOLS / "gixy", "--format", "json", folder / f"{part}.conf")
        assert json.loads(found) == [], found


def test_shell_scripts_are_valid() -> None:
    for script in sorted((ROOT / "docker").rglob("*.sh")):
        run("sh", "-n", script)
        assert script.stat().st_mode & 0o111, f"{script} is not executable"


@pytest.fixture(scope="module")
def sboms() -> Path:
    """The folder of the lists that `make sbom` writes."""
    run("make", "--no-print-directory", "sbom")
    return ROOT / "dist" / "sbom"


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_the_sbom_names_everything_that_is_installed(sboms: Path, flavour: str) -> None:
    bom = json.loads((sboms / f"{flavour}.cdx.json").read_text())
    assert bom["bomFormat"] == "CycloneDX"
    pinned = set(
        re.findall(r"^([\w.-]+)==", (ROOT / "docker" / "locks" / f"{flavour}.txt").read_text(), re.M)
    )
    assert pinned == {component["name"] for component in bom["components"]}
