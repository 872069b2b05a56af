"""The results as a table on the terminal, as Markdown, as JSON and as a picture."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench.contenders import OURS
from bench.figures import FIGURES
from bench.results import Results, Sample

Row = Sequence[str]


def write_reports(results: Results, folder: Path) -> None:
    """Write results.json, results.md and latency.png into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results.as_json(), indent=1), encoding="utf-8")
    (folder / "results.md").write_text(markdown(results), encoding="utf-8")
    draw_latency(results, folder / "latency.png")


def markdown(results: Results) -> str:
    """Return all tables."""
    date = datetime.now(UTC).date().isoformat()
    parts = [
        f"Measured on {date}: {results.machine['processor']}, Python {results.machine['python']}.",
        _table(("figure", "must", "aim", "measured", "reached"), _figure_rows(results)),
        "## Closed loop",
        _table(
            _SAMPLE_HEAD, (_sample_row(results, sample) for sample in _medians(results) if sample.connections)
        ),
        "## Open loop",
        _table(
            ("due a second", "answered", "p50 ms", "p90 ms", "p99 ms", "max ms"),
            (
                (f"{sample.due_per_s:.0f}", f"{sample.per_s:.0f}", *_latencies(sample))
                for sample in results.samples
                if not sample.connections
            ),
        ),
        "## Bare ONNX Runtime, rows a second of two callers",
        _table(("model", "batch 1", "batch 8", "batch 32"), _ceiling_rows(results)),
        "## Start and memory",
        _table(("server", "start s", "processes", "resident MB", "PSS MB"), _memory_rows(results)),
        "## Other figures",
        _table(("figure", "measured"), ((name, f"{value:.2f}") for name, value in results.extras.items())),
    ]
    if results.failures:
        parts += ["## Not measured", _table(("what", "why"), results.failures.items())]
    return "\n\n".join(parts) + "\n"


def figure_table(results: Results) -> str:
    """Return the table of the figures alone."""
    return _table(("figure", "must", "aim", "measured", "reached"), _figure_rows(results))


_SAMPLE_HEAD = (
    "server", "version", "processes", "model", "wire", "connections", "answers/s", "p50 ms", "p90 ms",
    "p99 ms",
    "max ms", "not 200",
)  # fmt: skip


def _figure_rows(results: Results) -> Iterable[Row]:
    for figure in FIGURES:
        measured = figure.measure(results)
        sign = "≤" if figure.at_most else "≥"
        shown = "-" if measured is None else f"{measured:.2f}"
        yield (
            figure.title,
            f"{sign} {figure.must:g}",
            f"{sign} {figure.aim:g}",
            shown,
            figure.verdict(measured),
        )


def _medians(results: Results) -> list[Sample]:
    """One sample of each kind: of several rounds, the one with the median rate."""
    groups: dict[tuple[object, ...], list[Sample]] = {}
    for sample in results.samples:
        key = (
            sample.server,
            sample.processes,
            sample.model,
            sample.wire,
            sample.connections,
            sample.due_per_s,
        )
        groups.setdefault(key, []).append(sample)
    return [sorted(group, key=lambda sample: sample.per_s)[len(group) // 2] for group in groups.values()]


def _sample_row(results: Results, sample: Sample) -> Row:
    others = sum(count for status, count in sample.statuses.items() if status != 200) + sample.broken
    version = results.versions.get(sample.server, "")
    what = (sample.server, version, str(sample.processes), sample.model, sample.wire, str(sample.connections))
    return (*what, f"{sample.per_s:.0f}", *_latencies(sample), str(others))


def _latencies(sample: Sample) -> Row:
    return tuple(f"{value:.2f}" for value in (sample.p50_ms, sample.p90_ms, sample.p99_ms, sample.max_ms))


def _ceiling_rows(results: Results) -> Iterable[Row]:
    for model in results.ceilings[0]:
        rounds = [ceiling[model] for ceiling in results.ceilings]
        yield (
            model,
            *(f"{sorted(round_[batch] for round_ in rounds)[len(rounds) // 2]:.0f}" for batch in rounds[0]),
        )


def _memory_rows(results: Results) -> Iterable[Row]:
    for name in sorted(set(results.memories) | set(results.starts_s)):
        start_s, memory = results.starts_s.get(name), results.memories.get(name)
        yield (
            name,
            "" if start_s is None else f"{start_s:.2f}",
            "" if memory is None else str(memory.processes),
            "" if memory is None else f"{memory.resident_mb:.0f}",
            "" if memory is None else f"{memory.pss_mb:.0f}",
        )


def _table(head: Row, rows: Iterable[Row]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def draw_latency(results: Results, path: Path) -> None:
    """Draw the latency against the load: closed loops of all servers, and the open loop of this one."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (closed, opened) = plt.subplots(1, 2, figsize=(13, 5), layout="constrained")
    samples = [sample for sample in _medians(results) if sample.model == "cnn"]
    for server, processes, wire in sorted(
        {(s.server, s.processes, s.wire) for s in samples if s.connections}
    ):
        line = [
            s
            for s in samples
            if (s.server, s.processes, s.wire) == (server, processes, wire) and s.connections
        ]
        line.sort(key=lambda sample: sample.connections)
        style = {"linewidth": 2.5} if server == OURS else {"linewidth": 1, "alpha": 0.7}
        label = f"{server} x{processes} {wire}"
        closed.plot([s.per_s for s in line], [s.p99_ms for s in line], marker="o", label=label, **style)
    closed.set(
        title="closed loop, 1 to 128 connections", xlabel="answers a second", ylabel="p99, ms", yscale="log"
    )
    closed.legend(fontsize=7)
    line = sorted((s for s in samples if not s.connections), key=lambda sample: sample.due_per_s)
    for name, values in (
        ("p50", [s.p50_ms for s in line]),
        ("p90", [s.p90_ms for s in line]),
        ("p99", [s.p99_ms for s in line]),
    ):  # fmt: skip
        opened.plot([s.due_per_s for s in line], values, marker="o", label=name)
    opened.set(title="octet x2 binary, open loop", xlabel="requests due a second", ylabel="ms", yscale="log")
    opened.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)
