"""Configurations are frozen, complete, and named by their digest."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from training.config import FitConfig, GateConfig, Places, RecipeConfig
from training.recipes.mnist_cnn import MnistCnnConfig
from training.recipes.spoken_digits_lstm import SpokenDigitsLstmConfig

RECIPES = pytest.mark.parametrize("recipe", [MnistCnnConfig, SpokenDigitsLstmConfig])


@RECIPES
def test_equal_configurations_have_equal_digests_and_others_do_not(recipe: type[RecipeConfig]) -> None:
    config = recipe()  # type: ignore[call-arg]
    assert config.sha256() == recipe().sha256()  # type: ignore[call-arg]
    changed = [
        config.model_copy(update={"seed": 1}),
        config.model_copy(update={"fit": config.fit.model_copy(update={"max_epochs": 7})}),
        config.model_copy(update={"gates": config.gates.model_copy(update={"min_agreement": 0.5})}),
    ]
    assert len({config.sha256(), *(other.sha256() for other in changed)}) == 4


@RECIPES
def test_one_value_of_a_part_can_be_given_and_the_others_stay(recipe: type[RecipeConfig]) -> None:
    default = recipe()  # type: ignore[call-arg]
    config = recipe.model_validate({"fit": {"max_epochs": 3}, "gates": {"max_accuracy_loss": 0.5}})
    assert config.fit == default.fit.model_copy(update={"max_epochs": 3})
    assert config.gates == default.gates.model_copy(update={"max_accuracy_loss": 0.5})


@RECIPES
def test_a_digest_survives_a_round_trip_through_json(recipe: type[RecipeConfig]) -> None:
    config = recipe()  # type: ignore[call-arg]
    assert recipe.model_validate_json(config.model_dump_json()).sha256() == config.sha256()


@pytest.mark.parametrize(
    ("part", "values"),
    [
        (FitConfig, {"max_epochs": 0, "batch_size": 1, "learning_rate": 1}),
        (FitConfig, {"max_epochs": 1, "batch_size": 0, "learning_rate": 1}),
        (FitConfig, {"max_epochs": 1, "batch_size": 1, "learning_rate": 0}),
        (FitConfig, {"max_epochs": 1, "batch_size": 1, "learning_rate": 1, "precision": "int4"}),
        (FitConfig, {"max_epochs": 1, "batch_size": 1, "learning_rate": 1, "unknown": 1}),
        (GateConfig, {"min_agreement": 1.1}),
        (GateConfig, {}),
        (MnistCnnConfig, {"fit": {"max_epocs": 3}}),
    ],
)
def test_values_out_of_bounds_and_unknown_names_are_refused(part: type, values: dict) -> None:
    with pytest.raises(ValidationError):
        part(**values)


def test_a_configuration_never_changes() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        MnistCnnConfig().seed = 3  # type: ignore[misc]


def test_the_data_directory_comes_from_the_environment_unless_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCTET_DATA_DIR", "/somewhere")
    assert Places().data_dir == Path("/somewhere")
    assert Places(data_dir=Path("here")).data_dir == Path("here")
    monkeypatch.setenv("OCTET_DATA_DIR", "")
    assert Places().data_dir == Path("data")
    monkeypatch.delenv("OCTET_DATA_DIR")
    assert Places().data_dir == Path("data")


def test_runs_of_one_configuration_share_a_folder_and_others_have_their_own() -> None:
    places, config = Places(runs_dir=Path("r")), MnistCnnConfig()
    assert places.run_dir(config) == Path("r") / "mnist-cnn" / config.sha256()[:12]
    assert places.run_dir(MnistCnnConfig(seed=1)) != places.run_dir(config)
