"""Handwritten digits: a residual CNN on MNIST, published as static int8."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import lightning as L
import numpy as np
import onnx
import torch
from torch.utils.data import DataLoader, TensorDataset

from bundle.datatypes import Array
from bundle.manifest import TensorSpec
from bundle.media import ImageDecoding
from training.assemble import Facts, Graphs, assemble
from training.card import CardFacts
from training.config import FitConfig, GateConfig, Places, RecipeConfig
from training.data import mnist
from training.data.augment import move_images
from training.data.notmnist import find_notmnist
from training.data.review import with_reviewed
from training.data.splits import Examples, Splits
from training.export import check_parity, export_onnx, take_network
from training.fit import Batch, fit
from training.networks.residual_cnn import ResidualCnn
from training.quantize import quantize_convolutions
from training.report.gallery import GALLERY_FILE
from training.synthetic import draw_digit

logger = logging.getLogger(__name__)

PARITY_BATCHES = (1, 2, 7, 32)
QUANTIZATION_ITEMS = 1024


class MnistCnnConfig(RecipeConfig):
    """Configuration of the handwritten-digit CNN."""

    name: str = "mnist-cnn"
    fit: FitConfig = FitConfig(max_epochs=30, batch_size=128, learning_rate=4e-3, precision="bf16-mixed")
    gates: GateConfig = GateConfig(min_agreement=0.999)
    widths: tuple[int, int, int] = (32, 64, 128)
    """Channels of the three stages."""
    max_batch_size: int = 8
    """Most rows that are run together."""


def train(
    config: MnistCnnConfig, places: Places, weights_from: Path | None = None, review: Path | None = None
) -> Path:
    """Train on MNIST and publish; return the bundle's directory.

    Args:
        weights_from: a published bundle of the same configuration, whose network is taken instead of a new
            one. Everything after the training is done anew.
        review: labelled items of a review queue, which are trained on too.
    """
    splits = mnist.load_mnist(places.data_dir)
    if review is not None:
        config, splits = with_reviewed(config, splits, review, facts(config).inputs, mnist.LABELS)
    return build(config, places, splits, weights_from)


def build(config: MnistCnnConfig, places: Places, splits: Splits, weights_from: Path | None = None) -> Path:
    """Fit, export, quantize, evaluate and publish on given splits of (28, 28) uint8 items."""
    L.seed_everything(config.seed)
    if weights_from is None:
        fp32, weights_commit = _fit_and_export(config, places, splits)
    else:
        fp32, weights_commit = take_network(weights_from, config)
    int8, quantization = quantize_convolutions(fp32, _quantization_batches(splits.train))
    graphs = Graphs(fp32, int8, quantization, weights_commit)
    return assemble(
        config,
        facts(config),
        graphs,
        splits,
        golden_inputs(),
        places.models_dir,
        strangers=find_notmnist(places.data_dir),
        gallery=places.run_dir(config) / GALLERY_FILE,
    )


def _fit_and_export(config: MnistCnnConfig, places: Places, splits: Splits) -> tuple[onnx.ModelProto, str]:
    """Return the fp32 graph and the commit that its weights were fitted at."""
    network = ResidualCnn(classes=len(mnist.LABELS), widths=config.widths)
    weights_commit = fit(
        network,
        DataLoader(_dataset(splits.train), config.fit.batch_size, shuffle=True, drop_last=True),
        DataLoader(_dataset(splits.validation), 500),
        config.fit,
        places.run_dir(config),
        augment=_augment,
    )
    inputs = {"pixels": ("batch", 28, 28)}
    fp32 = export_onnx(network, (_pixels(splits.train, 2),), inputs)
    batches = ((_pixels(splits.validation, n),) for n in PARITY_BATCHES)
    logger.info(
        "parity with PyTorch: %.2g", check_parity(network, fp32, batches, config.gates.max_parity_error)
    )
    return fp32, weights_commit


def facts(config: MnistCnnConfig) -> Facts:
    """Return what is known of the model beforehand."""
    return Facts(
        description="Handwritten digits 0-9, white on black, 28 x 28 grey pixels: a residual CNN.",
        inputs=(
            TensorSpec(name="pixels", datatype="UINT8", shape=("batch", 28, 28), allowed_range=(0, 255)),
        ),
        features=config.widths[-1],
        decoding=ImageDecoding(height=28, width=28, channels=1, background=0),
        labels=mnist.LABELS,
        max_batch_size=config.max_batch_size,
        data_sha256=mnist.data_sha256(),
        default_target_risk=0.005,
        card=CardFacts(
            title="Handwritten digits: residual CNN, int8",
            summary="Tells which digit 0-9 a small grey image of one handwritten digit shows.",
            data="MNIST: 60,000 training images, cut into 50,000 for training, 2,000 for validation, 3,000 "
            "for the temperature and 5,000 that are kept for conformal scores; and the official 10,000 "
            "test images. The number of epochs was raised from 20 to 30 after the test accuracy of the "
            "20-epoch run had been seen; it is .9962 for both.",
            licence=mnist.LICENCE,
            attribution=mnist.ATTRIBUTION,
            limits=(
                "One digit an image, light strokes on a dark ground, centred and filling most of the frame. "
                "Dark ink on light paper must be sent with `?invert=true`; polarity is never guessed.",
                "Photos of paper: crop to the digit, and light the paper evenly and nearly white. On grey or "
                "shaded paper the model is often wrong, and sure of it.",
                "The writers are US census employees and students of the 1990s.",
                "Anything that is no digit is called a digit all the same.",
            ),
        ),
    )


def golden_inputs() -> dict[str, Array]:
    """Draw each digit twice."""
    return {"pixels": np.stack([draw_digit(i % 10, seed=i) for i in range(20)])}


def _dataset(examples: Examples) -> TensorDataset:
    return TensorDataset(_pixels(examples, len(examples)), torch.from_numpy(examples.labels))


def _pixels(examples: Examples, n: int) -> torch.Tensor:
    return torch.from_numpy(np.stack(examples.items[:n]))


def _augment(batch: Batch) -> Batch:
    return (move_images(batch[0]),)


def _quantization_batches(examples: Examples, size: int = 64) -> Iterator[dict[str, Array]]:
    items = examples.items[:QUANTIZATION_ITEMS]
    for start in range(0, len(items), size):
        yield {"pixels": np.stack(items[start : start + size])}
