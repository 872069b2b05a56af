"""The card holds every measured figure, and nothing is written of what was not measured."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bundle.manifest import Manifest, Metrics, Temperature
from bundle.repository import read_bundle
from tests import tiny
from training.card import CardFacts, write_card

FACTS = CardFacts(
    title="Tiny images",
    summary="Tells which of three.",
    data="A set of 123 images.",
    licence="CC BY-SA 3.0",
    attribution="Tiny, by A. Person",
    limits=("Only daylight.", "Anything else is called a digit."),
)
FP32 = Metrics(
    n=4321, accuracy=0.9712, nll=0.1234, brier=0.0456, agreement=1,
    latency_ms={1: 0.81, 8: 4.0, 32: 16.5}, size_bytes=1_234_567,
)  # fmt: skip
INT8 = Metrics(
    n=4321, accuracy=0.9698, nll=0.1311, brier=0.0478, agreement=0.9987,
    latency_ms={1: 0.33, 8: 1.4, 32: 6.6}, size_bytes=345_678,
)  # fmt: skip


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    manifest = read_bundle(tiny.make_image_bundle(tmp_path)).manifest
    fitted = Temperature(
        value=1.234, method="temperature_map", n=3000, n_errors=87, ece_before=0.0173, ece_after=0.0061
    )
    unhelpful = Temperature(
        value=1, method="identity", n=3000, n_errors=85, ece_before=0.0119, ece_after=0.0119
    )
    graphs = {
        "int8": manifest.graphs["int8"].model_copy(update={"metrics": INT8, "temperature": fitted}),
        "fp32": manifest.graphs["fp32"].model_copy(update={"metrics": FP32, "temperature": unhelpful}),
    }
    return manifest.model_copy(update={"graphs": graphs})


def rows(card: str) -> dict[str, list[str]]:
    table = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in card.splitlines() if "|" in line
    ]
    return {row[0]: row[1:] for row in table}


def test_the_table_holds_every_measured_figure(manifest: Manifest) -> None:
    table = rows(write_card(manifest, FACTS))
    assert table == {
        "": ["int8", "fp32", "int8 / fp32"],
        "---": ["---"] * 3,
        "accuracy (n = 4321)": ["0.9698", "0.9712", ""],
        "agreement with fp32": ["0.9987", "", ""],
        "negative log likelihood": ["0.1311", "0.1234", ""],
        "Brier score (0..2)": ["0.0478", "0.0456", ""],
        "size in bytes": ["345,678", "1,234,567", "0.28"],
        "latency at batch 1, ms": ["0.33", "0.81", "0.41"],
        "latency at batch 8, ms": ["1.40", "4.00", "0.35"],
        "latency at batch 32, ms": ["6.60", "16.50", "0.40"],
    }


def test_what_the_worst_mates_do_is_told_where_it_was_measured(manifest: Manifest) -> None:
    name = "largest shift of a probability by the worst batch-mates found"
    shifts = {"int8": 0.00234, "fp32": 0.0}
    graphs = {
        precision: graph.model_copy(
            update={"metrics": graph.metrics.model_copy(update={"mate_shift": shifts[precision]})}
        )
        for precision, graph in manifest.graphs.items()
        if graph.metrics is not None
    }
    assert name not in rows(write_card(manifest, FACTS))
    assert rows(write_card(manifest.model_copy(update={"graphs": graphs}), FACTS))[name] == ["0.002", "0", ""]


def test_temperatures_are_told_with_what_they_were_fitted_on(manifest: Manifest) -> None:
    card = write_card(manifest, FACTS)
    int8, fp32 = re.findall(r"^- (?:int8|fp32): .*$", card, re.M)
    assert int8 == (
        "- int8: temperature 1.234; fitted on 3000 items with 87 errors; expected calibration error "
        "on the test split 0.0173 before, 0.0061 after."
    )
    assert "temperature 1, because the fitted one did not help; fitted on 3000 items with 85 errors" in fp32


def test_a_temperature_that_no_error_could_teach_is_told_so(manifest: Manifest) -> None:
    int8 = manifest.graphs["int8"]
    assert int8.temperature is not None
    taught = int8.temperature.model_copy(update={"method": "identity", "value": 1.0, "n_errors": 0})
    graphs = {**manifest.graphs, "int8": int8.model_copy(update={"temperature": taught})}
    card = write_card(manifest.model_copy(update={"graphs": graphs}), FACTS)
    assert "- int8: temperature 1, because there was no error to learn from; fitted on 3000 items" in card


def test_facts_licence_attribution_and_provenance_are_there(manifest: Manifest) -> None:
    card = write_card(manifest, FACTS)
    assert card.startswith("# Tiny images\n\nTells which of three.\n")
    for text in (FACTS.data, "Tiny, by A. Person. Licence: CC BY-SA 3.0.", *FACTS.limits):
        assert text in card
    assert "`tiny-image` version 1, made by `python -m training tiny` on\n2026-01-01." in card
    assert "with one thread on nothing" in card
    assert "Commit unknown, weights fitted at commit\nunknown, configuration 000000000000" in card


def test_a_graph_without_a_temperature_is_told_so(manifest: Manifest) -> None:
    graphs = {
        precision: graph.model_copy(update={"temperature": None})
        for precision, graph in manifest.graphs.items()
    }
    card = write_card(manifest.model_copy(update={"graphs": graphs}), FACTS)
    assert "- int8: no temperature was fitted." in card


def test_no_card_is_written_of_what_was_not_measured(manifest: Manifest) -> None:
    graphs = {**manifest.graphs, "int8": manifest.graphs["int8"].model_copy(update={"metrics": None})}
    with pytest.raises(ValueError, match="int8 was not measured"):
        write_card(manifest.model_copy(update={"graphs": graphs}), FACTS)
