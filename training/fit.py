"""Fit a network with Lightning: progress bar, early stopping, checkpoints that a later run resumes from."""

from __future__ import annotations

import copy
import itertools
import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader

from training.config import FitConfig
from training.errors import FitError
from training.provenance import git_commit

# A batch is the network's inputs followed by the labels, e.g. (samples, lengths, labels).
Batch = tuple[Tensor, ...]

OVERFIT_BATCHES = 3


class Classifier(L.LightningModule):
    """Train a network that maps its inputs to (logits, features) by cross entropy.

    Args:
        augment: maps a training batch's inputs to new ones.
    """

    def __init__(
        self, network: nn.Module, augment: Callable[[Batch], Batch] | None, config: FitConfig
    ) -> None:
        super().__init__()
        self.network, self.augment, self.config = network, augment, config

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Return the loss of one augmented batch."""
        *inputs, labels = batch
        if self.augment is not None:
            inputs = list(self.augment(tuple(inputs)))
        loss = F.cross_entropy(self.network(*inputs)[0], labels)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, _: int) -> None:
        """Log loss and accuracy of one batch."""
        *inputs, labels = batch
        logits = self.network(*inputs)[0]
        n = len(labels)
        self.log("validation_loss", F.cross_entropy(logits, labels), prog_bar=True, batch_size=n)
        self.log(
            "validation_accuracy", (logits.argmax(1) == labels).float().mean(), prog_bar=True, batch_size=n
        )

    def configure_optimizers(self) -> Any:
        """AdamW under one cosine cycle over the planned number of steps."""
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=self.config.learning_rate, weight_decay=self.config.weight_decay
        )
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=self.config.learning_rate,
            total_steps=int(self.trainer.estimated_stepping_batches),
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def fit(
    network: nn.Module,
    train: DataLoader[Any],
    validation: DataLoader[Any],
    config: FitConfig,
    run_dir: Path,
    augment: Callable[[Batch], Batch] | None = None,
) -> str:
    """Train a network in place and leave it with the weights of its best epoch, in evaluation mode.

    A run that was interrupted goes on from its last checkpoint; one that was finished is only loaded,
    even if the code has changed since. Logs and checkpoints are written below `run_dir`.

    Returns:
        The commit of the code that finished the fit.

    Raises:
        FitError: the network cannot learn a few batches by heart.
    """
    finished = run_dir / "fit.json"
    if not finished.exists():
        last = run_dir / "checkpoints" / "last.ckpt"
        if config.overfit_steps and not last.exists():
            check_overfits(network, list(itertools.islice(train, OVERFIT_BATCHES)), config)
        best = _train(network, train, validation, config, run_dir, augment, last)
        partial = finished.with_suffix(".partial")
        result = {"checkpoint": best.name, "git_commit": git_commit()}
        partial.write_text(json.dumps(result), encoding="utf-8")
        partial.replace(finished)
    result = json.loads(finished.read_text(encoding="utf-8"))
    state = torch.load(run_dir / "checkpoints" / result["checkpoint"], map_location="cpu", weights_only=True)[
        "state_dict"
    ]
    weights = {key.removeprefix("network."): value for key, value in state.items()}
    network.load_state_dict(weights)
    network.cpu().eval()
    return str(result["git_commit"])


def _train(
    network: nn.Module,
    train: DataLoader[Any],
    validation: DataLoader[Any],
    config: FitConfig,
    run_dir: Path,
    augment: Callable[[Batch], Batch] | None,
    last: Path,
) -> Path:
    """Run or resume the training loop; return the checkpoint of the best epoch that was validated, if any."""
    keep_best = ModelCheckpoint(
        dirpath=last.parent,
        filename="best-{epoch}",
        monitor="validation_loss",
        save_on_train_epoch_end=False,
        enable_version_counter=False,
    )
    # After every epoch, better or not; Lightning's own `save_last` follows the best one.
    keep_last = ModelCheckpoint(dirpath=last.parent, filename=last.stem, enable_version_counter=False)
    # Checked after validation only: `max_steps` can end an epoch before there was one.
    stop = EarlyStopping("validation_loss", patience=config.patience, check_on_train_epoch_end=False)
    trainer = L.Trainer(
        accelerator="auto",
        devices=1,
        max_epochs=config.max_epochs,
        max_steps=config.max_steps,
        precision=config.precision,
        deterministic=True,
        logger=CSVLogger(run_dir, name="logs"),  # a folder for each time that the run goes on
        default_root_dir=run_dir,
        log_every_n_steps=10,
        callbacks=[stop, keep_best, keep_last],
        enable_model_summary=False,
    )
    try:
        trainer.fit(
            Classifier(network, augment, config),
            train,
            validation,
            ckpt_path=last if last.exists() else None,
            weights_only=False,
        )
    except SystemExit as error:  # what Lightning makes of Ctrl-C
        raise KeyboardInterrupt from error
    return Path(keep_best.best_model_path or keep_last.best_model_path)


def check_overfits(network: nn.Module, batches: Sequence[Batch], config: FitConfig) -> None:
    """Train a copy on a few batches without augmentation; it must come to predict them.

    This catches what no later figure explains: shuffled labels, a detached graph, a dead input.

    Raises:
        FitError: the mean loss has not fallen to a quarter.
    """
    copied = copy.deepcopy(network).train()
    optimizer = torch.optim.AdamW(copied.parameters(), lr=config.learning_rate)
    losses = []
    for *inputs, labels in itertools.islice(itertools.cycle(batches), config.overfit_steps):
        loss = F.cross_entropy(copied(*inputs)[0], labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    first, last = losses[0], statistics.fmean(losses[-len(batches) :])
    if not last < 0.25 * first:
        raise FitError(
            f"the network cannot learn {len(batches)} batches by heart: its loss went from {first:.3f} "
            f"to {last:.3f} in {config.overfit_steps} steps"
        )
