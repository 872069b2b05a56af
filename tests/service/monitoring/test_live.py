from __future__ import annotations

import pytest

from bundle.evidence import Evidence
from bundle.outcomes import BINS
from bundle.predictor import load_predictor
from service.monitoring.live import Live, Sums, add_up, figures
from service.monitoring.tokens import Claim
from tests.calibrated import make_calibrated_bundle


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    found = load_predictor(make_calibrated_bundle(tmp_path_factory.mktemp("models"))).evidence
    assert found is not None
    return found


def claim(
    answer: int = 1,
    confidence: float = 0.9,
    accepted: bool | None = True,
    sets: tuple[int, ...] | None = (3, 2),
) -> Claim:
    return Claim("m", "1", b"graph", 0, b"nonce", answer, confidence, accepted, sets)


def test_answers_count_by_their_confidence_and_whether_they_are_right() -> None:
    sums = Sums()
    sums.add(claim(), 1)
    sums.add(claim(accepted=False), 0)
    sums.add(claim(confidence=0.3), 2)
    assert sums.n == 3
    assert (sums.counts[13], sums.right[13], sums.confidences[13]) == (2, 1, 1.8)
    assert (sums.counts[4], sums.right[4]) == (1, 0)
    assert (sums.accepted, sums.accepted_right) == (2, 1)
    # The sets hold the labels 0 and 1 at .05, and 1 at .1.
    assert (sums.judged, sums.covered) == (3, [2, 1])


def test_answers_without_evidence_tell_how_right_they_are_and_no_more() -> None:
    sums = Sums()
    sums.add(claim(accepted=None, sets=None), 1)
    found = figures(sums, None)
    assert (found["n"], found["accuracy"], found["coverage"], found["accepted"]) == (1, 1.0, [], None)


def test_sums_of_processes_add_up() -> None:
    one, other, both = Sums(), Sums(), Sums()
    for number in range(10):
        for each in (one if number % 2 else other, both):
            each.add(claim(confidence=0.5 + number / 20), number % 3)
    total = add_up([one.as_json(), other.as_json()])
    assert total.confidences == pytest.approx(both.confidences)
    assert (total.counts, total.right, total.covered) == (both.counts, both.right, both.covered)
    assert (total.accepted, total.accepted_right, total.judged) == (10, both.accepted_right, 10)
    assert add_up([]) == Sums()


def test_the_figures_are_of_the_last_labels() -> None:
    live = Live()
    for _ in range(2_500):
        live.add(claim(), 0)
    for _ in range(2_000):
        live.add(claim(), 1)
    assert 1_000 <= live.sums.n <= 2_000
    assert sum(live.sums.right) == live.sums.n


def test_figures_stand_in_their_bands_where_all_is_as_it_was(evidence: Evidence) -> None:
    sums = Sums(counts=[0] * (BINS - 1) + [1_000], confidences=[0.0] * (BINS - 1) + [970.0])
    sums.right[-1] = 968
    sums.judged, sums.covered = 1_000, [951, 899]
    sums.accepted, sums.accepted_right = 900, 890
    found = figures(sums, evidence)
    assert found["accuracy"] == 0.968
    assert found["accuracy_ci95"][0] < 0.968 < found["accuracy_ci95"][1]
    assert found["ece"] == pytest.approx(0.002)
    assert found["ece"] < found["ece_null95"] < 0.015
    assert [each["alpha"] for each in found["coverage"]] == [0.05, 0.1]
    for each in found["coverage"]:
        assert each["band95"][0] < each["coverage"] < each["band95"][1]
    accepted = found["accepted"]
    assert (accepted["wrong"], accepted["risk"]) == (10, pytest.approx(10 / 900))
    assert accepted["target_risk"] == evidence.facts.default_target_risk
