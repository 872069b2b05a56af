"""What one version of a model has done since it was loaded.

It is what the statistics extension of the Open Inference Protocol tells. The metrics tell Prometheus the same
and more, but not by the exact size of each batch.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from bundle.answer import Run


@dataclass
class Total:
    """How often something was done, and how long it took together."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float, count: int = 1) -> None:
        """Count it once more."""
        self.count += count
        self.seconds += seconds


@dataclass
class _Batches:
    """The runs of one batch size."""

    collate: Total = field(default_factory=Total)
    run: Total = field(default_factory=Total)


class Statistics:
    """Counts the requests, rows and runs of one version of a model. Any thread may tell it of them.

    Attributes:
        rows: that were run.
        last_s: Unix time of the last request that was answered; 0 before the first.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.last_s = 0.0
        self.answered = Total()
        self.failed = Total()
        self.queued = Total()
        self.rendered = Total()
        self.batches: defaultdict[int, _Batches] = defaultdict(_Batches)
        self._lock = Lock()

    def finish(self, seconds: Sequence[float], *, ok: bool) -> None:
        """Note that requests were answered, or refused for whatever reason, and how long each took."""
        with self._lock:
            (self.answered if ok else self.failed).add(sum(seconds), len(seconds))
            self.last_s = time.time()

    def ran(self, rows: int, run: Run) -> None:
        """Note a run of so many rows."""
        with self._lock:
            self.rows += rows
            batches = self.batches[rows]
            batches.collate.add(run.collate_s)
            batches.run.add(run.run_s)

    def render(self) -> dict[str, Any]:
        """Return what was counted, in the form of the protocol, without the model's name."""
        with self._lock:
            collate, run = Total(), Total()
            for batches in self.batches.values():
                collate.add(batches.collate.seconds, batches.collate.count)
                run.add(batches.run.seconds, batches.run.count)
            return {
                "last_inference": round(self.last_s * 1e3),
                "inference_count": self.rows,
                "execution_count": run.count,
                "inference_stats": {
                    "success": _duration(self.answered),
                    "fail": _duration(self.failed),
                    "queue": _duration(self.queued),
                    "compute_input": _duration(collate),
                    "compute_infer": _duration(run),
                    "compute_output": _duration(self.rendered),
                    "cache_hit": _duration(Total()),
                    "cache_miss": _duration(Total()),
                },
                "batch_stats": [
                    {
                        "batch_size": size,
                        "compute_input": _duration(batches.collate),
                        "compute_infer": _duration(batches.run),
                        "compute_output": _duration(Total()),
                    }
                    for size, batches in sorted(self.batches.items())
                ],
            }


def add_up(rendered: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the sum of what several processes have counted of the same version."""
    batches: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
    for each in rendered:
        for batch in each["batch_stats"]:
            batches[batch["batch_size"]].append(batch)
    return {
        "last_inference": max(each["last_inference"] for each in rendered),
        "inference_count": sum(each["inference_count"] for each in rendered),
        "execution_count": sum(each["execution_count"] for each in rendered),
        "inference_stats": _add_up_durations([each["inference_stats"] for each in rendered]),
        "batch_stats": [
            {"batch_size": size, **_add_up_durations(found)} for size, found in sorted(batches.items())
        ],
    }


def _add_up_durations(rendered: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        name: {key: sum(each[name][key] for each in rendered) for key in ("count", "ns")}
        for name, value in rendered[0].items()
        if isinstance(value, dict)
    }


def _duration(total: Total) -> dict[str, int]:
    return {"count": total.count, "ns": round(total.seconds * 1e9)}
