"""The monitor over real runs of real bundles: what it counts, how much of it, and which feedback it takes."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from bundle.judgement import refusals, threshold_for
from bundle.predictor import Predictor, load_predictor
from service.metrics import Metrics
from service.monitoring.keys import make_keys
from service.monitoring.monitor import Feedback, Monitor, Outcome
from service.monitoring.monitored import Monitored
from service.monitoring.tokens import FIXED_ALPHAS, Minter
from service.monitoring.windows import SHORTEST_S
from service.tap import Shown
from tests import tiny
from tests.calibrated import NAME, examples, make_calibrated_bundle

pytestmark = pytest.mark.anyio
KEYS = make_keys(b"k" * 32)
MODEL = (NAME, "1")


class Clock:
    now_s = 50.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_calibrated_bundle(folder)
    tiny.make_image_bundle(folder, name="partial")
    tiny.make_image_bundle(folder, name="missing", calibrated=False)
    return folder


@pytest.fixture(scope="module")
def predictor(models: Path) -> Predictor:
    return load_predictor(models / NAME / "1")


class Rig:
    """A monitor of one predictor, and what it told the metrics."""

    def __init__(self, predictor: Predictor, rows_per_s: int = 100, max_age_s: int = 3600) -> None:
        self.clock = Clock()
        self.metrics = Metrics()
        self.monitor = Monitor(self.metrics, KEYS, rows_per_s, max_age_s, self.clock)
        self.predictor = predictor
        monitored = self.monitor.open(predictor)
        assert monitored is not None
        self.monitored: Monitored = monitored

    def run(self, n: int, seed: int = 0, *, asked: bool = False, contrast: float = 1.0) -> list[Any]:
        """Run rows, batch by batch, and show them; asked for their confidence where a caller did."""
        pixels = np.stack(examples(30 + seed, n).items)
        changed = (128 + (pixels.astype(float) - 128) * contrast).astype(np.uint8)
        rows = self.predictor.rows(list(changed))
        shown, answers = [], []
        for start in range(0, n, 8):
            batch = rows[start : start + 8]
            found = self.predictor.answer(batch)
            if asked:
                self.monitored.note(found)
            shown.append(Shown(self.predictor, batch, found))
            answers += found
        self.monitor.observe(shown)
        self.monitor.tell()  # which happens by itself a moment later
        return answers

    def samples(self, name: str) -> dict[tuple[str, ...], float]:
        """Return the values of the labels but model and version, by their names -> value."""
        families = text_string_to_metric_families(self.metrics.render().decode())
        return {
            tuple(
                value for key, value in sorted(each.labels.items()) if key not in ("model", "version")
            ): each.value
            for family in families
            for each in family.samples
            if each.name == name
        }

    async def take(self, prediction_id: str, label: str | int, name: str = NAME) -> Outcome:
        return await self.monitor.take(name, {"1": self.monitored}, Feedback(prediction_id, label))


@pytest.fixture
def rig(predictor: Predictor) -> Iterator[Rig]:
    return Rig(predictor)


async def test_every_row_is_counted_as_one_by_one(rig: Rig) -> None:
    answers = rig.run(80)
    evidence = rig.predictor.evidence
    assert evidence is not None
    confidences = [each.confidence.probabilities[each.confidence.order[0]] for each in answers]
    assert rig.samples("octet_confidence_count") == {(): 80}
    assert rig.samples("octet_confidence_sum")[()] == pytest.approx(sum(confidences))
    for le, value in rig.samples("octet_confidence_bucket").items():
        assert value == sum(each <= float(le[0]) for each in confidences)
    for le, value in rig.samples("octet_ood_pvalue_bucket").items():
        assert value == sum(each.judgement.novelty_p_value <= float(le[0]) for each in answers)
    labels = [tiny.LABELS[each.confidence.order[0]] for each in answers]
    assert rig.samples("octet_predictions_total") == {(each,): labels.count(each) for each in set(labels)}
    assert rig.samples("octet_ood_flagged_total")[()] == sum(
        each.judgement.novelty_p_value <= 0.05 for each in answers
    )
    threshold = threshold_for(evidence, evidence.facts.default_target_risk)
    reasons = [
        refusals(evidence, each.judgement, confidence, threshold)
        for each, confidence in zip(answers, confidences, strict=True)
    ]
    expected = {(str(not each).lower(), "+".join(each)) for each in reasons}
    found = rig.samples("octet_accepted_total")
    assert set(found) == expected
    for (accepted, reason), value in found.items():
        assert value == sum((str(not each).lower(), "+".join(each)) == (accepted, reason) for each in reasons)
    for alpha in FIXED_ALPHAS:
        sizes = [
            len(
                {i for i, p in enumerate(each.judgement.label_p_values) if p > alpha}
                | {each.confidence.order[0]}
            )
            for each in answers
        ]
        assert rig.samples("octet_prediction_set_size_sum")[str(alpha),] == sum(sizes)


async def test_so_many_rows_a_second_are_judged_and_what_callers_had_judged_comes_on_top(rig: Rig) -> None:
    rig.run(160)
    assert rig.samples("octet_confidence_count") == {
        (): 104
    }  # the run that crosses the bound is judged whole
    rig.run(80, asked=True)
    assert rig.samples("octet_confidence_count") == {(): 184}
    rig.clock.now_s += 0.5
    rig.run(160)
    assert rig.samples("octet_confidence_count") == {(): 184 + 48}
    rig.clock.now_s += 1_000
    rig.run(160)
    assert rig.samples("octet_confidence_count") == {(): 184 + 48 + 104}


async def test_with_a_budget_of_nothing_only_callers_are_counted(predictor: Predictor) -> None:
    rig = Rig(predictor, rows_per_s=0)
    rig.run(16)
    rig.clock.now_s += 100
    rig.run(16)
    assert rig.samples("octet_confidence_count") == {}
    rig.run(16, asked=True)
    assert rig.samples("octet_confidence_count") == {(): 16}


async def test_judging_for_the_monitor_alone_leaves_nothing_behind_in_the_runs(rig: Rig) -> None:
    answers = rig.run(8)
    assert "judged" not in answers[0].run.__dict__


async def test_strange_inputs_make_the_calibration_stale_and_the_metrics_say_why(rig: Rig) -> None:
    for _ in range(2):
        rig.clock.now_s += SHORTEST_S
        rig.run(504, asked=True)
    assert not rig.monitored.is_stale
    assert rig.samples("octet_calibration_stale") == {(): 0}
    assert min(rig.samples("octet_drift_pvalue").values()) > 0.001
    assert set(rig.samples("octet_drift_pvalue")) == {
        ("confidence", "psi"), ("novelty", "psi"), ("novelty", "exceedance"), ("label", "psi"),
    }  # fmt: skip
    priors = rig.samples("octet_label_prior_estimate")
    assert set(priors) == {(label,) for label in tiny.LABELS}
    assert sum(priors.values()) == pytest.approx(1)
    for _ in range(2):
        rig.clock.now_s += SHORTEST_S
        rig.run(504, asked=True, contrast=0.2)
    assert rig.monitored.is_stale
    assert rig.samples("octet_calibration_stale") == {(): 1}
    assert rig.samples("octet_drift_pvalue")["confidence", "psi"] < 1e-6
    assert rig.samples("octet_drift_psi")[("confidence",)] > 0.1
    assert rig.monitored.windows is not None
    last = rig.monitored.windows.last
    assert last is not None
    assert rig.samples("octet_accuracy_estimated") == {("cbpe",): last.sum_confidence / last.rows}


async def test_what_is_not_served_any_more_is_counted_no_more_and_its_gauges_are_no_numbers(rig: Rig) -> None:
    rig.clock.now_s += SHORTEST_S
    rig.run(504, asked=True)
    rig.monitor.close(rig.predictor)
    rig.run(8, asked=True)
    assert rig.samples("octet_confidence_count") == {(): 504}
    assert set(rig.samples("octet_calibration_info").values()) == {0}
    for name in (
        "octet_drift_psi",
        "octet_drift_pvalue",
        "octet_calibration_stale",
        "octet_calibration_age_seconds",
    ):
        assert all(map(math.isnan, rig.samples(name).values()))


async def test_the_same_bundle_loaded_anew_takes_over(rig: Rig, models: Path) -> None:
    again = load_predictor(models / NAME / "1")
    assert rig.monitor.open(again) is not None
    rig.monitor.close(rig.predictor)
    assert set(rig.samples("octet_calibration_info").values()) == {1}
    assert rig.samples("octet_calibration_age_seconds")[()] >= 0
    rig.predictor = again
    rig.run(8)
    assert rig.samples("octet_confidence_count") == {(): 8}


def test_what_has_no_evidence_gives_ids_and_counts_nothing(models: Path) -> None:
    rig = Rig(load_predictor(models / "partial" / "1"))
    rig.run(8)
    assert rig.samples("octet_confidence_count") == {}
    assert rig.monitored.windows is None
    assert rig.monitor.open(load_predictor(models / "missing" / "1")) is None


def prediction_id(rig: Rig, answer: int = 1, confidence: float = 0.9) -> str:
    return rig.monitored.minter.begin()(0, answer, confidence, True, [0.01, 0.8, 0.07])


async def test_feedback_becomes_figures(rig: Rig) -> None:
    for label in [1] * 9 + [0]:
        assert await rig.take(prediction_id(rig), label) == Outcome("counted", correct=label == 1)
    assert (await rig.take(prediction_id(rig, answer=0, confidence=0.39), tiny.LABELS[0])).correct
    assert rig.samples("octet_feedback_total") == {("counted",): 11}
    assert rig.samples("octet_feedback_answers_total") == {
        ("13", "true"): 9,
        ("13", "false"): 1,
        ("5", "true"): 1,
    }
    assert rig.samples("octet_feedback_confidence_total")["13",] == pytest.approx(9, rel=1e-6)
    assert rig.samples("octet_feedback_accepted_total") == {("true",): 10, ("false",): 1}
    # The sets hold 1 and 2 at .05 and 1 at .1, so that the two labels 0 are in neither.
    assert rig.samples("octet_feedback_covered_total") == {
        ("0.05", "true"): 9, ("0.05", "false"): 2, ("0.1", "true"): 9, ("0.1", "false"): 2,
    }  # fmt: skip
    assert rig.samples("octet_live_accuracy")[()] == pytest.approx(10 / 11)
    assert rig.samples("octet_live_accepted_risk")[()] == pytest.approx(1 / 11)
    assert rig.samples("octet_live_ece")[()] == pytest.approx(0.61 / 11, rel=1e-4)
    assert 0 < rig.samples("octet_live_ece_null95")[()] < 1
    assert rig.samples("octet_live_coverage") == {("0.05",): 9 / 11, ("0.1",): 9 / 11}


async def refused(rig: Rig, token: str, label: str | int = 1, name: str = NAME) -> tuple[str, str]:
    outcome = await rig.take(token, label, name)
    assert outcome.error is not None
    assert outcome.correct is None
    return outcome.name, str(outcome.error)


async def test_feedback_that_cannot_be_counted_is_refused_and_that_is_counted(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = prediction_id(rig)
    assert (await refused(rig, token[:-1] + "!"))[0] == "forged"
    foreign = Minter(make_keys(b"x" * 32), NAME, "1", "00" * 32, 3).begin()
    assert (await refused(rig, foreign(0, 1, 0.9, True, [0.1] * 3)))[0] == "forged"
    assert await refused(rig, token, name="other") == (
        "wrong_model",
        f"the prediction_id is of the model {NAME!r}",
    )
    for label in ("none", -1, 3):
        assert (await refused(rig, token, label))[0] == "wrong_label"
    other_graph = Minter(KEYS, NAME, "1", "00" * 32, 3).begin()
    assert (await refused(rig, other_graph(0, 1, 0.9, True, [0.1] * 3)))[0] == "not_served"
    other_version = Minter(KEYS, NAME, "2", rig.monitored.graph.hex() * 8, 3).begin()
    assert (await refused(rig, other_version(0, 1, 0.9, True, [0.1] * 3)))[0] == "not_served"
    assert (await rig.take(token, 1)).name == "counted"
    assert (await refused(rig, token, 0))[0] == "repeated"
    now_s = time.time()
    old = prediction_id(rig)
    monkeypatch.setattr(time, "time", lambda: now_s + 3_700)
    assert await refused(rig, old) == ("expired", "the prediction_id is older than 3600 s")
    assert rig.samples("octet_live_accuracy") == {(): 1}
    counted = rig.samples("octet_feedback_total")
    assert counted == {
        ("forged",): 2, ("wrong_label",): 3, ("not_served",): 2, ("counted",): 1, ("repeated",): 1,
        ("expired",): 1, ("wrong_model",): 1,
    }  # fmt: skip


async def test_a_label_that_is_a_number_by_name_is_taken_by_its_name(rig: Rig) -> None:
    """Names are text, indices are numbers: nobody has to guess which is meant."""
    assert (
        await rig.take(prediction_id(rig), "1")
    ).name == "wrong_label"  # no label of this model is called so
    assert (await rig.take(prediction_id(rig), 1)).name == "counted"
