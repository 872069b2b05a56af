import numpy as np
import pytest
from scipy import stats

from bundle.outcomes import (
    BINS,
    bin_of_confidence,
    calibration_error,
    coverage_band,
    null_calibration_error,
    wilson_interval,
)
from training.scores import expected_calibration_error, null_quantile


def outcomes(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    confidences = 1 - random.exponential(0.03, n).clip(max=0.7)
    return confidences, random.random(n) < confidences


def sums(confidences: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    places = np.array([bin_of_confidence(each) for each in confidences])
    counts = np.bincount(places, minlength=BINS)
    return (
        counts,
        np.bincount(places, weights=confidences, minlength=BINS),
        np.bincount(places, weights=right, minlength=BINS),
    )


@pytest.mark.parametrize(("right", "n"), [(0, 5), (5, 5), (470, 500), (1, 3)])
def test_the_interval_of_a_share_is_scipys(right: int, n: int) -> None:
    expected = stats.binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert wilson_interval(right, n) == pytest.approx((expected.low, expected.high))


def test_nothing_is_known_of_the_share_of_nothing() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("confidence", "place"), [(0.0, 0), (1 / 15, 0), (0.067, 1), (0.5, 7), (1.0, 14), (14 / 15, 13)]
)
def test_bins_have_their_upper_edges(confidence: float, place: int) -> None:
    assert bin_of_confidence(confidence) == place


def test_the_calibration_error_is_that_of_the_evaluation() -> None:
    confidences, right = outcomes(500)
    expected = expected_calibration_error(confidences, right)
    assert calibration_error(*sums(confidences, right)) == pytest.approx(expected)


@pytest.mark.parametrize("n", [50, 500, 5_000])
def test_the_band_of_a_calibrated_model_is_that_of_its_single_answers(n: int) -> None:
    """And never narrower by more than the noise of both: they differ by what the bins hide."""
    confidences, right = outcomes(n)
    counts, totals, _ = sums(confidences, right)
    assert null_calibration_error(counts, totals) == pytest.approx(null_quantile(confidences), rel=0.12)


def test_coverage_lies_in_its_band_as_often_as_the_band_says() -> None:
    """By draws of held-out inputs and of new ones, as conformal prediction has it."""
    random = np.random.default_rng(4)
    n, m, alpha = 200, 300, 0.1
    k = int(np.ceil((n + 1) * (1 - alpha)))
    thresholds = np.sort(random.random((2_000, n)), axis=1)[:, k - 1 : k]
    covered = (random.random((2_000, m)) <= thresholds).mean(axis=1)
    low, high = coverage_band(n, alpha, m)
    assert ((covered >= low) & (covered <= high)).mean() == pytest.approx(0.955, abs=0.02)


def test_the_bands_of_the_reference() -> None:
    """99 % bands of 10,000 inputs after 5,000."""
    assert coverage_band(5_000, 0.1, 10_000, 0.99) == pytest.approx((0.8863, 0.9130), abs=2e-4)
    assert coverage_band(5_000, 0.05, 10_000, 0.99) == pytest.approx((0.9399, 0.9593), abs=2e-4)


def test_sets_that_can_exclude_nothing_hold_everything() -> None:
    assert coverage_band(18, 0.05, 10) == (1.0, 1.0)
