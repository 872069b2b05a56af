"""The bounds of the committed models, and what holds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from training.data.notmnist import NAME
from training.recipes import mnist_cnn, spoken_digits_lstm
from training.report.figures import BOUNDS, LEAST_AGREEMENT, check_figures
from training.report.report import Report
from training.report.strangers import Novelty, Stranger, derive_strangers


def test_every_recipe_has_bounds_and_every_bound_belongs_to_a_recipe() -> None:
    recipes = {mnist_cnn.MnistCnnConfig().name, spoken_digits_lstm.SpokenDigitsLstmConfig().name}
    assert set(BOUNDS) == set(LEAST_AGREEMENT) == recipes


def test_figures_within_their_bounds_hold_and_others_do_not(report: Report) -> None:
    measures = replace(report.document.graphs["int8"], accuracy=0.99, nll=0.04, brier=0.015)
    found = {each.name: each for each in check_figures("mnist-cnn", measures, report.document.comparison)}
    assert found["accuracy"].held is True  # a figure on its bound holds
    assert found["Brier score (0..2)"].held is True
    assert found["negative log likelihood"].held is False
    below = check_figures("mnist-cnn", replace(measures, accuracy=0.9899), None)
    assert next(each for each in below if each.name == "accuracy").held is False


def test_what_was_not_measured_neither_holds_nor_misses(report: Report) -> None:
    found = {each.name: each for each in check_figures("mnist-cnn", report.document.graphs["int8"], None)}
    unknown = found["AUROC of novelty: notMNIST"]
    assert (unknown.value, unknown.held) == (None, None)
    assert found["agreement with fp32"].held is None


def test_other_models_have_no_figures(report: Report) -> None:
    assert check_figures("mine", report.document.graphs["int8"], None) == ()
    assert check_figures("mnist-cnn", None, None) == ()


@pytest.mark.parametrize("recipe", list(BOUNDS))
def test_every_figure_is_measured_where_its_strangers_are_there(recipe: str, report: Report) -> None:
    """A name of a stranger that nobody makes would never be measured."""
    module = mnist_cnn if recipe == "mnist-cnn" else spoken_digits_lstm
    config = (
        mnist_cnn.MnistCnnConfig() if module is mnist_cnn else spoken_digits_lstm.SpokenDigitsLstmConfig()
    )
    facts = module.facts(config)  # type: ignore[arg-type]
    graph = report.document.graphs["int8"]
    manifest = type("Decoded", (), {"decoding": facts.decoding})()
    items = [np.zeros((28, 28), np.uint8) if recipe == "mnist-cnn" else np.zeros(100, np.float32)]
    names = [name for name, _ in derive_strangers(manifest, items)] + [NAME]
    strangers = tuple(Stranger(name, 1, 0.5, 0.5, None) for name in names)
    threshold = graph.selection.thresholds[0]
    thresholds = tuple(replace(threshold, target_risk=risk) for risk in (0.005, 0.02))
    measures = replace(
        graph,
        novelty=Novelty(0.05, strangers),
        selection=replace(graph.selection, thresholds=thresholds),
    )
    found = check_figures(recipe, measures, report.document.comparison)
    assert [each.name for each in found if each.value is None] == []
    assert len(found) == len(BOUNDS[recipe]) + 1
