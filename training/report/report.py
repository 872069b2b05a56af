"""Make the report of a bundle: `report.json` for programs and `report.html` for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bundle.manifest import REPORT_FILE, REPORT_PAGE, Precision
from training.errors import ReportError
from training.report.answers import Answers, Subject
from training.report.document import Document, measure_all
from training.report.inside import read_filters, read_gate_weights, read_graph
from training.report.markup import Html, heading, picture
from training.report.network import look_inside
from training.report.page import render_page
from training.report.portraits import draw_filters, draw_gates

MAX_PAGE_BYTES = 1_000_000


@dataclass(frozen=True)
class Report:
    """A finished report.

    Attributes:
        answers: of every graph, for whoever shows single items.
    """

    document: Document
    page: bytes
    answers: Mapping[Precision, Answers]

    def files(self) -> dict[str, bytes]:
        """Return file name -> content."""
        return {REPORT_FILE: self.document.to_json(), REPORT_PAGE: self.page}


def make_report(subject: Subject) -> Report:
    """Measure a bundle and write its report.

    Raises:
        ReportError: the page would be larger than a bundle may hold.
    """
    document, answers = measure_all(subject)
    page = render_page(subject.manifest, document, look_inside(subject, answers), _draw_weights(subject))
    if len(page) > MAX_PAGE_BYTES:
        raise ReportError(f"{REPORT_PAGE} has {len(page):,} bytes; {MAX_PAGE_BYTES:,} are allowed")
    return Report(document, page, answers)


def _draw_weights(subject: Subject) -> list[Html]:
    model = read_graph(subject)
    pieces = []
    if (filters := read_filters(model)) is not None:
        caption = f"The {len(filters)} kernels of the first convolution, each scaled by itself; orange adds."
        pieces += [heading("Kernels"), picture(draw_filters(filters), caption)]
    if (gates := read_gate_weights(model)) is not None:
        caption = "How strongly each mel band drives the gates of the LSTM, averaged over its units."
        pieces += [heading("Gates"), picture(draw_gates(gates), caption)]
    return pieces
