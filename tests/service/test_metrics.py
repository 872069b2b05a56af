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
