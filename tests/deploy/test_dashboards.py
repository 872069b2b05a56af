"""The dashboards: well formed, every expression is PromQL, and asks for what the service really tells.

Grafana itself is not started: what it would make of a panel is not tested here.
"""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.metrics import Metrics
from tests.conftest import ROOT
from tests.deploy.exposition import exposed
from tests.deploy.rules import FOREIGN, names_in, recorded, sample_names, unknown_labels
from tests.deploy.tools import monitoring_tool, read_yaml

pytestmark = pytest.mark.deploy

GRAFANA = ROOT / "docker" / "grafana"
BOARDS = {path.stem: json.loads(path.read_text()) for path in sorted((GRAFANA / "dashboards").glob("*.json"))}
PANEL_KINDS = {"heatmap", "row", "stat", "table", "timeseries"}
COLUMNS = 24
board = pytest.mark.parametrize("name", BOARDS)


def panels(name: str) -> list[dict[str, Any]]:
    found = BOARDS[name]["panels"]
    assert isinstance(found, list)
    return found


def expressions(name: str) -> list[str]:
    """Return every query of a dashboard, with Grafana's variables put in."""
    queries = [target["expr"] for panel in panels(name) for target in panel.get("targets", [])]
    queries += [each["expr"] for each in BOARDS[name]["annotations"]["list"]]
    return [_fill(query) for query in queries]


def _fill(query: str) -> str:
    query = query.replace("$__rate_interval", "1m")
    for variable in ("model", "version", "instance"):
        query = query.replace(f"${variable}", ".*")
    assert "$" not in query, query
    return query


def test_there_are_both() -> None:
    assert set(BOARDS) == {"models", "operations"}
    assert sum(len(expressions(name)) for name in BOARDS) > 70


@board
def test_panels_have_their_own_place_and_say_what_they_show(name: str) -> None:
    assert BOARDS[name]["uid"] == f"octet-{name}"
    ids = [panel["id"] for panel in panels(name)]
    assert len(ids) == len(set(ids))
    for panel in panels(name):
        assert panel["type"] in PANEL_KINDS
        assert panel["title"]
        place = panel["gridPos"]
        assert place["x"] >= 0
        assert place["x"] + place["w"] <= COLUMNS
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}"
            assert panel["fieldConfig"]["defaults"]["unit"]
            assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) >= 1
    for one, other in combinations([panel["gridPos"] for panel in panels(name)], 2):
        assert (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )


@board
def test_every_expression_is_promql(name: str, tmp_path: Path) -> None:
    rules = [{"record": f"panel:{index}", "expr": query} for index, query in enumerate(expressions(name))]
    (tmp_path / "panels.yml").write_text(yaml.safe_dump({"groups": [{"name": name, "rules": rules}]}))
    said = monitoring_tool("promtool", "check", "rules", "panels.yml", folder=tmp_path)
    assert f"{len(rules)} rules found" in said


def test_what_is_no_promql_is_found(tmp_path: Path) -> None:
    broken = {
        "groups": [
            {"name": "x", "rules": [{"record": "panel:0", "expr": "sum by (model (octet_rows_total)"}]}
        ]
    }
    (tmp_path / "panels.yml").write_text(yaml.safe_dump(broken))
    with pytest.raises(AssertionError, match="parse error"):
        monitoring_tool("promtool", "check", "rules", "panels.yml", folder=tmp_path)


@board
def test_every_expression_asks_for_what_is_told(name: str) -> None:
    known = exposed() | recorded() | FOREIGN
    for query in expressions(name):
        asked = names_in(query)
        assert asked, query
        assert asked <= known, query
        assert unknown_labels(query) == set(), query


@board
def test_the_lists_of_the_variables_ask_for_what_is_told(name: str) -> None:
    for variable in BOARDS[name]["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = re.fullmatch(
                r"label_values\((\w+).*, (\w+)\)", variable["query"]["query"]
            ).groups()
            assert metric in exposed()
            assert label == variable["name"]


def test_every_metric_of_the_service_is_on_a_dashboard() -> None:
    shown = {name for board_name in BOARDS for query in expressions(board_name) for name in names_in(query)}
    rules = (ROOT / "docker" / "prometheus" / "rules").glob("*.yml")
    shown |= {
        name
        for path in rules
        for group in read_yaml(path)["groups"]
        for rule in group["rules"]
        if rule.get("record") in shown
        for name in names_in(rule["expr"])
    }
    own = {name for name in sample_names(Metrics().render().decode()) if name.startswith("octet_")}
    bare = {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}
    missing = {re.sub(r"_(bucket|sum|count)$", "", name) for name in own} - bare
    assert missing == set()


def test_what_is_provisioned_is_what_compose_mounts() -> None:
    volumes = read_yaml(ROOT / "docker-compose.yml")["services"]["grafana"]["volumes"]
    mounts = dict(volume.split(":")[:2] for volume in volumes)
    (provider,) = read_yaml(GRAFANA / "provisioning" / "dashboards" / "octet.yml")["providers"]
    assert mounts["./docker/grafana/dashboards"] == provider["options"]["path"]
    assert mounts["./docker/grafana/provisioning"] == "/etc/grafana/provisioning"
    (source,) = read_yaml(GRAFANA / "provisioning" / "datasources" / "prometheus.yml")["datasources"]
    for name in BOARDS:
        (variable,) = [each for each in BOARDS[name]["templating"]["list"] if each["type"] == "datasource"]
        assert variable["current"]["value"] == source["uid"]
        assert variable["query"] == source["type"]
