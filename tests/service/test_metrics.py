import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.metrics import MULTIPROCESS_VARIABLE, Metrics
from tests.conftest import ROOT

COUNT = """
from service.metrics import Metrics
metrics = Metrics()
metrics.requests.labels("m", "1", "/r", "200").inc(2)
metrics.threads.set(3)
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
        "octet_queue_depth",
        "octet_model_ready",
        "octet_model_info",
        "octet_model_fallback",
        "octet_threads",
        "octet_draining",
    }
    assert all(family.documentation for family in ours)
    assert samples(metrics.render())["octet_queue_depth"] == 2


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
    assert not any(name.startswith("process_") for name in counted)  # those are of one process only
