"""Write the model card: what a person should know before using a bundle, from measured figures only."""

from __future__ import annotations

from dataclasses import dataclass

from bundle.manifest import Manifest, Metrics, Precision


@dataclass(frozen=True)
class CardFacts:
    """What the card says beside the manifest.

    Attributes:
        title: of the card.
        summary: what the model does, in a sentence or two.
        data: name and size of the data set, and how it was split.
        licence, attribution: of the data set.
        limits: what the model was not made or measured for, a sentence each.
    """

    title: str
    summary: str
    data: str
    licence: str
    attribution: str
    limits: tuple[str, ...]


def write_card(manifest: Manifest, facts: CardFacts) -> str:
    """Return the model card as Markdown."""
    provenance = manifest.provenance
    limits = "\n".join(f"- {limit}" for limit in facts.limits)
    tools = ", ".join(f"{name} {version}" for name, version in sorted(provenance.tool_versions.items()))
    return f"""# {facts.title}

{facts.summary}

`{manifest.name}` version {manifest.version}, made by `python -m training {provenance.recipe}` on
{provenance.created_at:%Y-%m-%d}.

## Measured

On the test split, which nothing was fitted on, through the code that serves:

{_figures(manifest)}

Latency is the median of interleaved runs with one thread on {provenance.measured_on};
trust the ratio, not the milliseconds. Agreement is the share of test items with the same label as fp32.

## Confidence

{_temperatures(manifest)}

The expected calibration error (15 bins) of even a perfectly calibrated model is above 0 on a finite test
set, and no figure here says anything about inputs unlike the training data.

## Data

{facts.data}{_reviewed(manifest)}

{facts.attribution}. Licence: {facts.licence}. No item of it is contained in this bundle; the golden
examples in `golden.npz` were made by the project.

## Limits

{limits}

## Provenance

Commit {provenance.git_commit}, weights fitted at commit
{provenance.weights_commit}, configuration {provenance.config_sha256[:12]}, data
{provenance.data_sha256[:12]}.
{tools}.
"""


def _reviewed(manifest: Manifest) -> str:
    reviewed = manifest.provenance.reviewed
    if reviewed is None:
        return ""
    return (
        f" {reviewed.n:,} labelled items of a review queue (file {reviewed.sha256[:12]}) were added to the "
        "training items, and to no other split."
    )


def _figures(manifest: Manifest) -> str:
    rows = ["| | int8 | fp32 | int8 / fp32 |", "| --- | --- | --- | --- |"]
    int8, fp32 = _metrics(manifest, "int8"), _metrics(manifest, "fp32")
    rows.append(f"| accuracy (n = {int8.n}) | {int8.accuracy:.4f} | {fp32.accuracy:.4f} | |")
    rows.append(f"| agreement with fp32 | {int8.agreement:.4f} | | |")
    rows.append(f"| negative log likelihood | {int8.nll:.4f} | {fp32.nll:.4f} | |")
    rows.append(f"| Brier score (0..2) | {int8.brier:.4f} | {fp32.brier:.4f} | |")
    rows.append(
        f"| size in bytes | {int8.size_bytes:,} | {fp32.size_bytes:,} "
        f"| {int8.size_bytes / fp32.size_bytes:.2f} |"
    )
    if int8.mate_shift is not None and fp32.mate_shift is not None:
        rows.append(
            "| largest shift of a probability by the worst batch-mates found "
            f"| {int8.mate_shift:.1g} | {fp32.mate_shift:.1g} | |"
        )
    for batch in sorted(int8.latency_ms):
        a, b = int8.latency_ms[batch], fp32.latency_ms[batch]
        rows.append(f"| latency at batch {batch}, ms | {a:.2f} | {b:.2f} | {a / b:.2f} |")
    return "\n".join(rows)


def _temperatures(manifest: Manifest) -> str:
    lines = []
    for precision, graph in sorted(manifest.graphs.items(), reverse=True):
        fitted = graph.temperature
        if fitted is None:
            lines.append(f"- {precision}: no temperature was fitted.")
            continue
        if fitted.method == "temperature_map":
            outcome = f"temperature {fitted.value:.3f}"
        elif fitted.n_errors == 0:
            outcome = "temperature 1, because there was no error to learn from"
        else:
            outcome = "temperature 1, because the fitted one did not help"
        lines.append(
            f"- {precision}: {outcome}; fitted on {fitted.n} items with {fitted.n_errors} errors; "
            f"expected calibration error on the test split {fitted.ece_before:.4f} before, "
            f"{fitted.ece_after:.4f} after."
        )
    return "\n".join(lines)


def _metrics(manifest: Manifest, precision: Precision) -> Metrics:
    metrics = manifest.graphs[precision].metrics
    if metrics is None:
        raise ValueError(f"{precision} was not measured: there is nothing to write a card from")
    return metrics
