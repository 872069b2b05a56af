"""What all processes that share a port know of the answers of a model, told together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import reduce
from typing import Any

import numpy as np

from bundle.drift import Spread, compare, estimate_priors
from bundle.evidence import Evidence
from service.monitoring.live import add_up, figures


def spread_as_json(spread: Spread) -> dict[str, Any]:
    """Return a spread as it travels between processes."""
    found = {each.name: getattr(spread, each.name) for each in fields(spread)}
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in found.items()}


def tell_together(
    reports: Sequence[Mapping[str, Any]], labels: Sequence[str], evidence: Evidence | None
) -> dict[str, Any]:
    """Return what several processes know of one version of a model.

    Their last windows are tested anew, all together.

    Args:
        reports: as `Monitored.report` gives them, at least one.
    """
    windows = [_spread(each["window"]) for each in reports if each["window"] is not None]
    sums = add_up([each["outcomes"] for each in reports])
    return {
        "processes": len(reports),
        "stale_processes": sum(each["stale"] for each in reports),
        "rows": sum(each["rows"] for each in reports),
        "window": None
        if evidence is None or not windows
        else _window(reduce(Spread.__add__, windows), labels, evidence),
        "feedback": figures(sums, evidence) if sums.n else None,
    }


def label_priors(spread: Spread, labels: Sequence[str], evidence: Evidence) -> dict[str, float]:
    """Return label -> estimated share of it among the right ones; empty where that cannot be told."""
    if not spread.labels.size:
        return {}
    shares = estimate_priors(evidence.facts.confusion, spread.labels)
    return {} if shares is None else dict(zip(labels, shares.tolist(), strict=True))


def _window(spread: Spread, labels: Sequence[str], evidence: Evidence) -> dict[str, Any]:
    tests = [
        {
            "signal": each.signal,
            "test": each.test,
            "psi": each.effect,
            "p_value": each.p_value,
            "alarm": each.alarms,
        }
        for each in compare(evidence, spread)
    ]
    return {
        "rows": spread.rows,
        "tests": tests,
        "accuracy_estimated": spread.sum_confidence / spread.rows,
        "label_priors": label_priors(spread, labels, evidence),
    }


def _spread(found: Mapping[str, Any]) -> Spread:
    lists = {name: np.array(value, np.int64) for name, value in found.items() if isinstance(value, list)}
    return Spread(**{**found, **lists})
