"""The content of `report.json`: every figure of the report, for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bundle.manifest import Precision
from training.report.answers import Answers, Subject, answer_all
from training.report.comparison import Comparison, compare
from training.report.figures import Figure, check_figures
from training.report.measures import Measures, measure

SCHEMA_VERSION = 1
# Significant digits of a figure: more are chance.
_DIGITS = 7


@dataclass(frozen=True)
class Document:
    """All figures of a report.

    Attributes:
        splits: split -> items.
        graphs: what was measured of each; the one that serves comes first.
        figures: what the model must reach, and whether it does; none where no bounds were set for it.
    """

    schema_version: int
    model: str
    version: str
    splits: Mapping[str, int]
    graphs: Mapping[Precision, Measures]
    comparison: Comparison | None
    figures: tuple[Figure, ...]

    @property
    def held(self) -> bool | None:
        """Whether every figure that was measured holds; None where there is none."""
        found = [each.held for each in self.figures if each.held is not None]
        return all(found) if found else None

    def to_json(self) -> bytes:
        """Return the content of `report.json`."""
        content = {**asdict(self), "held": self.held}
        return json.dumps(_plain(content), indent=1, allow_nan=False).encode() + b"\n"


def measure_all(subject: Subject) -> tuple[Document, dict[Precision, Answers]]:
    """Measure every graph of a subject; return the figures, and the answers that they were made of."""
    answers = {
        precision: answer_all(predictor, subject.rows, subject.labels)
        for precision, predictor in subject.predictors.items()
    }
    graphs = {
        precision: measure(subject, predictor, answers[precision])
        for precision, predictor in subject.predictors.items()
    }
    sizes = {
        precision: len(predictor.bundle.graph(precision))
        for precision, predictor in subject.predictors.items()
    }
    manifest = subject.manifest
    comparison = compare(manifest, sizes, answers)
    document = Document(
        schema_version=SCHEMA_VERSION,
        model=manifest.name,
        version=str(manifest.version),
        splits=dict(subject.sizes),
        graphs=graphs,
        comparison=comparison,
        figures=check_figures(manifest.provenance.recipe, graphs.get("int8"), comparison),
    )
    return document, answers


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: rounded, and null for what is no number."""
    match value:
        case float():
            return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
        case Mapping():
            return {str(key): _plain(each) for key, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
        case _:
            return value
