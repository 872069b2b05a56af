"""The documentation is complete: settings, routes, metrics, targets and recipes; and no link is dead."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from service.app import create_app
from service.metrics import Metrics
from service.registry import load_registry
from service.settings import Settings
from tests.conftest import ROOT

DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
HTTP = (ROOT / "docs" / "http.md").read_text()
README = (ROOT / "README.md").read_text()


def test_every_setting_is_documented_with_its_default() -> None:
    text = (ROOT / "docs" / "settings.md").read_text()
    rows = dict(re.findall(r"^\| `OCTET_(\w+)` \| (.*?) \|", text, re.MULTILINE))
    assert {name.lower() for name in rows} == set(Settings.model_fields)
    for name, field in Settings.model_fields.items():
        if field.default is not None:
            default = field.default
            assert rows[name.upper()] == (f"{default:g}" if isinstance(default, float) else str(default))


def test_every_route_is_documented(repository: Path) -> None:
    settings = Settings(models=repository)
    metrics = Metrics()
    app = create_app(settings, load_registry(settings, metrics), metrics)
    paths = set(app.openapi()["paths"])
    assert len(paths) >= 9
    pages = [README, *(path.read_text() for path in (ROOT / "docs").glob("*.md"))]
    documented = re.sub(r"\[/versions/\{n\}[^]]*\]", "", "".join(pages))
    for path in paths:
        short = (
            path.replace("{name}", "{m}").replace("/versions/{version}", "").replace("/labels/{alias}", "")
        )
        assert re.search(rf"(GET |POST |PUT |`){re.escape(short)}`", documented), path


def test_every_metric_is_documented() -> None:
    documented = set(re.findall(r"`(octet_\w+)`", HTTP))
    exposed = set()
    for family in Metrics().registry.collect():
        if family.name.startswith("octet_"):
            exposed.add(family.name + "_total" if family.type == "counter" else family.name)
    assert exposed == documented


def test_every_status_is_documented() -> None:
    from service.api.problems import CALLER_GONE, STATUSES

    for status in {*STATUSES.values(), 405, 500, 503} - {CALLER_GONE}:
        assert f"| {status} |" in HTTP
    assert str(CALLER_GONE) in HTTP


def test_every_make_target_has_a_line_of_help() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    output = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert {line.split()[0] for line in output.splitlines()} == targets


def test_every_recipe_is_in_the_readme() -> None:
    recipes = [path for path in (ROOT / "training" / "recipes").glob("*.py") if path.stem != "__init__"]
    assert len(recipes) >= 2
    for path in recipes:
        assert f"RECIPE={path.stem.replace('_', '-')}" in README


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_link_is_dead(document: Path) -> None:
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", document.read_text()):
        assert (document.parent / target).exists(), target
