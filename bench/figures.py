"""The figures that the project holds itself to: what each must reach, what it aims at, what was measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.contenders import BEHIND_NGINX, OURS
from bench.results import Results

Measured = float | None


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    Attributes:
        must, aim: bounds; upper ones where `at_most`.
        measure: from results to the figure, or to None where it was not measured.
    """

    title: str
    must: float
    aim: float
    measure: Callable[[Results], Measured]
    at_most: bool = False

    def verdict(self, measured: Measured) -> str:
        """Say how a figure stands."""
        if measured is None:
            return "not measured"
        if self._reaches(measured, self.aim):
            return "aim"
        return "must" if self._reaches(measured, self.must) else "MISSED"

    def _reaches(self, measured: float, bound: float) -> bool:
        return measured <= bound if self.at_most else measured >= bound


def _ratio(part: Measured, whole: Measured) -> Measured:
    return part / whole if part is not None and whole else None


def _ours(results: Results, wire: str, model: str = "cnn", connections: int = 32) -> Measured:
    return results.per_s(server=OURS, processes=2, model=model, wire=wire, connections=connections)


def _rival(results: Results, name: str, wire: str) -> Measured:
    return results.per_s(server=name, processes=2, model="cnn", wire=wire, connections=32)


def _behind_nginx(results: Results) -> Measured:
    behind = results.per_s(server=BEHIND_NGINX, model="cnn", wire="binary", connections=32)
    return _ratio(behind, _ours(results, "binary"))


def _p99(results: Results) -> Measured:
    return results.p99_ms(server=OURS, processes=2, model="cnn", wire="binary", connections=128)


def _resident(results: Results, key: str) -> Measured:
    memory = results.memories.get(key)
    return None if memory is None else memory.resident_mb


def _extra(results: Results, part: str, whole: str) -> Measured:
    return _ratio(results.extras.get(part), results.extras.get(whole))


FIGURES = (
    Figure(
        "throughput / bare ceiling, CNN, binary, 32 connections", 0.70, 0.85,
        lambda r: _ratio(_ours(r, "binary"), r.ceiling("cnn")),
    ),
    Figure(
        "the same, spoken-digit LSTM", 0.55, 0.75,
        lambda r: _ratio(_ours(r, "binary", "lstm"), r.ceiling("lstm")),
    ),
    Figure("JSON / binary throughput", 0.80, 0.95, lambda r: _ratio(_ours(r, "json"), _ours(r, "binary"))),
    Figure(
        "v2 binary infer / native binary", 0.95, 1.00,
        lambda r: _ratio(_ours(r, "v2"), _ours(r, "binary")),
    ),
    Figure(
        "/ plain FastAPI + pydantic, 2 processes, JSON", 3.5, 5,
        lambda r: _ratio(_ours(r, "json"), _rival(r, "fastapi", "json")),
    ),
    Figure(
        "/ mosec, 2 processes, JSON", 1.15, 1.5,
        lambda r: _ratio(_ours(r, "json"), _rival(r, "mosec", "json")),
    ),
    Figure(
        "/ mosec, 2 processes, binary", 1.05, 1.3,
        lambda r: _ratio(_ours(r, "binary"), _rival(r, "mosec", "binary")),
    ),
    Figure("behind nginx / direct, binary", 0.85, 0.95, _behind_nginx),
    Figure("p99 at 128 connections, CNN, ms", 40, 25, _p99, at_most=True),
    Figure(
        "start to ready, both models, s", 1.5, 0.7,
        lambda r: r.starts_s.get("octet, 1 process"), at_most=True,
    ),
    Figure(
        "resident memory of one process, MB", 150, 110,
        lambda r: _resident(r, "octet, 1 process, at start"), at_most=True,
    ),
    Figure(
        "p50 with 100 models loaded / with 2", 1.15, 1.05,
        lambda r: _extra(r, "p50 with 100 models, ms", "p50 with 2 models, ms"), at_most=True,
    ),
    Figure(
        "resident memory after 1,000,000 mixed requests / after 10,000", 1.05, 1.00,
        lambda r: _extra(r, "resident after all requests, MB", "resident after 10,000 requests, MB"),
        at_most=True,
    ),
)  # fmt: skip
