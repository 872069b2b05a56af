"""Inputs to put into a store."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from service.review.items import Item, identify, pack
from service.review.store import Bounds, New

WIDE = Bounds(max_items=1000, max_bytes=10**9, max_age_s=10**9)
SHA = "a" * 64


def a_row(seed: int) -> dict[str, Any]:
    return {"pixels": np.random.default_rng(seed).integers(0, 256, (4, 4), dtype=np.uint8)}


def new(seed: int, **change: Any) -> New:
    """An input that was picked just now with a confidence of .5, unless something else is asked for."""
    row = a_row(seed)
    model = change.get("model", "tiny")
    payload = change.pop("payload", pack(row))
    sureness = change.get("confidence") or 0.5
    facts = {
        "id": identify(model, row), "model": "tiny", "version": "1", "bundle_sha256": SHA,
        "precision": "int8", "created_s": time.time(), "answer": "a", "confidence": 0.5,
        "confidence_raw": 0.6, "novelty_p_value": 0.2, "reasons": ("low_confidence",), "sureness": sureness,
        "size_bytes": len(payload),
    }  # fmt: skip
    return New(Item(**{**facts, **change}), payload)
