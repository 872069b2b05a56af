"""Figures and tables, from results that were made up."""

import json
from pathlib import Path

import numpy as np
import pytest

from bench.figures import FIGURES
from bench.load import Load
from bench.report import figure_table, markdown, write_reports
from bench.results import Results, Sample
from bench.server import Memory


def load(per_s: float, latency_s: float = 0.01) -> Load:
    return Load(1.0, np.full(int(per_s), latency_s), np.zeros(0), {200: int(per_s)}, 0, 0, 0.1)


@pytest.fixture
def results() -> Results:
    found = Results(machine={"processor": "a processor", "python": "3"})
    found.ceilings = [
        {"cnn": {1: 800.0, 8: best}, "lstm": {1: 100.0, 8: 200.0}} for best in (900, 1000, 5000)
    ]
    for per_s in (790, 800, 5):
        found.samples.append(Sample.of(load(per_s), "octet", 2, "binary", "cnn", 32))
    found.samples.append(Sample.of(load(780), "octet", 2, "json", "cnn", 32))
    found.samples.append(Sample.of(load(500, 0.03), "octet", 2, "binary", "cnn", 128))
    found.samples.append(Sample.of(load(195), "fastapi", 2, "json", "cnn", 32))
    found.samples.append(Sample.of(load(100), "octet", 2, "binary", "cnn", due_per_s=100))
    found.memories["octet, 1 process, at start"] = Memory(120.0, 100.0, 1)
    found.starts_s["octet, 1 process"] = 1.6
    found.failures["some peer"] = "it did not start"
    return found


def test_figures_are_ratios_of_medians_and_say_what_they_reach(results: Results) -> None:
    found = {
        figure.title: (figure.measure(results), figure.verdict(figure.measure(results))) for figure in FIGURES
    }
    assert found["throughput / bare ceiling, CNN, binary, 32 connections"] == (pytest.approx(0.79), "must")
    assert found["the same, spoken-digit LSTM"] == (None, "not measured")
    assert found["JSON / binary throughput"] == (pytest.approx(780 / 790), "aim")
    assert found["/ plain FastAPI + pydantic, 2 processes, JSON"] == (pytest.approx(4), "must")
    assert found["p99 at 128 connections, CNN, ms"] == (pytest.approx(30), "must")
    assert found["start to ready, both models, s"] == (1.6, "MISSED")
    assert found["resident memory of one process, MB"] == (120.0, "must")


def test_the_report_holds_every_server_and_every_failure(results: Results, tmp_path: Path) -> None:
    write_reports(results, tmp_path / "out")
    text = (tmp_path / "out" / "results.md").read_text()
    assert text == markdown(results)
    assert figure_table(results) in text
    assert "| some peer | it did not start |" in text
    assert "| fastapi |" in text
    assert "a processor" in text
    assert (tmp_path / "out" / "latency.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "out" / "results.json").read_text())["failures"] == results.failures
