"""Latency is measured in turns; nothing here depends on how fast anything is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from training import latency
from training.latency import measure_latency


class Turn:
    """Stands for a predictor: notes its runs and lets a made-up clock go on."""

    def __init__(self, name: str, costs_ms: list[float], runs: list[str], clock: list[float]) -> None:
        self.name, self.costs_ms, self.runs, self.clock = name, costs_ms, runs, clock

    def run_feeds(self, feeds: dict[str, Any]) -> None:
        assert list(feeds) == ["x"]
        self.clock[0] += self.costs_ms[self.runs.count(self.name)] / 1e3
        self.runs.append(self.name)


def test_graphs_take_turns_and_the_median_leaves_out_warm_up_and_hiccups(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, runs = [0.0], []
    monkeypatch.setattr(latency.time, "perf_counter", lambda: clock[0])
    predictors: Any = {
        "fp32": Turn("fp32", [100, 4, 4, 500, 4, 5], runs, clock),
        "int8": Turn("int8", [100, 1, 2, 3, 2, 900], runs, clock),
    }
    found = measure_latency(predictors, {"x": np.zeros(1)}, rounds=5)
    assert runs == ["fp32", "int8"] * 6
    assert found == pytest.approx({"fp32": 4, "int8": 2})
