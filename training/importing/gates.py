"""What an int8 graph of an imported model must reach beside its fp32 graph, on data that somebody brought."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

from bundle.datatypes import DTYPES, Array
from bundle.deviation import FRACTIONAL, as_numbers
from bundle.manifest import Metrics, Precision
from bundle.predictor import Predictor
from bundle.rows import Row, collate
from training.errors import GateError
from training.importing.batching import find_dependence
from training.importing.sampling import Sampler
from training.isolation import allowed_shift, find_worst_mates
from training.latency import measure_latency
from training.scores import score

PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")
GATE_BATCH = 8
# Of the search for batch-mates: a foreign graph may be large.
_VICTIMS = 8
_STEPS = 40

Predictors = Mapping[Precision, Predictor]


@dataclass(frozen=True)
class Bounds:
    """The figures of `Figures` that are let pass."""

    max_size_ratio: float = 0.9
    max_latency_ratio: float = 1.05
    max_accuracy_loss: float = 0.005
    min_agreement: float = 0.99
    max_error: float = 0.05


@dataclass(frozen=True)
class Figures:
    """What was measured of an int8 graph beside its fp32 graph.

    Attributes:
        n: items.
        size_ratio, latency_ratio: int8 / fp32, of the files, and of a run at a batch of at most 8.
        agreement: share of items with the same label, of a classification; otherwise of equal elements in
            the outputs that are no fractions, or None without such.
        error: root mean square of the differences over that of the values, of the worst output of
            fractions; None of a classification, or without such outputs.
        accuracy: precision -> share of right labels, where true labels are known.
    """

    n: int
    size_ratio: float
    latency_ratio: float
    agreement: float | None = None
    error: float | None = None
    accuracy: dict[Precision, float] = field(default_factory=dict)

    def misses(self, bounds: Bounds) -> bool:
        """Whether a figure is worse than its bound."""
        loss = self.accuracy.get("fp32", 0.0) - self.accuracy.get("int8", 0.0)
        return not (
            self.size_ratio <= bounds.max_size_ratio
            and self.latency_ratio <= bounds.max_latency_ratio
            and loss <= bounds.max_accuracy_loss
            and (self.agreement is None or self.agreement >= bounds.min_agreement)
            and (self.error is None or self.error <= bounds.max_error)
        )

    def describe(self, bounds: Bounds) -> str:
        """Return all figures with their bounds, in one line."""
        parts = [
            f"size {self.size_ratio:.2f} of fp32 (at most {bounds.max_size_ratio:g})",
            f"latency {self.latency_ratio:.2f} of fp32 (at most {bounds.max_latency_ratio:g})",
        ]
        if self.agreement is not None:
            parts.append(f"agreement {self.agreement:.4f} (at least {bounds.min_agreement:g})")
        if self.error is not None:
            parts.append(f"error {self.error:.3f} (at most {bounds.max_error:g})")
        if self.accuracy:
            fp32, int8 = self.accuracy["fp32"], self.accuracy["int8"]
            parts.append(
                f"accuracy {fp32:.4f} to {int8:.4f} (a loss of at most {bounds.max_accuracy_loss:g})"
            )
        return ", ".join(parts) + f", over {self.n} items"

    def to_json(self) -> dict[str, object]:
        """Return the figures by name."""
        return asdict(self)


def compare(predictors: Predictors, rows: Sequence[Row], labels: NDArray[np.int64] | None = None) -> Figures:
    """Measure an int8 graph beside its fp32 graph.

    Args:
        predictors: of both graphs.
        rows: items that gave no quantization ranges.
    """
    manifest = predictors["fp32"].bundle.manifest
    sizes = {p: len(predictors[p].bundle.graph(p)) for p in PRECISIONS}
    together = list(rows[: min(GATE_BATCH, manifest.max_batch_size)])
    latencies = measure_latency(predictors, collate(manifest, together))
    found = {p: run_rows(predictors[p], rows) for p in PRECISIONS}
    agreement, error, accuracy = None, None, {}
    if manifest.task == "classification":
        chosen = {p: found[p]["logits"].argmax(axis=1) for p in PRECISIONS}
        agreement = float((chosen["fp32"] == chosen["int8"]).mean())
        if labels is not None:
            accuracy = {p: float((chosen[p] == labels).mean()) for p in PRECISIONS}
    else:
        agreement, error = _compare_tensors(predictors["fp32"], found)
    return Figures(
        len(rows),
        sizes["int8"] / sizes["fp32"],
        latencies["int8"] / latencies["fp32"],
        agreement,
        error,
        accuracy,
    )


def check_figures(figures: Figures, bounds: Bounds) -> None:
    """Refuse an int8 graph that is not worth publishing.

    Raises:
        GateError: names all figures and their bounds.
    """
    if figures.misses(bounds):
        raise GateError(f"int8 is not published: {figures.describe(bounds)}")


def check_rows(predictor: Predictor, sampler: Sampler, rows: Sequence[Row]) -> float | None:
    """Refuse a graph whose rows change each other's answers when they run together.

    Args:
        sampler: of seeded rows.
        rows: items of callers, where some are known; of a classification they are searched for the worst
            batch-mates, as those of our own models are.

    Returns:
        The largest shift of a probability, where that was searched for.

    Raises:
        GateError: they do.
    """
    manifest, precision = predictor.bundle.manifest, predictor.precision
    if manifest.max_batch_size == 1:
        return None
    advice = "; --max-batch-size 1 or another --quantize avoids it"
    found = find_dependence(
        lambda feeds: predictor.run_feeds(feeds).arrays, manifest.outputs, sampler, precision
    )
    if found is not None:
        raise GateError(
            f"{precision} is not published for batches of {manifest.max_batch_size}: {found}{advice}"
        )
    if not rows or not _can_search(predictor):
        return None
    (tensor,) = manifest.data_inputs
    items = [row[tensor.name] for row in rows]
    with np.errstate(all="ignore"):  # mates at the ends of the type overflow, which is theirs alone
        worst = find_worst_mates(predictor, items, manifest.max_batch_size, victims=_VICTIMS, steps=_STEPS)
    allowed = allowed_shift(manifest.graphs[precision])
    if worst.flips or not worst.shift <= allowed:
        raise GateError(
            f"{precision} is not published for batches of {manifest.max_batch_size}: batch-mates were found "
            f"that change {worst.flips} labels and move a probability by {worst.shift:.2g}; "
            f"allowed are 0 and {allowed:g}{advice}"
        )
    return worst.shift


def describe_graph(
    predictor: Predictor,
    rows: Sequence[Row],
    labels: NDArray[np.int64],
    reference: Predictor,
    mate_shift: float | None,
) -> Metrics:
    """Return the figures of one graph of a classification whose true labels are known."""
    manifest = predictor.bundle.manifest
    logits, expected = (run_rows(each, rows)["logits"] for each in (predictor, reference))
    scores = score(logits, labels)
    latencies: dict[int, float] = {}
    for size in sorted({1, min(GATE_BATCH, manifest.max_batch_size)}):
        feeds = collate(manifest, rows[:size])
        latencies[size] = round(
            measure_latency({predictor.precision: predictor}, feeds)[predictor.precision], 4
        )
    return Metrics(
        n=scores.n,
        accuracy=scores.accuracy,
        nll=scores.nll,
        brier=scores.brier,
        agreement=float((logits.argmax(1) == expected.argmax(1)).mean()),
        latency_ms=latencies,
        size_bytes=len(predictor.bundle.graph(predictor.precision)),
        mate_shift=mate_shift,
    )


def run_rows(predictor: Predictor, rows: Sequence[Row]) -> dict[str, Array]:
    """Run any number of rows; return output -> the elements of all, in their order.

    The outputs of a model without rows may differ in shape, so they are put together flat.
    """
    if predictor.bundle.manifest.batched:
        return predictor.run_all(rows).arrays
    parts = [predictor.run([row]).arrays for row in rows]
    return {name: np.concatenate([part[name].ravel() for part in parts]) for name in parts[0]}


def _compare_tensors(
    predictor: Predictor, found: Mapping[Precision, Mapping[str, Array]]
) -> tuple[float | None, float | None]:
    """Return the share of equal elements, and the relative error of the worst output of fractions."""
    equal = elements = 0
    errors: list[float] = []
    for spec in predictor.bundle.manifest.outputs:
        expected, other = found["fp32"][spec.name], found["int8"][spec.name]
        if expected.shape != other.shape:
            errors.append(float("inf"))
        elif spec.datatype in FRACTIONAL:
            a, b = as_numbers(spec.datatype, expected), as_numbers(spec.datatype, other)
            size = max(float(np.sqrt(np.mean(a**2))) if a.size else 0.0, float(np.finfo(np.float32).tiny))
            errors.append(float(np.sqrt(np.mean((a - b) ** 2))) / size if a.size else 0.0)
        else:
            equal += int((expected == other).sum())
            elements += expected.size
    return (equal / elements if elements else None), (max(errors) if errors else None)


def _can_search(predictor: Predictor) -> bool:
    """Whether `find_worst_mates` can draw what callers may send: numbers that all are admitted."""
    manifest = predictor.bundle.manifest
    if manifest.task != "classification" or len(manifest.data_inputs) != 1:
        return False
    (tensor,) = manifest.data_inputs
    whole = tensor.datatype in ("FP16", "FP32", "UINT8", "INT8")
    number = DTYPES[tensor.datatype].kind in "iuf" and tensor.datatype != "BF16"
    return tensor.free_dimensions <= 1 and (whole or (number and tensor.allowed_range is not None))
