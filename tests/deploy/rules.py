"""The rules of Prometheus as tests look at them, and the metrics that they may ask for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from service.metrics import Metrics
from tests.conftest import ROOT
from tests.deploy.tools import read_yaml

PROMETHEUS = ROOT / "docker" / "prometheus"
RULE_FILES = sorted((PROMETHEUS / "rules").glob("*.yml"))
TEST_FILES = sorted((PROMETHEUS / "tests").glob("*.yml"))
# What Prometheus, Alertmanager and the prober of the certificate tell of themselves.
FOREIGN = {
    "ALERTS",
    "alertmanager_notifications_failed_total",
    "probe_ssl_earliest_cert_expiry",
    "probe_success",
    "prometheus_notifications_errors_total",
    "prometheus_rule_evaluation_failures_total",
    "up",
}
# Labels that a scrape adds, and that of a bucket.
_ADDED = {"instance", "job", "le"}
_NAME = re.compile(r"\b(?:octet[_:]|process_|probe_|prometheus_|alertmanager_)[\w:]*|\bup\b|\bALERTS\b")
_SELECTOR = re.compile(r"\b(octet_\w+)\{([^}]*)\}")
_STRING = re.compile(r'"[^"]*"')


def groups(path: Path) -> list[dict[str, Any]]:
    """Return the groups of one rule file."""
    found = read_yaml(path)["groups"]
    assert isinstance(found, list)
    return found


def all_rules() -> Iterator[dict[str, Any]]:
    """Every rule of every file."""
    for path in RULE_FILES:
        for group in groups(path):
            yield from group["rules"]


def alerts() -> list[dict[str, Any]]:
    """Every alert."""
    return [rule for rule in all_rules() if "alert" in rule]


def recorded() -> set[str]:
    """The names of what is recorded."""
    return {rule["record"] for rule in all_rules() if "record" in rule}


def names_in(expression: str) -> set[str]:
    """Return the metrics that an expression names."""
    bare = _STRING.sub('""', expression)
    by_label = re.sub(r"\b(by|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", bare)
    return set(_NAME.findall(re.sub(r"[{,]\s*\w+(?=\s*[=!]~?)", "{", by_label)))


def sample_names(exposition: str) -> set[str]:
    """Return the names of samples that an exposition tells, also of metrics that have no values yet."""
    names = set()
    for family in text_string_to_metric_families(exposition):
        if family.type == "histogram":
            names |= {f"{family.name}_{part}" for part in ("bucket", "count", "sum")}
        else:
            names.add(f"{family.name}_total" if family.type == "counter" else family.name)
    return names


def unknown_labels(expression: str) -> set[str]:
    """Return `metric{label}` of each selector whose metric has no such label."""
    known = {}
    for value in vars(Metrics()).values():
        if hasattr(value, "_labelnames"):
            known[value._name] = {*value._labelnames, *_ADDED}
    wrong = set()
    for name, selector in _SELECTOR.findall(expression):
        base = re.sub(r"_(total|bucket|sum|count)$", "", name)
        labels = known.get(name, known.get(base, set()))
        for label in re.findall(r"(\w+)\s*[=!]~?", _STRING.sub('""', selector)):
            if label not in labels:
                wrong.add(f"{name}{{{label}}}")
    return wrong
