from __future__ import annotations

import json

import numpy as np
import pytest

from bundle.drift import Spread, no_spread, spread_of
from bundle.evidence import Evidence
from bundle.predictor import load_predictor
from service.monitoring.live import Sums
from service.monitoring.report import spread_as_json, tell_together
from tests import tiny
from tests.calibrated import make_calibrated_bundle


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    found = load_predictor(make_calibrated_bundle(tmp_path_factory.mktemp("models"))).evidence
    assert found is not None
    return found


def spread(evidence: Evidence, n: int) -> Spread:
    random = np.random.default_rng(n)
    return spread_of(evidence, random.uniform(0.4, 1, n), random.random(n), random.integers(0, 3, n))


def report(
    window: Spread | None = None, rows: int = 0, stale: bool = False, right: int = 0
) -> dict[str, object]:
    sums = Sums()
    sums.counts[-1], sums.confidences[-1], sums.right[-1] = right, 0.99 * right, right
    found = {
        "stale": stale,
        "rows": rows,
        "window": None if window is None else spread_as_json(window),
        "outcomes": sums.as_json(),
    }
    sent: dict[str, object] = json.loads(json.dumps(found))  # as it goes from process to process
    return sent


def test_the_windows_of_all_processes_are_tested_together(evidence: Evidence) -> None:
    one, other = spread(evidence, 700), spread(evidence, 500)
    apart = tell_together([report(one, 900), report(other, 600, True), report()], tiny.LABELS, evidence)
    whole = tell_together([report(one + other)], tiny.LABELS, evidence)
    assert apart["window"] == whole["window"]
    assert apart["window"]["rows"] == 1_200
    assert (apart["processes"], apart["stale_processes"], apart["rows"]) == (3, 1, 1_500)
    assert {each["signal"] for each in apart["window"]["tests"]} == {"confidence", "novelty", "label"}
    assert set(apart["window"]["label_priors"]) == set(tiny.LABELS)


def test_before_anything_has_happened_nothing_is_told(evidence: Evidence) -> None:
    told = tell_together([report()], tiny.LABELS, evidence)
    assert (told["window"], told["feedback"]) == (None, None)
    assert no_spread(evidence).rows == 0


def test_feedback_of_all_processes_adds_up(evidence: Evidence) -> None:
    told = tell_together([report(right=30), report(right=12)], tiny.LABELS, evidence)
    assert (told["feedback"]["n"], told["feedback"]["accuracy"]) == (42, 1.0)
