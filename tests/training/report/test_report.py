"""The page: it needs nothing from elsewhere, holds no item of the data, and tells the document's figures."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from bundle.manifest import Precision
from bundle.media import TensorDecoding
from training.errors import ReportError
from training.report import report as module
from training.report.answers import Answers, Subject
from training.report.figures import check_figures
from training.report.network import look_inside
from training.report.numbers import percent
from training.report.page import render_page
from training.report.report import MAX_PAGE_BYTES, Report, make_report

SECTIONS = [
    "calibration", "selection", "sets", "novelty", "mistakes", "slices", "int8", "network", "origin",
]  # fmt: skip


def sections(page: str) -> list[str]:
    return re.findall(r'<section id="(\w+)">', page)


def pictures(page: bytes) -> list[np.ndarray]:
    """Every picture that is inside a page."""
    found = re.findall(rb"data:image/png;base64,\s*([A-Za-z0-9+/=\s]+)\"", page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(each)))) for each in found]


def test_the_page_refers_to_nothing_outside_itself(report: Report) -> None:
    page = report.page.decode()
    assert len(report.page) <= MAX_PAGE_BYTES
    assert re.findall(r"https?:|//[a-z]|@import|<script|<link|<iframe|<object|<base| on\w+=", page) == []
    for target in re.findall(r"(?:src|href)\s*=\s*[\"']?([^\"'\s>]*)", page):
        assert target.startswith(("#", "data:image/png;base64,")), target
    for target in re.findall(r"url\(([^)]*)\)", page):
        assert target.startswith("#"), target


def test_every_name_inside_the_page_is_unique_and_every_link_leads_to_one(report: Report) -> None:
    page = report.page.decode()
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(ids)
    assert set(re.findall(r"url\(#([^)]+)\)", page)) <= set(ids)


def test_the_page_has_all_sections_and_the_figures_of_the_document(report: Report) -> None:
    page = report.page.decode()
    assert sections(page) == SECTIONS
    measures = report.document.graphs["int8"]
    assert f"{percent(measures.accuracy, 2)}</b>" in page
    assert measures.sha256 in page
    for each in measures.selection.thresholds:
        assert f"{each.threshold:.4f}" in page
    for picture in (
        "reliability diagram", "risk over coverage", "confusion matrix", "coverage of prediction sets",
        "accuracy by label", "accuracy by group", "change of probabilities", "latency by batch size",
        "difference map", "contributions to the logits", "activation of every feature",
        "what answers to drawn digits rest on",
    ):  # fmt: skip
        assert f'aria-label="{picture}"' in page, picture


def test_no_item_of_the_data_stands_in_the_page(report: Report, subject: Subject) -> None:
    assert subject.items is not None
    found = pictures(report.page)
    assert len(found) >= 4
    items = {item.tobytes() for item in subject.items}
    for image in found:
        grey = image if image.ndim == 2 else image[..., 0]
        for top in range(grey.shape[0] - 3):
            for left in range(grey.shape[1] - 3):
                assert np.ascontiguousarray(grey[top : top + 4, left : left + 4]).tobytes() not in items


def test_files_have_the_names_of_the_bundle(report: Report) -> None:
    assert {name: len(content) for name, content in report.files().items()} == {
        "report.json": len(report.document.to_json()),
        "report.html": len(report.page),
    }


def test_figures_come_first_where_a_model_has_any(
    report: Report, subject: Subject, answers: Mapping[Precision, Answers]
) -> None:
    figures = check_figures("mnist-cnn", report.document.graphs["int8"], report.document.comparison)
    document = replace(report.document, figures=figures)
    page = render_page(subject.manifest, document, look_inside(subject, answers), []).decode()
    assert sections(page) == ["figures", *SECTIONS]
    assert page.count("✗ missed") >= 1  # a tiny model reaches few of a real one's figures
    assert "not measured" in page


def test_a_page_that_is_too_large_is_refused(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PAGE_BYTES", 1000)
    with pytest.raises(ReportError, match=r"report.html has [0-9,]+ bytes; 1,000 are allowed"):
        make_report(subject)


def test_a_model_with_one_graph_and_no_evidence_has_a_report_too(subject: Subject) -> None:
    """As `octet import` makes them."""
    predictor = replace(subject.predictors["fp32"], evidence=None)
    graph = subject.manifest.graphs["fp32"].model_copy(update={"temperature": None, "metrics": None})
    manifest = subject.manifest.model_copy(
        update={"graphs": {"fp32": graph}, "decoding": TensorDecoding(), "outputs": subject.manifest.outputs}
    )
    bundle = replace(predictor.bundle, manifest=manifest)
    found = make_report(
        replace(subject, predictors={"fp32": replace(predictor, bundle=bundle)}, strangers={})
    )
    assert sections(found.page.decode()) == [
        "calibration",
        "selection",
        "mistakes",
        "slices",
        "network",
        "origin",
    ]
    assert found.document.comparison is None
    assert found.document.graphs["fp32"].sets == ()


def test_an_lstm_is_shown_over_time(sounds: Subject) -> None:
    page = make_report(sounds).page
    assert b'aria-label="states over time"' in page
    assert b'aria-label="weights from inputs to gates"' in page
    assert len(page) <= MAX_PAGE_BYTES
