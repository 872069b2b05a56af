"""Small bundles with all their evidence, judged by their own test splits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from bundle.manifest import Precision
from bundle.predictor import load_predictor
from tests import small
from tests.calibrated import make_calibrated_bundle, splits
from training.assemble import Graphs, assemble
from training.recipes.spoken_digits_lstm import SpokenDigitsLstmConfig, facts, golden_inputs
from training.report.answers import SERVED_FIRST, Answers, Subject, answer_all, subject_of
from training.report.report import Report, make_report


@pytest.fixture(scope="session")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """Its items have two groups, and there are darkness and light as strangers."""
    directory = make_calibrated_bundle(tmp_path_factory.mktemp("models"))
    predictors = {precision: load_predictor(directory, precision=precision) for precision in SERVED_FIRST}
    whole = splits()
    groups = np.array(["ann", "bob"])[np.arange(len(whole.test)) % 2]
    strangers = {"darkness": [np.full((4, 4), value, np.uint8) for value in (0, 1, 254, 255)]}
    return subject_of(predictors, replace(whole, test=replace(whole.test, groups=groups)), strangers)


@pytest.fixture(scope="session")
def answers(subject: Subject) -> Mapping[Precision, Answers]:
    return {
        precision: answer_all(predictor, subject.rows, subject.labels)
        for precision, predictor in subject.predictors.items()
    }


@pytest.fixture(scope="session")
def int8(answers: Mapping[Precision, Answers]) -> Answers:
    return answers["int8"]


@pytest.fixture(scope="session")
def report(subject: Subject) -> Report:
    return make_report(subject)


@pytest.fixture(scope="session")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """An untrained LSTM over sung vowels, published with its report."""
    config = SpokenDigitsLstmConfig(gates=small.OPEN_GATES, hidden=small.HIDDEN)
    graphs = Graphs(small.lstm()[1], *small.lstm_int8(), weights_commit="abc")
    directory = assemble(
        config,
        facts(config),
        graphs,
        small.vowel_splits(),
        golden_inputs(),
        tmp_path_factory.mktemp("sounds"),
    )
    predictors = {precision: load_predictor(directory, precision=precision) for precision in SERVED_FIRST}
    return subject_of(predictors, small.vowel_splits(), {})
