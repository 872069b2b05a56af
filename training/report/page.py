"""`report.html`: the report for people, one page without any item of the data."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from bundle.manifest import Manifest, Precision
from training.report import charts
from training.report.confidence_section import describe_confidence
from training.report.document import Document
from training.report.figures import Figure
from training.report.markup import (
    Html,
    Section,
    facts,
    heading,
    pair,
    paragraph,
    picture,
    table,
    tiles,
    verdict,
    write_page,
)
from training.report.measures import Measures
from training.report.network import Network
from training.report.network_section import describe_network
from training.report.numbers import bounds, figure, interval, milliseconds, percent


def render_page(manifest: Manifest, document: Document, network: Network, drawn: list[Html]) -> bytes:
    """Return the content of `report.html`.

    Args:
        drawn: pictures of the network's weights, which come first in its section.
    """
    precision, measures = next(iter(document.graphs.items()))
    sections = [
        *_figures(document),
        *describe_confidence(document, precision, measures),
        _mistakes(manifest, measures),
        _slices(measures),
        *_comparison(manifest, document),
        *describe_network(manifest, network, drawn),
        _origin(manifest, document),
    ]
    return write_page(f"{manifest.name} {manifest.version}", _head(manifest, precision, document), sections)


def _head(manifest: Manifest, precision: Precision, document: Document) -> list[Html]:
    measures = document.graphs[precision]
    title = f"<h1>{escape(manifest.name)} <small>version {manifest.version}</small></h1>"
    about = (
        f"{manifest.description} Measured on {measures.n:,} items that nothing was fitted on, through the "
        f"code that serves; the {precision} graph unless another is named."
    )
    return [Html(title), paragraph(about), tiles(_tiles(document, measures))]


def _tiles(document: Document, measures: Measures) -> Iterator[tuple[str, str]]:
    yield percent(measures.accuracy, 2), f"of answers are right (n = {measures.n:,})"
    found = measures.calibration
    yield percent(found.ece15, 2), f"calibration error; p = {found.null_p_value:.2g} of being calibrated"
    chosen = measures.threshold_for(measures.selection.default_target_risk)
    if chosen is not None:
        yield percent(chosen.coverage), f"accepted at a target risk of {percent(chosen.target_risk)}"
        yield percent(chosen.risk, 2), "of what is accepted is wrong"
    sets = measures.sets_at(0.05)
    if sets is not None:
        yield percent(sets.coverage), "of sets at alpha .05 hold the right label"
    if document.comparison is not None:
        ratios = document.comparison.latency_ratio
        speed = f", {ratios[8]:.2f} of its time at batch 8" if 8 in ratios else ""
        yield f"{document.comparison.size_ratio:.2f}", f"of fp32’s size{speed}"


def _figures(document: Document) -> Iterator[Section]:
    """The figures that the model must reach."""
    if not document.figures:
        return

    def row(each: Figure) -> tuple[str, str, str, Html]:
        return each.name, figure(each.value), bounds(each.low, each.high), verdict(each.held)

    head = ("figure (int8)", "measured", "must be", "")
    yield Section("figures", "Does it hold?", [table(head, map(row, document.figures))])


def _mistakes(manifest: Manifest, measures: Measures) -> Section:
    wrong = sum(sum(row) for row in measures.confusion) - sum(
        row[i] for i, row in enumerate(measures.confusion)
    )
    text = f"{wrong:,} of {measures.n:,} answers are wrong."
    if len(manifest.labels) > charts.MAX_LABELS:
        return Section("mistakes", "Mistakes", [paragraph(text)])
    caption = (
        f"{text} Numbers are counts; the shade is the root of the share of each row, so that rare mistakes "
        "show."
    )
    return Section(
        "mistakes", "Mistakes", [picture(charts.draw_confusion(measures, manifest.labels), caption)]
    )


def _slices(measures: Measures) -> Section:
    pieces: list[Html] = []
    head = ("", "n", "accuracy", "95 % interval", "confidence", "calibration error", "sets at .05", "flagged")
    for kind, found in measures.slices.items():
        rows = [
            (
                each.name,
                f"{each.n:,}",
                percent(each.accuracy, 2),
                interval(*each.ci95),
                percent(each.confidence, 2),
                percent(each.ece15, 2),
                percent(each.coverage),
                percent(each.false_flags),
            )
            for each in found
        ]
        pieces.append(heading(f"By {kind}"))
        if len(found) <= charts.MAX_LABELS:
            caption = "The calibration error of so few answers is mostly chance."
            pieces.append(picture(charts.draw_slices(kind, found), caption))
        pieces.append(table(head, rows))
    return Section("slices", "Parts of the test split", pieces)


def _comparison(manifest: Manifest, document: Document) -> Iterator[Section]:
    found = document.comparison
    if found is None:
        return
    int8, fp32 = document.graphs["int8"], document.graphs["fp32"]
    rows = [
        ("size", f"{found.size_bytes['int8']:,} bytes", f"{found.size_bytes['fp32']:,} bytes",
         f"{found.size_ratio:.2f}"),
        *(
            (f"latency at batch {size}", milliseconds(found.latency_ms["int8"][size]),
             milliseconds(found.latency_ms["fp32"][size]), f"{ratio:.2f}")
            for size, ratio in found.latency_ratio.items()
        ),
        ("accuracy", percent(int8.accuracy, 2), percent(fp32.accuracy, 2), ""),
        ("log loss", f"{int8.nll:.5f}", f"{fp32.nll:.5f}", ""),
        ("agreement", percent(found.agreement, 2), "", ""),
        ("right in one alone", f"{found.gained:,}", f"{found.lost:,}", ""),
        ("largest change of a probability, mean", figure(found.mean_shift), "", ""),
        ("and at most", figure(found.max_shift), "", ""),
    ]  # fmt: skip
    flips = [f"{each.label}: {each.flips} of {each.n:,}" for each in found.flips if each.flips]
    pieces = [
        table(("", "int8", "fp32", "int8 / fp32"), rows),
        paragraph("Other answers in int8, by right label: ", ", ".join(flips) or "none", "."),
    ]
    pictures = [
        picture(charts.draw_shifts(found), "How far the probability that moves most moves, by input.")
    ]
    if found.latency_ratio:
        caption = f"Median of interleaved runs, one thread, {manifest.provenance.measured_on}."
        pictures.append(picture(charts.draw_latencies(found), caption))
    if len(manifest.labels) <= charts.MAX_LABELS:
        caption = "Difference map: mean of p(int8) - p(fp32) of every label, for inputs of each right label."
        pictures.append(picture(charts.draw_difference(found, manifest.labels), caption))
    yield Section("int8", "int8 beside fp32", [*pieces, pair(*pictures)])


def _origin(manifest: Manifest, document: Document) -> Section:
    provenance = manifest.provenance
    splits = ", ".join(f"{name} {size:,}" for name, size in document.splits.items())
    rows = [
        ("made by", f"{provenance.recipe}, {provenance.created_at:%Y-%m-%d}"),
        ("splits", splits),
        *((f"{name} graph", f"SHA-256 {each.sha256}") for name, each in document.graphs.items()),
        ("data", f"SHA-256 {provenance.data_sha256}"),
        ("code", f"commit {provenance.git_commit}; weights {provenance.weights_commit}"),
        ("measured on", provenance.measured_on),
    ]
    return Section(
        "origin",
        "Where it comes from",
        [
            facts(rows),
            paragraph(
                "This page holds averages over the data and pictures of the network and of synthetic "
                "inputs, and no item of the data. The same figures for programs lie in report.json.",
                dim=True,
            ),
        ],
    )
