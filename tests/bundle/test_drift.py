"""The tests of drift against scipy, and against the laws that they claim."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from bundle.drift import (
    ALARM_P_VALUE,
    EXCEEDANCE_ALPHA,
    Finding,
    compare,
    estimate_priors,
    exceedance_p_value,
    no_spread,
    spread_of,
    stability_index,
)
from bundle.evidence import Evidence
from bundle.predictor import load_predictor
from tests.calibrated import examples, make_calibrated_bundle

# As skewed as the confidences of a good model.
SKEWED = np.array([0.002, 0.004, 0.004, 0.01, 0.01, 0.02, 0.02, 0.03, 0.1, 0.3, 0.5])


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    found = load_predictor(make_calibrated_bundle(tmp_path_factory.mktemp("models"))).evidence
    assert found is not None
    return found


def test_the_index_is_the_sum_of_its_definition() -> None:
    reference, found = np.array([50, 30, 20]), np.array([10, 10, 20])
    a, b = (found + 0.5) / 41.5, (reference + 0.5) / 101.5
    index, p_value = stability_index(reference, found)
    assert index == pytest.approx(sum((a - b) * np.log(a / b)))
    assert p_value == pytest.approx(stats.chi2.sf(index / (1 / 40 + 1 / 100), 2))


def draws(shares: np.ndarray, m: int, n: int, times: int, seed: int = 0) -> np.ndarray:
    """(times, 2) indices and p-values while nothing changes."""
    random = np.random.default_rng(seed)
    return np.array(
        [stability_index(random.multinomial(m, shares), random.multinomial(n, shares)) for _ in range(times)]
    )


def test_the_index_has_the_mean_and_the_quantile_of_its_law() -> None:
    """The figures of 10 bins, 1,000 rows, and 5,000 held-out inputs."""
    indices, p_values = draws(np.full(10, 0.1), 5_000, 1_000, 3_000).T
    scale = 1 / 1_000 + 1 / 5_000
    assert indices.mean() == pytest.approx(9 * scale, rel=0.05)
    assert np.quantile(indices, 0.99) == pytest.approx(stats.chi2.ppf(0.99, 9) * scale, rel=0.1)
    assert (p_values < 0.05).mean() == pytest.approx(0.05, abs=0.015)
    few, _ = draws(np.full(10, 0.1), 5_000, 200, 1_000).T
    assert few.mean() == pytest.approx(0.047, rel=0.1)


@pytest.mark.parametrize("m", [300, 5_000])
def test_bins_that_are_nearly_empty_raise_no_false_alarms(m: int) -> None:
    _, p_values = draws(SKEWED, m, 500, 3_000).T
    assert (p_values < 0.05).mean() == pytest.approx(0.05, abs=0.02)
    assert (p_values < ALARM_P_VALUE).mean() <= 0.004


def test_bins_that_the_evidence_never_saw_count_with_their_neighbours() -> None:
    index, p_value = stability_index(np.array([0, 0, 50, 50, 1]), np.array([40, 0, 30, 30, 0]))
    assert (index, p_value) == stability_index(np.array([50, 51]), np.array([70, 30]))
    assert stability_index(np.array([3, 1]), np.array([1, 9])) == (0.0, 1.0)  # there is nothing to compare


@pytest.mark.parametrize(("m", "rows"), [(5_000, 500), (300, 500), (300, 2_000)])
def test_exceedances_are_as_rare_as_they_are_said_to_be(m: int, rows: int) -> None:
    """Also where few held-out inputs let the true rate be twice as large."""
    random = np.random.default_rng(1)
    k = int(0.01 * (m + 1))
    p_values = []
    for _ in range(3_000):
        bounds = np.sort(random.random((2, m)), axis=1)[:, k - 1]
        exceeding = int((random.random((rows, 2)) <= bounds).any(axis=1).sum())
        p_values.append(exceedance_p_value(m, rows, exceeding))
    assert (np.array(p_values) < 0.05).mean() <= 0.06
    assert (np.array(p_values) < ALARM_P_VALUE).mean() <= 0.003


def test_exceedances_see_a_few_strange_inputs() -> None:
    """5 % of 500 inputs are foreign, and nearly all of those are seen: the power is over .98."""
    random = np.random.default_rng(2)
    seen = random.binomial(500, 0.05 * 0.97 + 0.95 * EXCEEDANCE_ALPHA, 2_000)
    power = np.mean([exceedance_p_value(5_000, 500, int(each)) < ALARM_P_VALUE for each in seen])
    assert power >= 0.98
    few = random.binomial(100, 0.2 * 0.3 + 0.8 * EXCEEDANCE_ALPHA, 2_000)
    power = np.mean([exceedance_p_value(5_000, 100, int(each)) < ALARM_P_VALUE for each in few])
    assert 0.3 < power < 0.8


def test_too_few_held_out_inputs_say_nothing_of_exceedances() -> None:
    assert exceedance_p_value(98, 500, 500) == 1.0
    assert exceedance_p_value(99, 500, 500) < 0.01


CONFUSION = np.full((10, 10), 2) + np.diag(np.full(10, 970))


@pytest.mark.parametrize(("rows", "error"), [(200, 0.06), (1_000, 0.03)])
def test_priors_that_have_changed_are_found_again(rows: int, error: float) -> None:
    """Half of the inputs are of one label now, which was a tenth."""
    random = np.random.default_rng(3)
    priors = np.array([0.5, *np.full(9, 0.5 / 9)])
    answered = priors @ (CONFUSION / CONFUSION.sum(axis=1, keepdims=True))
    errors = []
    for _ in range(200):
        found = estimate_priors(CONFUSION.tolist(), random.multinomial(rows, answered))
        assert found is not None
        assert found.sum() == pytest.approx(1)
        errors.append(abs(found[0] - 0.5))
    assert np.mean(errors) <= error / 2
    assert np.quantile(errors, 0.95) <= 1.2 * error


def test_priors_are_exact_where_the_answers_are_expected_ones() -> None:
    confusion = np.array([[80, 15, 5], [10, 150, 40], [0, 30, 70]])
    priors = np.array([0.2, 0.5, 0.3])
    answered = priors @ (confusion / confusion.sum(axis=1, keepdims=True))
    found = estimate_priors(confusion.tolist(), np.round(answered * 1e6).astype(int))
    assert found == pytest.approx(priors, abs=1e-5)


def test_a_matrix_that_tells_labels_apart_no_better_than_chance_estimates_nothing() -> None:
    assert estimate_priors([[5, 5], [5, 5]], np.array([3, 7])) is None
    assert estimate_priors([[9, 1, 0], [1, 9, 0], [5, 5, 0]], np.array([3, 7, 0])) is None


def judged(evidence: Evidence, seed: int, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Confidences, novelty p-values and answers that are spread as the evidence says."""
    random = np.random.default_rng(seed)
    references = evidence.facts.references

    def between(name: str) -> np.ndarray:
        edges = np.array([0.0, *references[name].edges, 1.0])
        counts = np.array(references[name].counts)
        places = random.choice(len(counts), n, p=counts / counts.sum())
        return edges[places] + (edges[places + 1] - edges[places]) * random.uniform(0.01, 1, n)

    answers = np.sum(evidence.facts.confusion, axis=0)
    return between("confidence"), between("novelty"), random.choice(3, n, p=answers / answers.sum())


def test_what_is_spread_as_the_evidence_alarms_nobody(evidence: Evidence) -> None:
    for seed in range(20):
        spread = spread_of(evidence, *judged(evidence, seed, 600))
        findings = compare(evidence, spread)
        assert [(each.signal, each.test) for each in findings] == [
            ("confidence", "psi"), ("novelty", "psi"), ("novelty", "exceedance"), ("label", "psi"),
        ]  # fmt: skip
        assert not any(each.alarms for each in findings)


def test_each_test_sees_its_own_change(evidence: Evidence) -> None:
    confidences, novelty, answers = judged(evidence, 0, 600)
    changed = {
        ("confidence", "psi"): (confidences * 0.8, novelty, answers),
        ("novelty", "exceedance"): (confidences, np.where(np.arange(600) % 10 == 0, 0.005, novelty), answers),
        ("label", "psi"): (confidences, novelty, np.where(np.arange(600) % 2 == 0, 1, answers)),
    }
    for expected, columns in changed.items():
        findings = compare(evidence, spread_of(evidence, *columns))
        alarms = {(each.signal, each.test) for each in findings if each.alarms}
        assert expected in alarms
        assert {signal for signal, _ in alarms} == {expected[0]}


def test_a_small_difference_of_many_rows_is_certain_and_no_alarm() -> None:
    small = Finding("label", "psi", *stability_index(np.array([50, 50]) * 500, np.array([53, 47]) * 2_000))
    assert small.p_value < ALARM_P_VALUE
    assert not small.alarms
    large = Finding("label", "psi", *stability_index(np.array([50, 50]) * 500, np.array([60, 40]) * 2_000))
    assert large.alarms


def test_spreads_add_up(evidence: Evidence) -> None:
    columns = judged(evidence, 0, 30)
    whole = spread_of(evidence, *columns)
    parts = [spread_of(evidence, *(column[part::2] for column in columns)) for part in (0, 1)]
    total = no_spread(evidence) + parts[0] + parts[1]
    assert total.rows == whole.rows == 30
    for name in ("confidence", "novelty", "labels"):
        assert getattr(total, name).tolist() == getattr(whole, name).tolist()
    assert (total.exceeding, total.sum_confidence) == (whole.exceeding, pytest.approx(whole.sum_confidence))


def test_a_bundles_own_test_inputs_have_not_drifted(tmp_path: Path, evidence: Evidence) -> None:
    """By the code that serves: the references were gathered on another split."""
    predictor = load_predictor(make_calibrated_bundle(tmp_path))
    found = examples(7)
    rows = predictor.rows(found.items)
    runs = [predictor.answer(rows[start : start + 8])[0].run.judged for start in range(0, len(rows), 8)]
    judged = runs[0].joined(runs)
    spread = spread_of(evidence, judged.confidences, judged.novelty_p_values, judged.answers)
    assert spread.rows == len(found)
    assert not any(each.alarms for each in compare(evidence, spread))
