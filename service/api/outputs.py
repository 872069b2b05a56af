"""From what is known of the answers to the JSON that callers get."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bundle.confidence import RowConfidence
from bundle.predictor import Predictor


def render_predictions(predictor: Predictor, rows: Sequence[RowConfidence], top_k: int) -> dict[str, Any]:
    """Return the body of a `:predict` answer; `probability` is calibrated.

    Args:
        top_k: most labels in `top`.
    """
    manifest = predictor.bundle.manifest
    predictions = []
    for row in rows:
        top = _top(row, manifest.labels, top_k)
        predictions.append({**top[0], "top": top})
    return {"model": manifest.name, "version": str(manifest.version), "predictions": predictions}


def _top(row: RowConfidence, labels: tuple[str, ...], top_k: int) -> list[dict[str, Any]]:
    """The most probable labels of one row, best first."""
    return [
        {"label": labels[index], "index": index, "probability": row.probabilities[index]}
        for index in row.order[:top_k]
    ]
