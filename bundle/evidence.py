"""The evidence behind a bundle's confidences: `confidence.json` and `confidence.npz`.

There is a part for each graph, bound to it by its SHA-256, because another graph's scores prove nothing about
this one's. Everything in it was measured on inputs that the network was not fitted on: the conformal scores
and thresholds on one split, the bins and the confusion matrix on another.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from bundle import archive
from bundle.errors import EvidenceError
from bundle.manifest import Precision, Sha256
from bundle.media import Frozen
from bundle.novelty import Classes

EVIDENCE_FILE = "confidence.json"
ARRAYS_FILE = "confidence.npz"
_ARRAYS = ("lac", "lac_labels", "energy", "familiarity", "means", "whitening")


class Bin(Frozen):
    """Answers of the test split whose confidence lies in (low, high], and how often they were right.

    Attributes:
        ci95: Clopper-Pearson interval of the accuracy among such answers; (0, 1) where there are none.
    """

    low: float
    high: float
    n: int = Field(ge=0)
    correct: int = Field(ge=0)
    sum_confidence: float = Field(ge=0)
    ci95: tuple[float, float]


class Threshold(Frozen):
    """A confidence that keeps the share of wrong answers among those accepted at most `target_risk`.

    That holds with probability 1 - `delta` over the conformal split; see `training.thresholds`.

    Attributes:
        n, errors: answers of that split that the whole rule accepts, and how many of those are wrong.
        coverage: share of the split that it accepts.
    """

    target_risk: float = Field(gt=0, lt=1)
    delta: float = Field(gt=0, lt=1)
    threshold: float = Field(ge=0, le=1)
    n: int = Field(ge=0)
    errors: int = Field(ge=0)
    coverage: float = Field(ge=0, le=1)


class Reference(Frozen):
    """How often a value fell between each two edges, on the conformal split: what drift is measured against.

    Attributes:
        edges: inner ones, growing; counts has one more entry.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]


class GraphEvidence(Frozen):
    """What is known of one graph's confidences.

    Attributes:
        temperature: that the probabilities were made with; that of the manifest.
        split: which inputs the conformal scores are of, in words. What is promised holds for inputs that are
            exchangeable with them.
        n, n_errors: inputs of that split, and how many the graph gets wrong.
        novelty_alpha: an input with a smaller novelty p-value is accepted by no threshold.
        thresholds: by growing target risk.
        default_target_risk: of the threshold that holds where a caller names none.
        bins: of the test split.
        confusion: [right label][answer] -> answers of the test split.
        references: "confidence" and "novelty" -> how they were spread.
    """

    graph_sha256: Sha256
    temperature: float = Field(gt=0)
    split: str
    n: int = Field(gt=0)
    n_errors: int = Field(ge=0)
    novelty_alpha: float = Field(gt=0, lt=1)
    thresholds: tuple[Threshold, ...]
    default_target_risk: float = Field(gt=0, lt=1)
    bins: tuple[Bin, ...]
    confusion: tuple[tuple[int, ...], ...]
    references: dict[str, Reference]


class EvidenceDocument(Frozen):
    """The content of `confidence.json`."""

    schema_version: int = Field(ge=1, le=1)
    graphs: dict[Precision, GraphEvidence]


@dataclass(frozen=True)
class Evidence:
    """The evidence for one graph, with its arrays.

    Attributes:
        lac: (n,) float64 scores of the right labels of the conformal split, sorted.
        by_label: for each label, those of its own inputs, sorted.
        energy, familiarity: (n,) float64, sorted.
        classes: where the classes lie among the features.
    """

    facts: GraphEvidence
    lac: NDArray[np.float64]
    by_label: tuple[NDArray[np.float64], ...]
    energy: NDArray[np.float64]
    familiarity: NDArray[np.float64]
    classes: Classes

    @cached_property
    def bin_edges(self) -> tuple[float, ...]:
        """The upper edge of each bin."""
        return tuple(each.high for each in self.facts.bins)

    @cached_property
    def observed(self) -> tuple[dict[str, Any], ...]:
        """What was observed of the answers of each bin, as it is rendered."""
        return tuple(
            {
                "low": each.low,
                "high": each.high,
                "n": each.n,
                "observed_accuracy": each.correct / each.n if each.n else None,
                "ci95": each.ci95,
            }
            for each in self.facts.bins
        )


def save_arrays(evidence: dict[Precision, dict[str, NDArray[Any]]]) -> bytes:
    """Return the content of `confidence.npz`: precision -> name -> array; see `_ARRAYS`."""
    return archive.save_arrays(
        {f"{precision}.{name}": array for precision, own in evidence.items() for name, array in own.items()}
    )


def load_evidence(document: bytes, arrays: bytes, precision: Precision, graph_sha256: str) -> Evidence | None:
    """Read the evidence for one graph; None where there is none for its precision.

    Args:
        graph_sha256: of the graph's file, as the manifest has it.

    Raises:
        EvidenceError: it cannot be understood, contradicts itself, or is that of another graph.
    """
    try:
        parsed = EvidenceDocument.model_validate_json(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the document"
        raise EvidenceError(f"{EVIDENCE_FILE}: {where}: {first['msg']}") from error
    facts = parsed.graphs.get(precision)
    if facts is None:
        return None
    if facts.graph_sha256 != graph_sha256:
        raise EvidenceError(f"{EVIDENCE_FILE}: its {precision} part is that of another graph")
    found = _read_arrays(arrays, precision)
    labels = len(facts.confusion)
    scores = ("lac", "lac_labels", "energy", "familiarity")
    if any(found[name].shape != (facts.n,) for name in scores):
        raise EvidenceError(f"{ARRAYS_FILE}: its scores are not of the {facts.n} inputs of {EVIDENCE_FILE}")
    size = len(found["whitening"])
    if found["whitening"].shape != (size, size) or found["means"].shape != (labels, size):
        raise EvidenceError(f"{ARRAYS_FILE}: the classes do not fit {labels} labels")
    order = np.argsort(found["lac"], kind="stable")
    # In the datatype that they are compared in: otherwise each comparison would begin with a conversion.
    lac, owners = found["lac"][order].astype(np.float64), found["lac_labels"][order]
    return Evidence(
        facts,
        lac,
        tuple(lac[owners == label] for label in range(labels)),
        np.sort(found["energy"]).astype(np.float64),
        np.sort(found["familiarity"]).astype(np.float64),
        Classes(found["whitening"].astype(np.float64), found["means"].astype(np.float64)),
    )


def _read_arrays(content: bytes, precision: Precision) -> dict[str, NDArray[Any]]:
    try:
        arrays = archive.load_arrays(content)
        found = {name: arrays[f"{precision}.{name}"] for name in _ARRAYS}
    except ValueError as error:
        raise EvidenceError(f"{ARRAYS_FILE}: {error}") from error
    except KeyError as error:
        raise EvidenceError(f"{ARRAYS_FILE}: cannot be read: it has no array {error}") from error
    for name, array in found.items():
        if array.dtype.kind not in "iuf" or not np.isfinite(array).all():
            raise EvidenceError(f"{ARRAYS_FILE}: {precision}.{name} holds something else than finite numbers")
    return found
