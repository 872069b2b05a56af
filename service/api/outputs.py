"""From logits to the JSON that callers get."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle.confidence import Confidence, assess
from bundle.predictor import Predictor


def render_predictions(predictor: Predictor, logits: NDArray[np.float32], top_k: int) -> dict[str, Any]:
    """Return the body of a `:predict` answer; `probability` is calibrated.

    Args:
        logits: (rows, labels).
        top_k: most labels in `top`.
    """
    manifest = predictor.bundle.manifest
    confidence = assess(logits, predictor.temperature)
    predictions = []
    for row in range(len(logits)):
        top = _top(confidence, row, manifest.labels, top_k)
        predictions.append(
            {
                "label": top[0]["label"],
                "index": top[0]["index"],
                "probability": top[0]["probability"],
                "top": top,
            }
        )
    return {"model": manifest.name, "version": str(manifest.version), "predictions": predictions}


def render_confidence(predictor: Predictor, logits: NDArray[np.float32], top_k: int) -> dict[str, Any]:
    """Return the body of a `:confidence` answer, schema `confidence/1`.

    Without a fitted temperature nothing is calibrated: `confidence` is then null and the status "missing",
    never a softmax by another name. With one, the status is "partial": there is a temperature, but no
    prediction set or guarantee.

    Args:
        logits: (rows, labels).
        top_k: most labels in `top`.
    """
    manifest = predictor.bundle.manifest
    fitted = manifest.graphs[predictor.precision].temperature
    confidence = assess(logits, predictor.temperature)
    results = []
    for row in range(len(logits)):
        top = _top(confidence, row, manifest.labels, top_k)
        results.append(
            {
                "label": top[0]["label"],
                "index": top[0]["index"],
                "confidence": top[0]["probability"] if fitted is not None else None,
                "confidence_raw": float(confidence.raw[row, top[0]["index"]]),
                "margin": float(confidence.margin[row]),
                "entropy_bits": float(confidence.entropy_bits[row]),
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


def _top(confidence: Confidence, row: int, labels: tuple[str, ...], top_k: int) -> list[dict[str, Any]]:
    """The most probable labels of one row, best first."""
    return [
        {"label": labels[index], "index": index, "probability": float(confidence.probabilities[row, index])}
        for index in confidence.order[row, :top_k].tolist()
    ]
