"""Gather the evidence behind a graph's confidences, each part from its own split; see `bundle.evidence`."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from bundle.answer import Outputs
from bundle.confidence import softmax
from bundle.conformal import lac_scores
from bundle.evidence import Bin, GraphEvidence, Reference, Threshold
from bundle.novelty import energy, fit_classes, novelty_p_values
from bundle.predictor import Predictor
from training.data.splits import Examples, Splits
from training.thresholds import learn_threshold

# Dense near 1, where nearly all confidences of a good model lie.
CONFIDENCE_EDGES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9999)
NOVELTY_EDGES = (0.001, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
TARGET_RISKS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
DELTA = 0.05
NOVELTY_ALPHA = 0.01
# Items of the training split that the classes are fitted on; more change nothing that can be seen.
_CLASS_ITEMS = 10_000

Arrays = dict[str, NDArray[Any]]


def gather_evidence(
    predictor: Predictor, splits: Splits, temperature: float, split: str, default_target_risk: float
) -> tuple[GraphEvidence, Arrays]:
    """Measure what `:confidence` tells of a graph's answers.

    Args:
        predictor: of the graph; batched, with features.
        temperature: fitted on its own split.
        split: what the conformal split is, in words.

    Returns:
        The facts, and the arrays that go with them.
    """
    manifest = predictor.bundle.manifest
    train = _first(splits.train, _CLASS_ITEMS)
    classes = fit_classes(_run(predictor, train).features, train.labels, len(manifest.labels))
    outputs, labels = _run(predictor, splits.conformal), splits.conformal.labels
    probabilities = softmax(outputs.logits, temperature)
    scores = (energy(outputs.logits), classes.familiarity(outputs.features))
    novelty, _ = novelty_p_values((np.sort(scores[0]), np.sort(scores[1])), scores)
    confidences = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    facts = GraphEvidence(
        graph_sha256=hashlib.sha256(predictor.bundle.graph(predictor.precision)).hexdigest(),
        temperature=temperature,
        split=split,
        n=len(labels),
        n_errors=int((~correct).sum()),
        novelty_alpha=NOVELTY_ALPHA,
        thresholds=_thresholds(confidences, correct, novelty > NOVELTY_ALPHA),
        default_target_risk=default_target_risk,
        **_judged(predictor, splits.test, temperature),
        references={
            "confidence": _reference(confidences, CONFIDENCE_EDGES),
            "novelty": _reference(novelty, NOVELTY_EDGES),
        },
    )
    arrays: Arrays = {
        "lac": lac_scores(probabilities)[np.arange(len(labels)), labels].astype(np.float32),
        "lac_labels": labels.astype(np.int32),
        "energy": scores[0].astype(np.float32),
        "familiarity": scores[1].astype(np.float32),
        "means": classes.means.astype(np.float32),
        "whitening": classes.whitening.astype(np.float32),
    }
    return facts, arrays


def _run(predictor: Predictor, examples: Examples) -> Outputs:
    return predictor.run_all(predictor.rows(examples.items))


def _first(examples: Examples, n: int) -> Examples:
    return Examples(examples.ids[:n], examples.items[:n], examples.labels[:n])


def _thresholds(
    confidences: NDArray[np.float64], correct: NDArray[np.bool_], familiar: NDArray[np.bool_]
) -> tuple[Threshold, ...]:
    found = (learn_threshold(confidences, correct, familiar, risk, DELTA) for risk in TARGET_RISKS)
    return tuple(
        Threshold(
            target_risk=each.target_risk,
            delta=each.delta,
            threshold=each.threshold,
            n=each.n,
            errors=each.errors,
            coverage=each.coverage,
        )
        for each in found
        if each is not None
    )


def _judged(predictor: Predictor, test: Examples, temperature: float) -> dict[str, Any]:
    """The bins and the confusion matrix of the test split."""
    probabilities = softmax(_run(predictor, test).logits, temperature)
    confidences, answers = probabilities.max(axis=1), probabilities.argmax(axis=1)
    size = probabilities.shape[1]
    confusion = np.bincount(test.labels * size + answers, minlength=size * size).reshape(size, size)
    return {
        "bins": reliability_bins(confidences, answers == test.labels),
        "confusion": tuple(tuple(row) for row in confusion.tolist()),
    }


def reliability_bins(confidences: NDArray[np.float64], correct: NDArray[np.bool_]) -> tuple[Bin, ...]:
    """Return how often answers of each range of confidence were right."""
    edges = (0.0, *CONFIDENCE_EDGES, 1.0)
    bins = []
    for low, high in pairwise(edges):
        inside = (confidences > low) & (confidences <= high)
        n, right = int(inside.sum()), int(correct[inside].sum())
        interval = (0.0, 1.0)
        if n:
            found = stats.binomtest(right, n).proportion_ci(0.95, method="exact")
            interval = (float(found.low), float(found.high))
        total = float(confidences[inside].sum())
        bins.append(Bin(low=low, high=high, n=n, correct=right, sum_confidence=total, ci95=interval))
    return tuple(bins)


def _reference(values: NDArray[np.float64], edges: tuple[float, ...]) -> Reference:
    counts = np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)
    return Reference(edges=edges, counts=tuple(counts.tolist()))
