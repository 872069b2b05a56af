"""The command line: it runs the recipes, and a failure is one line and an exit code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bundle.predictor import load_predictor
from tests.small import digit_splits, vowel_splits
from training.__main__ import main
from training.data import fsdd, mnist
from training.errors import GateError
from training.recipes import mnist_cnn

TWO_STEPS = [
    "--fit.max-steps", "2", "--fit.batch-size", "8", "--fit.overfit-steps", "0", "--fit.precision", "32-true",
    "--gates.max-latency-ratio", "1e6", "--gates.max-accuracy-loss", "1", "--gates.min-agreement", "0",
]  # fmt: skip
pytestmark = pytest.mark.filterwarnings(
    "ignore:The number of training batches .* is smaller than the logging"
)


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty folder without network and without settings from outside."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OCTET_DATA_DIR", raising=False)
    monkeypatch.setattr(mnist, "URL", "http://127.0.0.1:1")
    monkeypatch.setattr(fsdd, "URL", "http://127.0.0.1:1/archive.tar.gz")


@pytest.mark.parametrize("recipe", ["mnist-cnn", "spoken-digits-lstm"])
def test_a_recipe_runs_from_the_command_line_to_a_bundle_that_loads(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(mnist, "load_mnist", lambda _: digit_splits())
    monkeypatch.setattr(fsdd, "load_fsdd", lambda _: vowel_splits())
    size = ["--widths", "[4,8,8]"] if recipe == "mnist-cnn" else ["--hidden", "8"]
    places = ["--models-dir", "m", "--runs-dir", "r", "--data-dir", "d"]
    assert main([recipe, *TWO_STEPS, *size, *places, "--seed", "3"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"published m/{recipe}/1"
    predictor = load_predictor(tmp_path / "m" / recipe / "1")
    assert predictor.fallback is None
    assert {path.name for path in tmp_path.iterdir()} == {"m", "r"}


def test_options_reach_the_recipe_and_the_others_keep_their_defaults(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[tuple[Any, Any]] = []

    def train(config: Any, places: Any, weights_from: Path | None, review: Path | None) -> Path:
        calls.append((config, places))
        assert (weights_from, review) == ((Path("/w"), Path("/r")) if config.seed == 7 else (None, None))
        return tmp_path

    monkeypatch.setattr(mnist_cnn, "train", train)
    flags = [
        "--seed",
        "7",
        "--fit.max-epochs",
        "2",
        "--data-dir",
        "/d",
        "--weights-from",
        "/w",
        "--review",
        "/r",
    ]
    assert main(["mnist-cnn", *flags]) == 0
    assert main(["mnist-cnn"]) == 0
    (config, places), (default, default_places) = calls
    expected = mnist_cnn.MnistCnnConfig()
    assert default == expected
    assert type(default) is mnist_cnn.MnistCnnConfig  # so that the digest holds nothing of the places
    assert config == expected.model_copy(
        update={"seed": 7, "fit": expected.fit.model_copy(update={"max_epochs": 2})}
    )
    assert (places.data_dir, default_places.data_dir) == (Path("/d"), Path("data"))
    assert places.models_dir == default_places.models_dir == Path("models")


def last_error(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert "published" not in captured.out
    assert "Traceback" not in captured.err
    return captured.err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--fit.max-epochs", "zero"], "max_epochs"),
        (["--fit.max-epochs", "0"], "max_epochs"),
        (["--seed", "1.5"], "seed"),
        (["--gates.min-agreement", "2"], "min_agreement"),
        (["--fit.precision", "int4"], "precision"),
        (["--widths", "[4,8]"], "widths"),
        (["--widths", "wide"], "widths"),
    ],
)
def test_a_bad_value_is_one_line_that_names_it(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["mnist-cnn", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert text in error


def test_a_value_that_cannot_be_parsed_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mnist-cnn", "--fit", "{not json"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: error parsing value for field")
    assert "Expecting property name" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("arguments", [["mnist-cnn", "--no-such-option", "1"], ["no-such-recipe"]])
def test_an_unknown_option_or_recipe_ends_with_the_usage(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "no-such" in last_error(capsys)


@pytest.mark.parametrize("recipe", ["mnist-cnn", "spoken-digits-lstm"])
def test_missing_data_is_one_line_that_says_where_it_was_looked_for(
    recipe: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([recipe, "--data-dir", "nowhere"]) == 1
    error = last_error(capsys)
    assert error.startswith("error: nowhere/")
    assert "is not there" in error
    assert "http://127.0.0.1:1" in error


@pytest.mark.parametrize("option", ["--models-dir", "--runs-dir", "--data-dir"])
def test_a_folder_that_cannot_be_written_is_one_line(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "blocked").write_bytes(b"a file where a directory should be")
    if option != "--data-dir":
        monkeypatch.setattr(mnist, "load_mnist", lambda _: digit_splits())
    assert main(["mnist-cnn", *TWO_STEPS, "--widths", "[4,8,8]", option, "blocked/folder"]) == 1
    error = last_error(capsys)
    assert error.startswith("error: ")
    assert "blocked" in error


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (GateError("int8 is not published: too slow"), 1, "error: int8 is not published: too slow"),
        (KeyboardInterrupt(), 130, "interrupted; the same command goes on from the last checkpoint"),
    ],
)
def test_a_job_that_stops_says_why_in_one_line(
    error: BaseException,
    code: int,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stop(*_: object) -> Path:
        raise error

    monkeypatch.setattr(mnist_cnn, "train", stop)
    assert main(["mnist-cnn"]) == code
    assert last_error(capsys) == line


def test_without_a_recipe_the_line_names_the_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 1
    assert last_error(capsys).startswith("error: no recipe was named: mnist-cnn or spoken-digits-lstm")


def test_the_help_tells_every_option_of_a_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["mnist-cnn", "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for option in ("--data-dir", "--models-dir", "--runs-dir", "--seed", "--fit.max-epochs", "--widths"):
        assert option in text
    assert "Peak rate of AdamW" in text
