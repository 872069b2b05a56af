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
from training.config import GateConfig, Places, WorkPlaces
from training.errors import TrainingError
from training.held_out_speakers import measure_held_out_speakers, render_table
from training.recipes import mnist_cnn, spoken_digits_lstm


class MnistCnnJob(Places, mnist_cnn.MnistCnnConfig):
    """Train the handwritten-digit CNN on MNIST and publish it as int8."""

    weights_from: Path | None = None
    """A published bundle of the same configuration: take its network instead of training one, and do
    everything after the training anew."""
    review: Path | None = None
    """An .npz of labelled items that `octet review export` wrote: they are trained on too, and go into no
    other split."""


class SpokenDigitsLstmJob(Places, spoken_digits_lstm.SpokenDigitsLstmConfig):
    """Train the spoken-digit LSTM on the Free Spoken Digit Dataset and publish it as int8."""

    weights_from: Path | None = None
    """A published bundle of the same configuration: take its graphs instead of making new ones, and do
    everything after the quantization anew."""
    review: Path | None = None
    """An .npz of labelled items that `octet review export` wrote: they are trained on too, and go into no
    other split."""


class HeldOutSpeakersJob(WorkPlaces, spoken_digits_lstm.SpokenDigitsLstmConfig):
    """Measure the spoken-digit LSTM on speakers it never met: each is left out in turn. Publishes nothing."""

    # Wide open: how fast the int8 graph is, or how like fp32, says nothing of speakers.
    gates: GateConfig = GateConfig(max_latency_ratio=1e6, max_accuracy_loss=1, min_agreement=0)


class Command(BaseSettings):
    """Turn real data into quantized model bundles."""

    model_config = SettingsConfigDict(cli_prog_name="python -m training", cli_kebab_case=True)

    mnist_cnn: CliSubCommand[MnistCnnJob]
    spoken_digits_lstm: CliSubCommand[SpokenDigitsLstmJob]
    held_out_speakers: CliSubCommand[HeldOutSpeakersJob]


def main(arguments: list[str] | None = None) -> int:
    """Run one job; return the exit code. A failure is one line, without a stack trace."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("training").setLevel(logging.INFO)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns that torchvision is not installed
    try:
        outcome = run(CliApp.run(Command, cli_args=arguments))
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
    print(outcome)
    return 0


def run(command: Command) -> str:
    """Run the job that a command configures; return what to tell of its outcome."""
    job = get_subcommand(command, is_required=False)
    if job is None:
        recipes = " or ".join(name.replace("_", "-") for name in Command.model_fields)
        raise TrainingError(f"no recipe was named: {recipes}; --help tells more")
    if isinstance(job, HeldOutSpeakersJob):
        file, report = measure_held_out_speakers(_speech_config(job), WorkPlaces(**_only(job, WorkPlaces)))
        return f"{render_table(report)}\nwrote {file}"
    places = Places(**_only(job, Places))
    for folder in (places.models_dir, places.runs_dir):  # rather now than after the training
        folder.mkdir(parents=True, exist_ok=True)
    if isinstance(job, MnistCnnJob):
        digits = mnist_cnn.MnistCnnConfig(**_only(job, mnist_cnn.MnistCnnConfig))
        return f"published {mnist_cnn.train(digits, places, job.weights_from, job.review)}"
    assert isinstance(job, SpokenDigitsLstmJob)
    directory = spoken_digits_lstm.train(_speech_config(job), places, job.weights_from, job.review)
    return f"published {directory}"


def _speech_config(job: object) -> spoken_digits_lstm.SpokenDigitsLstmConfig:
    part = spoken_digits_lstm.SpokenDigitsLstmConfig
    return part(**_only(job, part))


def _only(job: object, part: type[BaseModel]) -> dict[str, Any]:
    return {name: getattr(job, name) for name in part.model_fields}


if __name__ == "__main__":
    sys.exit(main())
