from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from bundle.answer import Outputs, Run
from service.statistics import Statistics, add_up

NONE = {"count": 0, "ns": 0}


def run(collate_s: float, run_s: float) -> Run:
    return Run(Outputs({"logits": np.zeros((1, 3), np.float32)}), 1.0, collate_s, run_s)


def counted(*runs: tuple[int, float, float]) -> dict[str, Any]:
    statistics = Statistics()
    for rows, collate_s, run_s in runs:
        statistics.ran(rows, run(collate_s, run_s))
    statistics.finish([0.5], ok=True)
    statistics.finish([0.25], ok=False)
    return statistics.render()


def test_before_the_first_request_there_is_nothing() -> None:
    found = Statistics().render()
    assert (found["last_inference"], found["inference_count"], found["execution_count"]) == (0, 0, 0)
    assert found["batch_stats"] == []
    assert all(value == NONE for value in found["inference_stats"].values())


def test_rows_runs_and_requests_are_counted_with_their_times() -> None:
    found = counted((2, 0.001, 0.01), (2, 0.002, 0.03), (8, 0.004, 0.1))
    assert (found["inference_count"], found["execution_count"]) == (12, 3)
    stats = found["inference_stats"]
    assert stats["success"] == {"count": 1, "ns": 500_000_000}
    assert stats["fail"] == {"count": 1, "ns": 250_000_000}
    assert stats["compute_input"] == {"count": 3, "ns": 7_000_000}
    assert stats["compute_infer"] == {"count": 3, "ns": 140_000_000}
    assert found["batch_stats"] == [
        {
            "batch_size": 2,
            "compute_input": {"count": 2, "ns": 3_000_000},
            "compute_infer": {"count": 2, "ns": 40_000_000},
            "compute_output": NONE,
        },
        {
            "batch_size": 8,
            "compute_input": {"count": 1, "ns": 4_000_000},
            "compute_infer": {"count": 1, "ns": 100_000_000},
            "compute_output": NONE,
        },
    ]


def test_what_several_processes_counted_adds_up() -> None:
    runs = [(2, 0.001, 0.01), (8, 0.004, 0.1), (2, 0.002, 0.03)]
    together, first, second = counted(*runs), counted(*runs[:1]), counted(*runs[1:])
    found = add_up([first, second])
    assert found["batch_stats"] == together["batch_stats"]
    assert found["inference_count"] == together["inference_count"]
    assert found["execution_count"] == together["execution_count"]
    assert found["last_inference"] == second["last_inference"]
    assert found["inference_stats"]["compute_infer"] == together["inference_stats"]["compute_infer"]
    assert found["inference_stats"]["success"]["count"] == 2


def test_nothing_is_lost_where_many_threads_count() -> None:
    statistics = Statistics()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: statistics.ran(3, run(0, 0)), range(2_000)))
    assert statistics.render()["inference_count"] == 6_000
