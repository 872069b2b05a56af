"""What programs read."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from bundle.evidence import EvidenceDocument
from training.report.answers import Subject
from training.report.figures import Figure
from training.report.report import Report


def test_the_document_tells_the_figures_of_the_manifest_and_of_the_evidence(
    report: Report, subject: Subject
) -> None:
    content = json.loads(report.document.to_json())
    assert (content["schema_version"], content["model"], content["version"]) == (1, "calibrated", "1")
    assert content["splits"] == dict(subject.sizes)
    assert list(content["graphs"]) == ["int8", "fp32"]
    bundle = subject.predictors["int8"].bundle
    evidence = EvidenceDocument.model_validate_json(bundle.files["confidence.json"])
    for precision, found in content["graphs"].items():
        graph = subject.manifest.graphs[precision]
        assert graph.metrics is not None
        assert graph.temperature is not None
        assert found["sha256"] == subject.manifest.files[graph.file]
        assert found["accuracy"] == pytest.approx(graph.metrics.accuracy)
        assert found["nll"] == pytest.approx(graph.metrics.nll, rel=1e-5)
        assert found["brier"] == pytest.approx(graph.metrics.brier, rel=1e-5)
        assert found["calibration"]["ece15"] == pytest.approx(graph.temperature.ece_after, rel=1e-5)
        assert found["calibration"]["ece15_uncalibrated"] == pytest.approx(
            graph.temperature.ece_before, rel=1e-5
        )
        assert [tuple(row) for row in found["confusion"]] == list(evidence.graphs[precision].confusion)
        assert {(each["alpha"], each["scope"]) for each in found["sets"]} == {
            (alpha, scope) for alpha in (0.1, 0.05, 0.01) for scope in ("marginal", "label")
        }
        assert set(found["slices"]) == {"label", "group"}
    assert content["comparison"]["agreement"] > 0.99
    assert (content["figures"], content["held"]) == ([], None)


def test_what_is_no_number_becomes_null_and_never_nan(report: Report) -> None:
    measures = replace(report.document.graphs["int8"], nll=float("inf"), brier=float("nan"))
    text = replace(report.document, graphs={"int8": measures}).to_json().decode()
    assert "NaN" not in text
    assert "Infinity" not in text
    assert json.loads(text)["graphs"]["int8"]["nll"] is None


@pytest.mark.parametrize(
    ("verdicts", "held"), [([True, True], True), ([True, False], False), ([None], None), ([None, True], True)]
)
def test_a_report_holds_where_all_that_was_measured_does(
    report: Report, verdicts: list[bool | None], held: bool | None
) -> None:
    figures = tuple(Figure("x", None if each is None else 1.0, 0.0, None, each) for each in verdicts)
    assert replace(report.document, figures=figures).held is held
