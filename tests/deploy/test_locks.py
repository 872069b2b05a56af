"""What the images install is what this project is tested with, as `make lock` may be forgotten."""

from __future__ import annotations

import re
import tomllib

import pytest

from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# For people at a terminal; the service runs without them.
FOR_PEOPLE = {"rich", "typer"}
FLAVOURS = ("cpu", "openvino", "cuda")


def pins(name: str) -> dict[str, str]:
    """Package -> version of a file of requirements, with names as PEP 503 normalizes them."""
    found = re.findall(r"^([\w.-]+)(?:\[[\w,]+\])?==([\w.]+)", (ROOT / name).read_text(), re.MULTILINE)
    return {normal(package): version for package, version in found}


def normal(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_every_dependency_is_locked(flavour: str) -> None:
    extras = PROJECT["optional-dependencies"]
    wanted = {
        normal(re.match(r"[\w.-]+", requirement)[0])  # type: ignore[index]
        for requirement in (*PROJECT["dependencies"], *extras[flavour], *extras["tracing"])
    }
    missing = wanted - FOR_PEOPLE - pins(f"docker/locks/{flavour}.txt").keys()
    assert not missing, "run `make lock`"


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_locked_versions_are_those_that_are_tested(flavour: str) -> None:
    tested, locked = pins("constraints.txt"), pins(f"docker/locks/{flavour}.txt")
    different = {name: version for name, version in locked.items() if tested.get(name, version) != version}
    assert not different, "run `make lock`"


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_every_locked_file_has_a_digest(flavour: str) -> None:
    text = (ROOT / "docker" / "locks" / f"{flavour}.txt").read_text()
    entries = re.split(r"^(?=[\w.-]+==)", text, flags=re.MULTILINE)[1:]
    assert len(entries) > 30
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "torch" not in pins(f"docker/locks/{flavour}.txt")
