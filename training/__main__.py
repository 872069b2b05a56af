"""The command line of the jobs: `python -m training <recipe> [--data-dir D] [--fit.max-epochs N] …`."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_settings import (
    BaseSettings,
    CliApp,
    CliSubCommand,
    SettingsConfigDict,
    SettingsError,
    get_subcommand,
)

from bundle.errors import BundleError
from training.config import Places
from training.errors import TrainingError
from training.recipes import mnist_cnn, spoken_digits_lstm


class MnistCnnJob(Places, mnist_cnn.MnistCnnConfig):
    """Train the handwritten-digit CNN on MNIST and publish it as int8."""

    weights_from: Path | None = None
    """A published bundle of the same configuration: take its network instead of training one, and do
    everything after the training anew."""


class SpokenDigitsLstmJob(Places, spoken_digits_lstm.SpokenDigitsLstmConfig):
    """Train the spoken-digit LSTM on the Free Spoken Digit Dataset and publish it as int8."""

    weights_from: Path | None = None
    """A published bundle of the same configuration: take its graphs instead of making new ones, and do
    everything after the quantization anew."""


class Command(BaseSettings):
    """Turn real data into quantized model bundles."""

    model_config = SettingsConfigDict(cli_prog_name="python -m training", cli_kebab_case=True)

    mnist_cnn: CliSubCommand[MnistCnnJob]
    spoken_digits_lstm: CliSubCommand[SpokenDigitsLstmJob]


def main(arguments: list[str] | None = None) -> int:
    """Run one job; return the exit code. A failure is one line, without a stack trace."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("training").setLevel(logging.INFO)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns that torchvision is not installed
    try:
        directory = run(CliApp.run(Command, cli_args=arguments))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        print(f"error: {'.'.join(map(str, first['loc']))}: {first['msg']}", file=sys.stderr)
        return 2
    except SettingsError as error:
        print(f"error: {error}: {error.__cause__}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    except (TrainingError, BundleError, OSError) as error:  # an OSError: a folder cannot be written to
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"published {directory}")
    return 0


def run(command: Command) -> Path:
    """Run the recipe that a command configures; return the published directory."""
    job = get_subcommand(command, is_required=False)
    if job is None:
        recipes = " or ".join(name.replace("_", "-") for name in Command.model_fields)
        raise TrainingError(f"no recipe was named: {recipes}; --help tells more")
    places = Places(**_only(job, Places))
    for folder in (places.models_dir, places.runs_dir):  # rather now than after the training
        folder.mkdir(parents=True, exist_ok=True)
    if isinstance(job, MnistCnnJob):
        digits = mnist_cnn.MnistCnnConfig(**_only(job, mnist_cnn.MnistCnnConfig))
        return mnist_cnn.train(digits, places, job.weights_from)
    assert isinstance(job, SpokenDigitsLstmJob)
    config = spoken_digits_lstm.SpokenDigitsLstmConfig(
        **_only(job, spoken_digits_lstm.SpokenDigitsLstmConfig)
    )
    return spoken_digits_lstm.train(config, places, job.weights_from)


def _only(job: object, part: type[BaseModel]) -> dict[str, Any]:
    return {name: getattr(job, name) for name in part.model_fields}


if __name__ == "__main__":
    sys.exit(main())
