"""Speakers are left out one by one; what is told of them is what the service would answer."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from bundle.judgement import label_set, threshold_for
from bundle.predictor import Predictor, load_predictor
from tests.small import FIT, HIDDEN, OPEN_GATES, vowel_splits
from training import held_out_speakers
from training.__main__ import main
from training.config import Places, WorkPlaces
from training.data import fsdd
from training.data.splits import Examples, Splits
from training.held_out_speakers import (
    COLUMNS,
    Figures,
    Report,
    Sets,
    SpeakerResult,
    measure,
    measure_held_out_speakers,
    render_table,
)
from training.recipes.spoken_digits_lstm import SpokenDigitsLstmConfig, build
from training.scores import calibration_p_value, expected_calibration_error

CONFIG = SpokenDigitsLstmConfig(fit=FIT, gates=OPEN_GATES, hidden=HIDDEN)
pytestmark = pytest.mark.filterwarnings(
    "ignore:The number of training batches .* is smaller than the logging"
)


@cache
def spoken() -> Splits:
    """Sung vowels by ann and bob; each has every label in every split that needs it."""
    return Splits(**{name: _by_two(part) for name, part in vowel_splits()})


def _by_two(part: Examples) -> Examples:
    return replace(part, groups=np.where(part.ids // 10 % 2 == 0, "ann", "bob").astype(np.str_))


@pytest.fixture
def _data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fsdd, "load_fsdd", lambda _: spoken())


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the recipe makes without ann."""
    folder = tmp_path_factory.mktemp("without-ann")
    places = Places(models_dir=folder / "m", runs_dir=folder / "r")
    return build(CONFIG, places, spoken().hold_out("ann"))


@pytest.fixture(scope="module")
def predictor(bundle: Path) -> Predictor:
    return load_predictor(bundle)


@pytest.mark.usefixtures("_data")
def test_the_command_prints_a_row_for_each_speaker_and_publishes_nothing(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    built: list[tuple[SpokenDigitsLstmConfig, Splits]] = []

    def build_once(config: SpokenDigitsLstmConfig, places: Places, splits: Splits) -> Path:
        """Make each speaker's bundle a copy of the one that was made, where the job wants it."""
        built.append((config, splits))
        return Path(shutil.copytree(bundle, places.models_dir / "spoken-digits-lstm" / "1"))

    monkeypatch.setattr(held_out_speakers, "build", build_once)
    monkeypatch.chdir(tmp_path)
    options = ["--hidden", "8", "--runs-dir", "r", "--augmentation", "strong"]
    assert main(["held-out-speakers", *options]) == 0
    *table, last = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in table] == [
        "| speaker", "| ---", "| ann", "| bob", "| mean of new speakers", "| mean of known speakers"
    ]  # fmt: skip
    report = Report.model_validate_json(Path(last.removeprefix("wrote ")).read_bytes())
    assert render_table(report).splitlines() == table
    assert report.config == built[0][0]
    assert (report.config.augmentation, report.config.hidden) == ("strong", 8)
    assert [each.speaker for each in report.speakers] == ["ann", "bob"]
    assert sum(each.new.n for each in report.speakers) == sum(len(part) for _, part in spoken())
    assert sum(each.known.n for each in report.speakers) == len(spoken().test)
    for speaker, (_, splits) in zip(["ann", "bob"], built, strict=True):
        for name, part in splits:
            assert part.groups is not None
            assert (set(part.groups.tolist()) == {speaker}) == (name == "test")
    assert {path.name for path in tmp_path.iterdir()} == {"r"}
    assert not list(tmp_path.rglob("manifest.json"))


@pytest.mark.usefixtures("_data")
def test_a_finished_speaker_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left_out: list[str] = []

    def measure_without(speaker: str, *_: object) -> SpeakerResult:
        left_out.append(speaker)
        if left_out == ["ann", "bob"]:
            raise KeyboardInterrupt
        return result(speaker, accuracy=0.5)

    monkeypatch.setattr(held_out_speakers, "_measure_without", measure_without)
    places = WorkPlaces(runs_dir=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        measure_held_out_speakers(CONFIG, places)
    _, report = measure_held_out_speakers(CONFIG, places)
    assert left_out == ["ann", "bob", "bob"]
    assert report.speakers == [result("ann", accuracy=0.5), result("bob", accuracy=0.5)]
    other = CONFIG.model_copy(update={"augmentation": "strong"})
    measure_held_out_speakers(other, places)  # another configuration begins anew
    assert left_out[3:] == ["ann", "bob"]


def test_the_figures_are_those_of_the_answers_one_by_one(predictor: Predictor) -> None:
    test, evidence = spoken().test, predictor.evidence
    assert evidence is not None
    answers = [predictor.answer([row])[0] for row in predictor.rows(test.items)]
    best = [int(answer.run.probabilities.argmax()) for answer in answers]
    right = np.array([a == b for a, b in zip(best, test.labels.tolist(), strict=True)])
    confidences = np.array([float(answer.run.probabilities.max()) for answer in answers])
    novel = np.array([answer.judgement.novelty_p_value for answer in answers])
    found = measure(predictor, test)
    assert found.n == len(test)
    assert found.accuracy == right.mean()
    assert found.mean_confidence == pytest.approx(confidences.mean(), abs=1e-4)
    assert found.ece == pytest.approx(expected_calibration_error(confidences, right), abs=1e-3)
    assert found.ece_p_value == pytest.approx(calibration_p_value(confidences, right), abs=0.01)
    assert found.novel == (novel <= 0.05).mean()
    threshold = threshold_for(evidence, evidence.facts.default_target_risk)
    assert threshold is None  # ten recordings prove nothing
    assert (found.accepted, found.risk) == (0.0, None)
    for alpha, sets in found.sets.items():
        served = [
            label_set(answer.judgement.label_p_values, alpha, best=label)
            for answer, label in zip(answers, best, strict=True)
        ]
        holds = [int(y) in labels for (labels, _), y in zip(served, test.labels, strict=True)]
        alone = [
            h and not (f and y == b) for h, (_, f), y, b in zip(holds, served, test.labels, best, strict=True)
        ]
        assert sets.coverage_as_served == np.mean(holds)
        assert sets.coverage == np.mean(alone)
        assert sets.mean_size == np.mean([len(labels) for labels, _ in served])


def figures(**changes: float) -> Figures:
    sets = {alpha: Sets(coverage=0.7, coverage_as_served=0.8, mean_size=1.5) for alpha in (0.1, 0.05)}
    whole = Figures(
        n=10, accuracy=0.9, mean_confidence=0.95, ece=0.05, ece_p_value=0.5, sets=sets, novel=0.1,
        accepted=0.5, risk=0.2,
    )  # fmt: skip
    return whole.model_copy(update=changes)


def result(speaker: str, **changes: float) -> SpeakerResult:
    return SpeakerResult(speaker=speaker, temperature=1.0, new=figures(**changes), known=figures())


def cells(table: str, row: str) -> dict[str, str]:
    (line,) = (line for line in table.splitlines() if line.startswith(f"| {row} |"))
    return dict(zip(COLUMNS, [cell.strip() for cell in line.strip("|").split("|")], strict=True))


def test_the_table_has_means_over_speakers_and_no_risk_where_nothing_is_accepted() -> None:
    report = Report(
        config=CONFIG,
        data_sha256="0",
        git_commit="c",
        target_risk=0.02,
        speakers=[result("ann", accuracy=0.5), result("bob", accuracy=0.8, accepted=0.0, risk=None)],
    )
    table = render_table(report)
    assert cells(table, "ann")["accuracy"] == "0.500"
    assert cells(table, "bob")["wrong among them"] == "none"
    means = cells(table, "mean of new speakers")
    assert (means["accuracy"], means["accepted"], means["wrong among them"]) == ("0.650", "0.250", "0.200")
    assert cells(table, "mean of known speakers")["accuracy"] == "0.900"
    assert json.loads(report.model_dump_json())["speakers"][0]["new"]["sets"]["0.05"]["mean_size"] == 1.5
    assert Report.model_validate_json(report.model_dump_json()) == report
