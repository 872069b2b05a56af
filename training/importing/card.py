"""The card of an imported model: what is known of it, which is little, and what is not."""

from __future__ import annotations

from bundle.manifest import Manifest, TensorSpec
from training.importing.gates import Bounds, Figures


def write_import_card(
    manifest: Manifest, source: str, notes: tuple[str, ...], figures: Figures | None, bounds: Bounds
) -> str:
    """Return the card as Markdown.

    Args:
        source: name of the file that was imported.
        notes: what was found out, a sentence each.
        figures: of the int8 graph, where there is one.
    """
    provenance = manifest.provenance
    tools = ", ".join(f"{name} {version}" for name, version in sorted(provenance.tool_versions.items()))
    found = "\n".join(f"- {note}" for note in notes) or "- Nothing unusual."
    return f"""# {manifest.name}

{manifest.description}

Version {manifest.version}, imported from `{source}` by `octet import` on {provenance.created_at:%Y-%m-%d}.

## Inputs and outputs

| | datatype | shape |
| --- | --- | --- |
{_rows("input", manifest.inputs)}
{_rows("output", manifest.outputs)}

## Found when it was imported

{found}

## Measured

{_measured(manifest, figures, bounds)}

## Limits

- The golden examples are seeded noise. They prove that this machine computes what the importing machine
  computed, and nothing about whether the model is right.
- No temperature was fitted, so probabilities are as the model gives them.
- What the model was trained on, by whom and under which licence is not known here.

## Provenance

Source {provenance.weights_commit}, options {provenance.config_sha256[:12]},
data {provenance.data_sha256[:12]}, imported by commit {provenance.git_commit}.
{tools}.
"""


def _rows(side: str, tensors: tuple[TensorSpec, ...]) -> str:
    lines = []
    for spec in tensors:
        shape = ", ".join(map(str, spec.shape))
        lines.append(f"| {side} `{spec.name}`{' (optional)' * spec.optional} | {spec.datatype} | [{shape}] |")
    return "\n".join(lines)


def _measured(manifest: Manifest, figures: Figures | None, bounds: Bounds) -> str:
    lines = []
    for precision, graph in sorted(manifest.graphs.items()):
        if graph.metrics is not None:
            metrics = graph.metrics
            lines.append(
                f"- {precision}: accuracy {metrics.accuracy:.4f}, negative log likelihood "
                f"{metrics.nll:.4f} over {metrics.n} items that the importer brought."
            )
    if figures is not None:
        lines.append(f"- int8 beside fp32: {figures.describe(bounds)}. None of these items gave a range.")
    return "\n".join(lines) or "Nothing: no data were given."
