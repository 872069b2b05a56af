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


def render_confidence(predictor: Predictor, rows: Sequence[RowConfidence], top_k: int) -> dict[str, Any]:
    """Return the body of a `:confidence` answer, schema `confidence/1`.

    Without a fitted temperature nothing is calibrated: `confidence` is then null and the status "missing",
    never a softmax by another name. With one, the status is "partial": there is a temperature, but no
    prediction set or guarantee.

    Args:
        top_k: most labels in `top`.
    """
    manifest = predictor.bundle.manifest
    fitted = manifest.graphs[predictor.precision].temperature
    results = []
    for row in rows:
        top = _top(row, manifest.labels, top_k)
        results.append(
            {
                "label": top[0]["label"],
                "index": top[0]["index"],
                "confidence": top[0]["probability"] if fitted is not None else None,
                "confidence_raw": row.raw[top[0]["index"]],
                "margin": row.margin,
                "entropy_bits": row.entropy_bits,
                "top": top,
            }
        )
    return {
        "schema": "confidence/1",
        "model": manifest.name,
        "version": str(manifest.version),
        "bundle": {"precision": predictor.precision, "sha256": predictor.bundle.manifest_sha256},
        "results": results,
        "calibration": {
            "status": "missing" if fitted is None else "partial",
            "method": fitted.method if fitted is not None else None,
            "temperature": fitted.value if fitted is not None else None,
            "n": fitted.n if fitted is not None else None,
        },
    }


def _top(row: RowConfidence, labels: tuple[str, ...], top_k: int) -> list[dict[str, Any]]:
    """The most probable labels of one row, best first."""
    return [
        {"label": labels[index], "index": index, "probability": row.probabilities[index]}
        for index in row.order[:top_k]
    ]
