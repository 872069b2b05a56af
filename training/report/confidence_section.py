"""The report's sections on confidence: calibration, thresholds, prediction sets, novelty."""

from __future__ import annotations

from collections.abc import Iterator

from bundle.manifest import Precision
from training.report import charts
from training.report.document import Document
from training.report.markup import Section, heading, pair, paragraph, picture, table, together, verdict
from training.report.measures import Measures
from training.report.numbers import figure, interval, percent


def describe_confidence(document: Document, precision: Precision, measures: Measures) -> Iterator[Section]:
    """Yield the sections.

    Args:
        precision: of the graph whose measures are shown.
    """
    yield _calibration(document, precision, measures)
    yield _selection(measures)
    yield from _sets(measures)
    yield from _novelty(measures)


def _calibration(document: Document, precision: Precision, measures: Measures) -> Section:
    head = ("", "15 bins", "at temperature 1", "null 95 %", "p-value", "equal mass",
            "debiased L2", "temperature")  # fmt: skip
    rows = [
        (
            name,
            percent(each.calibration.ece15, 3),
            percent(each.calibration.ece15_uncalibrated, 3),
            percent(each.calibration.null_q95, 3),
            figure(each.calibration.null_p_value),
            percent(each.calibration.ece15_equal_mass, 3),
            percent(each.calibration.l2_debiased, 3),
            figure(each.temperature) if each.calibrated else "none",
        )
        for name, each in document.graphs.items()
    ]
    scores = [
        (name, percent(each.accuracy, 2), f"{each.nll:.4f}", f"{each.brier:.4f}")
        for name, each in document.graphs.items()
    ]
    return Section(
        "calibration",
        "Is it as sure as it is right?",
        [
            pair(
                picture(
                    charts.draw_reliability(measures),
                    f"Reliability of the {precision} graph. Bars and points: how often answers of such a "
                    "confidence were right, with Clopper-Pearson intervals. Below, how many there are.",
                ),
                together(
                    paragraph(
                        "The expected calibration error is the mean distance of the points from the line. "
                        "Even a perfectly calibrated model has some on a finite test set, so what counts "
                        "is how often such a model would have at least as much: the p-value, of 1,000 "
                        "draws of labels from the confidences themselves. A calibrated model stays below "
                        "the null 95 % in nineteen of twenty draws."
                    ),
                    table(("", "accuracy", "log loss", "Brier (0..2)"), scores),
                ),
            ),
            heading("Calibration error"),
            table(head, rows),
        ],
    )


def _selection(measures: Measures) -> Section:
    found = measures.selection
    head = ("target risk", "threshold", "learned coverage", "test coverage", "accepted", "wrong", "test risk",
            "95 % interval", "")  # fmt: skip
    rows = [
        (
            percent(each.target_risk),
            f"{each.threshold:.4f}",
            percent(each.learned_coverage),
            percent(each.coverage),
            f"{each.n:,}",
            f"{each.errors:,}",
            percent(each.risk, 2),
            interval(*each.ci95),
            verdict(None if each.risk is None else each.risk <= each.target_risk),
        )
        for each in found.thresholds
    ]
    areas = [
        (
            figure(found.aurc * 1e3),
            figure(found.e_aurc * 1e3),
            figure(found.augrc * 1e3),
            figure(found.auroc_of_errors),
        )
    ]
    pieces = [
        pair(
            picture(
                charts.draw_selection(measures),
                "Of the surest share of answers, how many are wrong. The point is the threshold that holds "
                "where a caller names no target risk; it also asks that the input looks familiar.",
            ),
            together(
                paragraph(
                    "An answer is accepted if its input looks familiar and its confidence reaches a "
                    "threshold. The threshold was learned on the conformal split with a guarantee (Learn "
                    "then Test): with probability .95 at most the target risk of what is accepted is wrong."
                ),
                table(("AURC × 1000", "excess", "AUGRC × 1000", "AUROC of errors"), areas),
            ),
        )
    ]
    if rows:
        pieces += [heading("Thresholds, and what they do to the test split"), table(head, rows)]
    return Section("selection", "Which answers to accept", pieces)


def _sets(measures: Measures) -> Iterator[Section]:
    if not measures.sets:
        return
    head = ("scope, alpha", "promised", "coverage", "99 % band", "", "with the answer", "mean size",
            "with the answer", "empty")  # fmt: skip
    rows = [
        (
            f"{'all labels' if each.scope == 'marginal' else 'each label'}, {each.alpha:g}",
            f"≥ {percent(1 - each.alpha, 0)}",
            percent(each.coverage, 2),
            interval(*each.band99) if each.band99 is not None else "",
            verdict(each.band99[0] <= each.coverage <= each.band99[1]) if each.band99 is not None else "",
            percent(each.coverage_with_answer, 2),
            f"{each.mean_size:.3f}",
            f"{each.mean_size_with_answer:.3f}",
            percent(each.empty),
        )
        for each in measures.sets
    ]
    yield Section(
        "sets",
        "Prediction sets",
        [
            paragraph(
                "A set holds the right label with probability 1 - alpha, on average over inputs like those "
                "of the conformal split. A sure model needs no label for some inputs to keep that; the "
                "service then puts the answer itself in, so both are told: without it, as the law has it, "
                "and with it, as it is served. The band is where 99 of 100 such pairs of splits lie "
                "(Beta-binomial)."
            ),
            table(head, rows),
            picture(
                charts.draw_sets(measures),
                "Coverage without the answer put in, of sets from the scores of all labels. Blue: all "
                "inputs; dashed: promised; grey: the band; orange: the inputs of each label, for which "
                "nothing is promised.",
            ),
        ],
    )


def _novelty(measures: Measures) -> Iterator[Section]:
    if measures.novelty is None:
        return
    head = ("inputs", "n", "AUROC", "flagged at .05", "accepted all the same")
    rows = [
        ("familiar (test split)", f"{measures.n:,}", "", percent(measures.novelty.false_flags), ""),
        *(
            (each.name, f"{each.n:,}", figure(each.auroc), percent(each.flagged), percent(each.accepted))
            for each in measures.novelty.strangers
        ),
    ]
    yield Section(
        "novelty",
        "What it has never seen",
        [
            paragraph(
                "Energy of the logits and Mahalanobis distance of the features, as one conformal p-value. "
                "AUROC: how often a strange input looks newer than a familiar one. Of familiar inputs "
                "about 5 % must be flagged at .05."
            ),
            table(head, rows),
        ],
    )
