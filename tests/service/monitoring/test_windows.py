from __future__ import annotations

import numpy as np
import pytest

from bundle.drift import Spread, spread_of
from bundle.evidence import Evidence
from bundle.predictor import Predictor, load_predictor
from service.monitoring.windows import LEAST_ROWS, LONGEST_S, SHORTEST_S, Windows
from tests.calibrated import examples, make_calibrated_bundle


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return load_predictor(make_calibrated_bundle(tmp_path_factory.mktemp("models")))


@pytest.fixture(scope="module")
def evidence(predictor: Predictor) -> Evidence:
    assert predictor.evidence is not None
    return predictor.evidence


def spread(predictor: Predictor, n: int, seed: int = 0, contrast: float = 1.0) -> Spread:
    """Of real answers; with little contrast the inputs are not like those of the evidence."""
    pixels = np.stack(examples(20 + seed, n).items)
    changed = (128 + (pixels.astype(float) - 128) * contrast).astype(np.uint8)
    rows = predictor.rows(list(changed))
    runs = [predictor.answer(rows[start : start + 8])[0].run.judged for start in range(0, n, 8)]
    judged = runs[0].joined(runs)
    assert predictor.evidence is not None
    return spread_of(predictor.evidence, judged.confidences, judged.novelty_p_values, judged.answers)


@pytest.fixture(scope="module")
def usual(predictor: Predictor) -> list[Spread]:
    return [spread(predictor, LEAST_ROWS, seed) for seed in range(2)]


@pytest.fixture(scope="module")
def strange(predictor: Predictor) -> Spread:
    return spread(predictor, LEAST_ROWS, contrast=0.2)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def windows(evidence: Evidence, clock: Clock) -> Windows:
    return Windows(evidence, clock)


def test_a_window_ends_when_it_is_full_and_old_enough(
    windows: Windows, clock: Clock, usual: list[Spread]
) -> None:
    assert not windows.add(usual[0])
    clock.now_s += SHORTEST_S - 1
    assert not windows.add(usual[1])
    assert windows.last is None
    clock.now_s += 1
    assert windows.add(usual[1])
    assert windows.last is not None
    assert windows.last.rows == 3 * LEAST_ROWS == windows.rows
    clock.now_s += SHORTEST_S
    assert windows.add(usual[0])
    assert windows.last.rows == LEAST_ROWS


def test_a_window_of_few_rows_never_ends_and_is_thrown_away_after_a_day(
    windows: Windows, clock: Clock, predictor: Predictor, usual: list[Spread]
) -> None:
    windows.add(spread(predictor, LEAST_ROWS - 8))
    clock.now_s += LONGEST_S + 1
    assert not windows.add(spread(predictor, 8))
    clock.now_s += SHORTEST_S
    assert windows.add(usual[0])
    assert windows.last is not None
    assert windows.last.rows == LEAST_ROWS + 8


def test_drift_in_two_windows_in_a_row_makes_it_stale_and_two_without_make_it_valid(
    windows: Windows, clock: Clock, usual: list[Spread], strange: Spread
) -> None:
    states = []
    for each in (usual[0], strange, usual[1], strange, strange, usual[0], strange, usual[0], usual[1]):
        clock.now_s += SHORTEST_S
        assert windows.add(each)
        states.append(windows.is_stale)
    assert states == [False, False, False, False, True, True, True, True, False]


def test_it_is_told_which_tests_say_so(windows: Windows, clock: Clock, strange: Spread) -> None:
    clock.now_s += SHORTEST_S
    windows.add(strange)
    alarms = {each.signal for each in windows.findings if each.alarms}
    assert "confidence" in alarms
