"""Training runs: they learn, resume where they stopped, and end with their best weights."""

from __future__ import annotations

import copy
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from training.config import FitConfig
from training.errors import FitError
from training.fit import check_overfits, fit

# What Lightning says of short epochs, and of going on in a folder of checkpoints.
pytestmark = [
    pytest.mark.filterwarnings(
        "ignore:The number of training batches .* is smaller than the logging interval"
    ),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
]

CONFIG = FitConfig(max_epochs=4, batch_size=16, learning_rate=0.1, overfit_steps=0, weight_decay=0)


class Line(nn.Module):
    """The smallest network that the loop takes: features in, (logits, features) out."""

    def __init__(self, inputs: int = 4, classes: int = 3) -> None:
        super().__init__()
        self.head = nn.Linear(inputs, classes)
        self.steps = 0
        self.stop_at: int | None = None
        self.stop_with: type[BaseException] = RuntimeError

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.training:
            self.steps += 1
            if self.stop_at is not None and self.steps > self.stop_at:
                raise self.stop_with("stopped by the test")
        return self.head(x), x


def make_line() -> Line:
    torch.manual_seed(0)
    return Line()


def dataset(n: int, seed: int, shift: int = 0) -> TensorDataset:
    """Points whose label is the largest of their first three coordinates."""
    x = torch.randn(n, 4, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(x, (x[:, :3].argmax(1) + shift) % 3)


def loaders(shift: int = 0) -> tuple[DataLoader[Any], DataLoader[Any]]:
    generator = torch.Generator().manual_seed(0)
    train = DataLoader(dataset(64, 1), 16, shuffle=True, drop_last=True, generator=generator)
    return train, DataLoader(dataset(30, 2, shift), 30)


def loss_of(network: nn.Module, loader: DataLoader[Any]) -> float:
    network = copy.deepcopy(network).eval()
    with torch.no_grad():
        return sum(float(F.cross_entropy(network(x)[0], y)) for x, y in loader)


def checkpoint(run_dir: Path, name: str) -> dict[str, Any]:
    return torch.load(run_dir / "checkpoints" / name, weights_only=True)


def test_the_loss_falls_and_the_network_ends_in_evaluation_mode(tmp_path: Path) -> None:
    network, (train, validation) = make_line(), loaders()
    before = loss_of(network, validation)
    fit(network, train, validation, CONFIG, tmp_path)
    assert loss_of(network, validation) < 0.6 * before
    assert not network.training
    assert network.steps == 16
    assert next(network.parameters()).device.type == "cpu"


def test_the_log_holds_losses_and_accuracy(tmp_path: Path) -> None:
    fit(make_line(), *loaders(), CONFIG, tmp_path)
    header = (tmp_path / "logs" / "version_0" / "metrics.csv").read_text().splitlines()[0]
    assert {"validation_loss", "validation_accuracy"} <= set(header.split(","))


def test_the_weights_of_the_best_epoch_are_loaded_not_those_of_the_last(tmp_path: Path) -> None:
    # Validation wants other labels than training gives: it is best before anything is learnt well.
    network, (train, validation) = make_line(), loaders(shift=1)
    fit(network, train, validation, CONFIG, tmp_path)
    name = json.loads((tmp_path / "fit.json").read_text())["checkpoint"]
    best, last = checkpoint(tmp_path, name), checkpoint(tmp_path, "last.ckpt")
    assert best["epoch"] < last["epoch"] == 3
    assert torch.equal(network.head.weight, best["state_dict"]["network.head.weight"])
    assert not torch.equal(network.head.weight, last["state_dict"]["network.head.weight"])


def test_training_stops_when_validation_gets_no_better(tmp_path: Path) -> None:
    network, (train, validation) = make_line(), loaders(shift=1)
    config = CONFIG.model_copy(update={"max_epochs": 20, "patience": 2})
    fit(network, train, validation, config, tmp_path)
    assert network.steps < 20 * 4


def test_a_finished_run_is_only_loaded(tmp_path: Path) -> None:
    first = make_line()
    fit(first, *loaders(), CONFIG, tmp_path)
    torch.manual_seed(1)
    second = Line()
    fit(second, *loaders(), CONFIG, tmp_path)
    assert second.steps == 0
    assert torch.equal(first.head.weight, second.head.weight)
    assert not second.training


def test_an_interrupted_run_goes_on_from_its_last_epoch_and_ends_as_if_nothing_had_happened(
    tmp_path: Path,
) -> None:
    whole = make_line()
    # Each epoch gives the same batches, so that the two ways can be compared.
    train, validation = DataLoader(dataset(64, 1), 16), DataLoader(dataset(30, 2), 30)
    fit(whole, train, validation, CONFIG, tmp_path / "whole")

    broken = make_line()
    broken.stop_at = 10  # in the third of four epochs of 4 steps
    with pytest.raises(RuntimeError, match="stopped by the test"):
        fit(broken, train, validation, CONFIG, tmp_path / "run")
    assert not (tmp_path / "run" / "fit.json").exists()
    torch.manual_seed(7)
    resumed = Line()
    fit(resumed, train, validation, CONFIG, tmp_path / "run")
    assert resumed.steps == 8
    torch.testing.assert_close(resumed.head.weight, whole.head.weight)


def test_a_run_goes_on_from_its_last_epoch_though_an_earlier_one_was_better(tmp_path: Path) -> None:
    broken, loaded = make_line(), loaders(shift=1)
    broken.stop_at = 14  # in the last of four epochs of 4 steps
    with pytest.raises(RuntimeError, match="stopped by the test"):
        fit(broken, *loaded, CONFIG, tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").glob("best-*")] == ["best-epoch=0.ckpt"]
    resumed = make_line()
    fit(resumed, *loaded, CONFIG, tmp_path)
    assert resumed.steps == 4
    best = checkpoint(tmp_path, "best-epoch=0.ckpt")["state_dict"]["network.head.weight"]
    assert torch.equal(resumed.head.weight, best)


@pytest.fixture
def _keep_signals() -> Iterator[None]:
    """Lightning turns Ctrl-C off for what remains of the process."""
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.mark.usefixtures("_keep_signals")
def test_ctrl_c_stops_a_run_and_the_same_command_goes_on(tmp_path: Path) -> None:
    network, loaded = make_line(), loaders()
    network.stop_at, network.stop_with = 5, KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        fit(network, *loaded, CONFIG, tmp_path)
    assert not (tmp_path / "fit.json").exists()
    resumed = make_line()
    fit(resumed, *loaded, CONFIG, tmp_path)
    assert resumed.steps == 12


@pytest.mark.parametrize("max_steps", [2, 4, 6])
def test_a_run_stops_after_the_given_steps_with_weights_to_load(tmp_path: Path, max_steps: int) -> None:
    network = make_line()
    start = network.head.weight.clone()
    config = CONFIG.model_copy(update={"max_steps": max_steps})
    fit(network, *loaders(), config, tmp_path)
    assert network.steps == max_steps
    assert not torch.equal(network.head.weight, start)


def test_training_batches_are_augmented_and_validation_is_not(tmp_path: Path) -> None:
    seen: list[int] = []

    def augment(batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        seen.append(len(batch[0]))
        return (batch[0] * 0,)

    network = make_line()
    before = network.head.weight.clone()
    fit(network, *loaders(), CONFIG, tmp_path, augment=augment)
    assert seen == [16] * 16
    assert torch.equal(network.head.weight, before)  # zeros teach the bias alone


def learnable() -> list[Tensor]:
    return [torch.eye(4).repeat(4, 1)[:, :4], torch.arange(4).repeat(4) % 3]


def test_a_network_that_learns_a_batch_by_heart_passes_and_is_not_changed() -> None:
    network = make_line()
    before = network.head.weight.clone()
    config = CONFIG.model_copy(update={"overfit_steps": 150, "learning_rate": 0.1})
    check_overfits(network, [tuple(learnable())], config)
    assert torch.equal(network.head.weight, before)


class Detached(Line):
    """A network whose graph was cut: only its bias can learn."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits, features = super().forward(x)
        return (logits - self.head.bias).detach() + self.head.bias, features


def test_a_network_whose_loss_cannot_fall_is_refused_before_training(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, config = Detached(), CONFIG.model_copy(update={"overfit_steps": 60, "learning_rate": 0.1})
    with pytest.raises(FitError, match=r"cannot learn 1 batches by heart: its loss went from .* in 60 steps"):
        check_overfits(network, [tuple(learnable())], config)
    with pytest.raises(FitError, match="by heart"):
        fit(network, *loaders(), config, tmp_path)
    assert not (tmp_path / "fit.json").exists()
