"""The report's section on the network itself."""

from __future__ import annotations

from collections.abc import Iterator

from bundle.manifest import Manifest
from training.report import portraits
from training.report.charts import MAX_LABELS
from training.report.markup import Html, Section, heading, paragraph, picture
from training.report.network import Contributions, Network, Units
from training.report.numbers import figure


def describe_network(manifest: Manifest, network: Network, drawn: list[Html]) -> Iterator[Section]:
    """Yield the section, where there is anything to show.

    Args:
        drawn: pictures of the weights.
    """
    labels = manifest.labels
    pieces = list(drawn)
    if network.contributions is not None and len(labels) <= MAX_LABELS:
        pieces += _show_contributions(network.contributions, manifest)
    if network.units is not None:
        pieces += _show_units(network.units, manifest)
    if network.maps:
        caption = "The strongest maps of a few layers, for a drawn seven; each is scaled by itself."
        pieces += [heading("Feature maps"), picture(portraits.draw_maps(network.maps), caption)]
    if network.images:
        answers = ", ".join(f"{each.answer} ({each.confidence:.2f})" for each in network.images)
        caption = (
            "Where covering a part of a drawn digit takes the most from the answer (orange), or adds to it "
            f"(blue). Answers, and how sure: {answers}."
        )
        pieces += [heading("Occlusion"), picture(portraits.draw_occlusions(network.images), caption)]
    if network.sound is not None:
        caption = (
            "A synthetic voice that glides between two vowels: no digit, and nobody’s. Its log-mel frames, "
            "the states of the LSTM, and what it would answer had the sound ended there."
        )
        pieces += [heading("States over time"), picture(portraits.draw_sound(network.sound, labels), caption)]
    if pieces:
        note = paragraph("Weights, averages over the test split, and inputs that the project drew itself.")
        yield Section("network", "Inside the network", [note, *pieces])


def _show_contributions(found: Contributions, manifest: Manifest) -> Iterator[Html]:
    yield heading("What each feature says")
    caption = (
        "The last layer is linear, so what a feature adds to a logit is exactly its weight times its "
        "value. Here: the mean over inputs of each label, of what every feature adds to that label’s "
        f"logit. With the bias the sum over a row is the mean logit; it was at most {figure(found.error)} "
        "off for any single input (fp32)."
    )
    yield picture(portraits.draw_contributions(found, manifest.labels), caption)


def _show_units(found: Units, manifest: Manifest) -> Iterator[Html]:
    yield heading("How features are used")
    silent = int((found.active == 0).sum())
    caption = f"{silent} of {len(found.mean)} features stay 0 for every input of the test split."
    yield picture(portraits.draw_units(found), caption)
    if found.shift is not None and len(manifest.labels) <= MAX_LABELS:
        caption = "Mean |int8 - fp32| of every feature, for inputs of each label."
        yield picture(portraits.draw_unit_shift(found, manifest.labels), caption)
