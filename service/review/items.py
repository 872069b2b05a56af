"""One input that is kept for review: what is known of it, and its arrays as bytes.

Of a request nothing is kept but the input itself: no header, no address, no name of a file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bundle.archive import load_arrays, save_arrays
from bundle.datatypes import Array
from bundle.rows import Row

_ID_DIGITS = 32


@dataclass(frozen=True, slots=True)
class Item:
    """One input, and what a model answered when it was new.

    Attributes:
        id: of the content; the same input of the same model is stored once.
        bundle_sha256: of the manifest of the bundle that answered.
        precision: of the graph that ran.
        created_s: Unix time at which it was picked.
        answer: the label that the model gave.
        confidence: calibrated probability of it; None where nothing was calibrated.
        confidence_raw: the same without calibration.
        novelty_p_value: see `bundle.judgement`; None where there is no evidence.
        reasons: why it was picked: "ood", "low_confidence", "below_bound".
        sureness: how far the answer can be relied on, 0..1. The confidence; of an input that looks new, whose
            confidence proves nothing, its novelty p-value where that is smaller. Large ones give way first.
        size_bytes: of the stored arrays.
        label: that a person gave; None before.
        labelled_s: when that was.
        exported_s: when the label was exported last; None where it was not since it was given.
    """

    id: str
    model: str
    version: str
    bundle_sha256: str
    precision: str
    created_s: float
    answer: str
    confidence: float | None
    confidence_raw: float
    novelty_p_value: float | None
    reasons: tuple[str, ...]
    sureness: float
    size_bytes: int
    label: str | None = None
    labelled_s: float | None = None
    exported_s: float | None = None

    def render(self) -> dict[str, Any]:
        """Return what is known of it, as JSON has it."""
        return {
            "id": self.id,
            "model": self.model,
            "version": self.version,
            "bundle": {"precision": self.precision, "sha256": self.bundle_sha256},
            "created_at": time_text(self.created_s),
            "answer": self.answer,
            "confidence": self.confidence,
            "confidence_raw": self.confidence_raw,
            "novelty_p_value": self.novelty_p_value,
            "reasons": list(self.reasons),
            "sureness": self.sureness,
            "size_bytes": self.size_bytes,
            "label": self.label,
            "labelled_at": time_text(self.labelled_s),
            "exported_at": time_text(self.exported_s),
        }


def time_text(seconds: float | None) -> str | None:
    """Return a Unix time as ISO 8601 has it, in UTC and whole seconds."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")


def identify(model: str, row: Mapping[str, Array]) -> str:
    """Return the id of an input: 32 hexadecimal digits of the SHA-256 of its model's name and its content."""
    digest = hashlib.sha256(f"{model}\n".encode())
    for name in sorted(row):
        array = row[name]
        digest.update(f"{name}\n{array.dtype.str}\n{array.shape}\n".encode())
        digest.update(repr(array.tolist()).encode() if array.dtype == object else array.tobytes())
    return digest.hexdigest()[:_ID_DIGITS]


def pack(row: Row) -> bytes:
    """Return the arrays of an input as one `.npz`, which holds no pickle."""
    return save_arrays(row)


def unpack(payload: bytes) -> Row:
    """Return the arrays of an input.

    Raises:
        ValueError: they are damaged; the message is one line.
    """
    return load_arrays(payload)
