"""Spoken digits: an LSTM over log-mel frames on the Free Spoken Digit Dataset, published as dynamic int8."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from bundle.datatypes import Array
from bundle.manifest import TensorSpec
from training.assemble import Facts, Graphs, assemble, take_graphs
from training.card import CardFacts
from training.config import FitConfig, GateConfig, Places, RecipeConfig
from training.data import fsdd
from training.data.augment import vary_speaker, vary_speech
from training.data.review import with_reviewed
from training.data.splits import Examples, Splits
from training.export import check_parity, export_onnx
from training.fit import Batch, fit
from training.networks.speech_lstm import AnchoredSpeechLstm, ExportableSpeechLstm, SpeechLstm
from training.quantize import quantize_lstm
from training.report.gallery import GALLERY_FILE
from training.synthetic import sing_vowels

logger = logging.getLogger(__name__)

# Batch sizes and lengths in samples, down to a single one: shorter than a window, and longer than
# anything in the data set.
PARITY_LENGTHS = ((1,), (300,), (8_000,), (4_000, 2_500), (24_000, 1, 799, 800, 801))

# More rows gain nothing: measured per row, a batch of 16 takes longer than one of 8.
MAX_BATCH_SIZE = 8


class SpokenDigitsLstmConfig(RecipeConfig):
    """Configuration of the spoken-digit LSTM."""

    name: str = "spoken-digits-lstm"
    fit: FitConfig = FitConfig(
        max_epochs=60, batch_size=32, learning_rate=2e-3, patience=20, overfit_steps=80
    )
    gates: GateConfig = GateConfig(min_agreement=0.99)
    hidden: int = 256
    """Units of the LSTM."""
    # Left out where it is the default, so that what was published before it was there keeps its digest.
    augmentation: Literal["light", "strong"] = Field("light", exclude_if=lambda value: value == "light")
    """How much training recordings are varied; "strong" as by other speakers, microphones and rooms."""


def train(
    config: SpokenDigitsLstmConfig,
    places: Places,
    weights_from: Path | None = None,
    review: Path | None = None,
) -> Path:
    """Train on the Free Spoken Digit Dataset and publish; return the bundle's directory.

    Args:
        weights_from: a published bundle of the same configuration, whose graphs are taken, not made anew.
            Everything after the quantization is done anew.
        review: labelled items of a review queue, which are trained on too.
    """
    splits = fsdd.load_fsdd(places.data_dir)
    if review is not None:
        config, splits = with_reviewed(config, splits, review, facts(config).inputs, fsdd.LABELS)
    return build(config, places, splits, weights_from)


def build(
    config: SpokenDigitsLstmConfig, places: Places, splits: Splits, weights_from: Path | None = None
) -> Path:
    """Fit, export, quantize, evaluate and publish on given splits of (time,) float32 items at 8 kHz."""
    L.seed_everything(config.seed)
    taken = None if weights_from is None else take_graphs(weights_from, config)
    graphs = taken or _make_graphs(config, places, splits)
    return assemble(
        config,
        facts(config),
        graphs,
        splits,
        golden_inputs(),
        places.models_dir,
        gallery=places.run_dir(config) / GALLERY_FILE,
    )


def _make_graphs(config: SpokenDigitsLstmConfig, places: Places, splits: Splits) -> Graphs:
    """Fit, export and quantize."""
    network = SpeechLstm(classes=len(fsdd.LABELS), hidden=config.hidden)
    train_items = Utterances(splits.train)
    network.front_end.fit_range(*pad(list(train_items))[:2])
    weights_commit = fit(
        network,
        DataLoader(train_items, config.fit.batch_size, shuffle=True, drop_last=True, collate_fn=pad),
        DataLoader(Utterances(splits.validation), 100, collate_fn=pad),
        config.fit,
        places.run_dir(config),
        augment=_AUGMENTATIONS[config.augmentation],
    )
    inputs = {"samples": ("batch", "time"), "lengths": ("batch",)}
    example = pad([train_items[0], train_items[1]])[:2]
    fp32 = export_onnx(ExportableSpeechLstm(network), example, inputs)
    anchored = export_onnx(AnchoredSpeechLstm(network), example, inputs)
    for model in (fp32, anchored):
        error = check_parity(network, model, parity_batches(), config.gates.max_parity_error)
        logger.info("parity with PyTorch: %.2g", error)
    int8, quantization = quantize_lstm(anchored)
    return Graphs(fp32, int8, quantization, weights_commit)


def facts(config: SpokenDigitsLstmConfig) -> Facts:
    """Return what is known of the model beforehand."""
    return Facts(
        description="Spoken English digits 0-9, one a recording, 8 kHz: an LSTM over log-mel frames.",
        inputs=(
            TensorSpec(name="samples", datatype="FP32", shape=("batch", "time"), allowed_range=(-1, 1)),
            TensorSpec(name="lengths", datatype="INT64", shape=("batch",), lengths_of="samples"),
        ),
        features=config.hidden,
        decoding=fsdd.DECODING,
        labels=fsdd.LABELS,
        max_batch_size=MAX_BATCH_SIZE,
        data_sha256=fsdd.data_sha256(),
        default_target_risk=0.02,
        card=CardFacts(
            title="Spoken digits: LSTM over log-mel frames, int8",
            summary="Tells which English digit 0-9 is spoken in a short recording of one digit.",
            data="Free Spoken Digit Dataset: 3,000 recordings of 6 speakers, split by take: takes 22-49 for "
            "training, 5-9 for validation, 10-13 for the temperature, 14-21 kept for conformal scores, and "
            "the official takes 0-4 for the test.",
            licence=fsdd.LICENCE,
            attribution=fsdd.ATTRIBUTION,
            limits=(
                "Every split holds the same six speakers. Models of this recipe that were trained without "
                "one of them (in short runs, 12 epochs) are right on 66 % of that speaker's recordings, 35 "
                "to 89 %; their sets at alpha .05 hold the right label in 57 %, and of what they accept at "
                "a target risk of 2 % they get 22 % wrong (docs/held-out-speakers.md).",
                "One digit a recording, trimmed close to the word, little noise.",
                "Anything that is no digit is called a digit all the same.",
                "The log-mel front end is fp32 in both graphs; only the LSTM is int8.",
            ),
        ),
    )


def golden_inputs() -> dict[str, Array]:
    """Sing eight sounds of differing lengths, padded with zeros."""
    sounds = [sing_vowels(seed=i, seconds=0.25 + 0.09 * i) for i in range(8)]
    samples = np.zeros((len(sounds), max(len(sound) for sound in sounds)), dtype=np.float32)
    for row, sound in zip(samples, sounds, strict=True):
        row[: len(sound)] = sound
    return {"samples": samples, "lengths": np.array([len(sound) for sound in sounds], dtype=np.int64)}


def parity_batches() -> Iterator[tuple[Tensor, Tensor]]:
    """Yield random sounds of every batch size and length in `PARITY_LENGTHS`."""
    generator = torch.Generator().manual_seed(0)
    for lengths in PARITY_LENGTHS:
        samples = torch.rand(len(lengths), max(lengths), generator=generator) - 0.5
        yield samples, torch.tensor(lengths)


def pad(pairs: list[tuple[Array, Any]]) -> tuple[Tensor, Tensor, Tensor]:
    """Collate (sound, label) pairs to samples (n, longest), lengths (n,) and labels (n,)."""
    sounds = [torch.from_numpy(sound) for sound, _ in pairs]
    lengths = torch.tensor([len(sound) for sound in sounds])
    return pad_sequence(sounds, batch_first=True), lengths, torch.tensor([int(label) for _, label in pairs])


class Utterances(Dataset[tuple[Array, Any]]):
    """(sound, label) pairs for a data loader."""

    def __init__(self, examples: Examples) -> None:
        self._pairs = list(zip(examples.items, examples.labels, strict=True))

    def __len__(self) -> int:
        return len(self._pairs)

    def __iter__(self) -> Iterator[tuple[Array, Any]]:
        return iter(self._pairs)

    def __getitem__(self, index: int) -> tuple[Array, Any]:
        return self._pairs[index]


def _vary_lightly(batch: Batch) -> Batch:
    return vary_speech(*batch)


def _vary_strongly(batch: Batch) -> Batch:
    return vary_speaker(*batch)


_AUGMENTATIONS = {"light": _vary_lightly, "strong": _vary_strongly}
