import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from service.metrics import MULTIPROCESS_VARIABLE, Metrics
from tests.conftest import ROOT

COUNT = """
from service.metrics import Metrics
metrics = Metrics()
metrics.requests.labels("m", "1", "/r", "200").inc(2)
metrics.threads.set(3)
metrics.connections.set(5)
metrics.request_seconds.labels("m", "1", "/r").observe_all([0.1, 0.2])
"""


def samples(text: bytes) -> dict[str, float]:
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_each_metric_has_a_help_text_and_the_prefix_of_the_service() -> None:
    metrics = Metrics()
    metrics.queue_depth.labels("m", "1").set(2)
    families = list(text_string_to_metric_families(metrics.render().decode()))
    ours = [family for family in families if not family.name.startswith(("process_", "python_"))]
    assert {family.name for family in ours} == {
        "octet_requests",
        "octet_request_seconds",
        "octet_in_flight",
        "octet_rows",
        "octet_queue_seconds",
        "octet_run_seconds",
        "octet_batch_rows",
        "octet_connections",
        "octet_queue_depth",
        "octet_model_load_failures",
        "octet_model_ready",
        "octet_model_info",
        "octet_model_fallback",
        "octet_shadow_compared",
        "octet_shadow_disagreements",
        "octet_shadow_abs_dp",
        "octet_shadow_dropped",
        "octet_shadow_fallback",
        "octet_review_stored",
        "octet_review_unseen",
        "octet_review_unavailable",
        "octet_confidence",
        "octet_predictions",
        "octet_accepted",
        "octet_prediction_set_size",
        "octet_ood_pvalue",
        "octet_ood_flagged",
        "octet_drift_psi",
        "octet_drift_pvalue",
        "octet_calibration_stale",
        "octet_label_prior_estimate",
        "octet_accuracy_estimated",
        "octet_calibration_info",
        "octet_calibration_age_seconds",
        "octet_feedback",
        "octet_feedback_answers",
        "octet_feedback_confidence",
        "octet_feedback_accepted",
        "octet_feedback_covered",
        "octet_live_accuracy",
        "octet_live_accepted_risk",
        "octet_live_ece",
        "octet_live_ece_null95",
        "octet_live_coverage",
        "octet_threads",
        "octet_draining",
    }
    assert all(family.documentation for family in ours)
    assert samples(metrics.render())["octet_queue_depth"] == 2


@given(values=st.lists(st.floats(0, 20) | st.sampled_from([0.0005, 0.001, 5.0, 10.0]), min_size=1))
def test_many_values_at_once_count_as_they_do_one_by_one(values: list[float]) -> None:
    at_once, one_by_one = Metrics(), Metrics()
    at_once.request_seconds.labels("m", "1", "/r").observe_all(values)
    for value in values:
        one_by_one.request_seconds.labels("m", "1", "/r").observe(value)
    expected = lines_of(one_by_one, "octet_request_seconds")
    found = lines_of(at_once, "octet_request_seconds")
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert value == pytest.approx(expected[name])


def test_values_that_were_counted_by_bucket_count_as_they_do_one_by_one() -> None:
    counted, one_by_one = Metrics(), Metrics()
    counted.prediction_set_size.labels("m", "1", "0.1").add_counts([2, 0, 1, 0, 0, 0, 0, 0, 0, 1], 105.0)
    for size in (1, 1, 3, 100):
        one_by_one.prediction_set_size.labels("m", "1", "0.1").observe(size)
    name = "octet_prediction_set_size"
    assert lines_of(counted, name) == lines_of(one_by_one, name)


def lines_of(metrics: Metrics, family: str) -> dict[str, float]:
    lines = metrics.render().decode().splitlines()
    return {line.split()[0]: float(line.split()[1]) for line in lines if line.startswith(family)}


def test_many_values_of_no_labels_at_all_are_refused_as_one_is() -> None:
    with pytest.raises(ValueError, match="label"):
        Metrics().request_seconds.observe_all([1.0])


def test_two_sets_of_metrics_do_not_share_their_counts() -> None:
    one, other = Metrics(), Metrics()
    one.threads.set(3)
    assert samples(other.render())["octet_threads"] == 0


def test_what_several_processes_count_is_added_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {**os.environ, MULTIPROCESS_VARIABLE: str(tmp_path)}
    processes = [subprocess.Popen([sys.executable, "-c", COUNT], cwd=ROOT, env=environment) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    monkeypatch.setenv(MULTIPROCESS_VARIABLE, str(tmp_path))
    counted = samples(Metrics().render())
    assert counted["octet_requests_total"] == 4
    assert counted["octet_threads"] == 6
    assert counted["octet_request_seconds_count"] == 4
    assert counted["octet_connections"] == 5  # of each, told apart by `pid`
    assert not any(name.startswith("process_") for name in counted)  # those are of one process only
