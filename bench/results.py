"""What was measured: one sample for each server, kind of request and number of connections."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.load import Load
from bench.server import Memory


@dataclass(frozen=True)
class Sample:
    """One load on one server.

    Attributes:
        server: who was asked; "octet" or the name of a peer, with "nginx" behind nginx.
        processes: that ran the model.
        wire: "json", "binary", "png", or "v2": the Open Inference Protocol with its binary extension.
        model: "cnn" or "lstm".
        connections: of the closed loop; for an open loop 0.
        due_per_s: of the open loop; for a closed loop 0.
        per_s: answers with status 200 a second.
        broken: connections that the server closed or refused.
        generator_share: of one processor that the load itself took.
    """

    server: str
    processes: int
    wire: str
    model: str
    connections: int
    due_per_s: float
    per_s: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    statuses: dict[int, int]
    broken: int
    generator_share: float

    @classmethod
    def of(
        cls,
        load: Load,
        server: str,
        processes: int,
        wire: str,
        model: str,
        connections: int = 0,
        due_per_s: float = 0,
    ) -> Sample:
        """Sum up a load."""
        p50_ms, p90_ms, p99_ms, max_ms = (load.latency_ms(quantile) for quantile in (0.5, 0.9, 0.99, 1))
        return cls(
            server=server,
            processes=processes,
            wire=wire,
            model=model,
            connections=connections,
            due_per_s=due_per_s,
            per_s=load.per_s,
            p50_ms=p50_ms,
            p90_ms=p90_ms,
            p99_ms=p99_ms,
            max_ms=max_ms,
            statuses=load.statuses,
            broken=load.broken,
            generator_share=load.generator_cpu_s / load.seconds,
        )


@dataclass
class Results:
    """Everything that one run of the benchmark found.

    Attributes:
        ceilings: model -> batch size -> rows a second, one of each round.
        failures: server -> why it could not be measured.
        extras: name of a figure -> what was measured for it alone.
    """

    machine: dict[str, str]
    ceilings: list[dict[str, dict[int, float]]] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    starts_s: dict[str, float] = field(default_factory=dict)
    memories: dict[str, Memory] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    extras: dict[str, float] = field(default_factory=dict)

    def ceiling(self, model: str) -> float:
        """Return the rows a second of the best batch size, by the medians over the rounds."""
        rounds = [ceiling[model] for ceiling in self.ceilings if model in ceiling]
        return max(statistics.median(round_[batch] for round_ in rounds) for batch in rounds[0])

    def pick(self, **wanted: Any) -> list[Sample]:
        """Return the samples that have these attributes."""
        return [
            sample
            for sample in self.samples
            if all(getattr(sample, name) == value for name, value in wanted.items())
        ]

    def per_s(self, **wanted: Any) -> float | None:
        """Return the median answers a second over the rounds, or None where nothing was measured."""
        return _median(sample.per_s for sample in self.pick(**wanted))

    def p99_ms(self, **wanted: Any) -> float | None:
        """Return the median over the rounds of the 99th percentile of the latency."""
        return _median(sample.p99_ms for sample in self.pick(**wanted))

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return asdict(self)


def _median(values: Iterable[float]) -> float | None:
    found = list(values)
    return statistics.median(found) if found else None
