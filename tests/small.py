"""Small untrained networks, their graphs, and synthetic splits, for the tests that need PyTorch.

Everything is made once a process and must not be changed; who changes a network makes its own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import onnx
import torch

from bundle.manifest import Quantization
from training.config import FitConfig, GateConfig
from training.data.splits import Examples, Splits
from training.export import export_onnx
from training.networks.residual_cnn import ResidualCnn
from training.networks.speech_lstm import ExportableSpeechLstm, SpeechLstm
from training.quantize import quantize_convolutions, quantize_lstm
from training.synthetic import draw_digit, sing_vowels

torch.set_num_threads(1)  # more only hinder each other on networks this small

SIZES = {"train": 40, "validation": 20, "temperature": 15, "conformal": 10, "test": 20}
WIDTHS = (4, 8, 16)
HIDDEN = 16
FIT = FitConfig(max_epochs=1, batch_size=8, learning_rate=1e-3, max_steps=2, overfit_steps=0)
# Untrained graphs on a busy machine: what is tested is the way, not the figures.
OPEN_GATES = GateConfig(max_latency_ratio=1e6, max_accuracy_loss=1, min_agreement=0)
CNN_INPUTS = {"pixels": ("batch", 28, 28)}
LSTM_INPUTS = {"samples": ("batch", "time"), "lengths": ("batch",)}


@cache
def digit_splits() -> Splits:
    """Drawn digits: (28, 28) uint8."""
    return _splits(lambda label, i: draw_digit(label, seed=i))


@cache
def vowel_splits() -> Splits:
    """Sung vowels of 0.1 to 0.3 s at 8 kHz, labelled at random: (time,) float32."""
    return _splits(lambda label, i: sing_vowels(seed=i, seconds=0.1 + 0.02 * (i % 11)))


def _splits(make: Callable[[int, int], Any]) -> Splits:
    parts: dict[str, Examples] = {}
    start = 0
    for name, size in SIZES.items():
        ids = np.arange(start, start + size)
        items = [make(int(i) % 10, int(i)) for i in ids]
        parts[name] = Examples(ids=ids, items=items, labels=ids % 10)
        start += size
    return Splits(**parts)


def pixels(n: int, seed: int = 0) -> torch.Tensor:
    """(n, 28, 28) uint8 noise."""
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (n, 28, 28), dtype=np.uint8))


def sounds(*lengths: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise of the given lengths, padded with zeros: (n, longest) float32 and (n,) int64."""
    generator = torch.Generator().manual_seed(seed)
    samples = torch.rand(len(lengths), max(lengths), generator=generator) - 0.5
    real = torch.arange(max(lengths))[None, :] < torch.tensor(lengths)[:, None]
    return samples * real, torch.tensor(lengths)


def make_cnn(seed: int = 0) -> ResidualCnn:
    """A CNN whose batch statistics are those of drawn digits, so that its logits are of a usual size."""
    torch.manual_seed(seed)
    network = ResidualCnn(widths=WIDTHS)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.from_numpy(np.stack(digit_splits().train.items)))
    return network.eval()


def make_lstm(seed: int = 0) -> SpeechLstm:
    """An LSTM whose front end has the range of sung vowels."""
    torch.manual_seed(seed)
    network = SpeechLstm(hidden=HIDDEN)
    items = vowel_splits().train.items
    samples = torch.zeros(len(items), max(len(item) for item in items))
    for row, item in zip(samples, items, strict=True):
        row[: len(item)] = torch.tensor(item)
    network.front_end.fit_range(samples, torch.tensor([len(item) for item in items]))
    return network.eval()


@cache
def cnn() -> tuple[ResidualCnn, onnx.ModelProto]:
    """A CNN and its fp32 graph."""
    network = make_cnn()
    return network, export_onnx(network, (pixels(2),), CNN_INPUTS)


@cache
def lstm() -> tuple[SpeechLstm, onnx.ModelProto]:
    """An LSTM and its fp32 graph."""
    network = make_lstm()
    return network, export_onnx(ExportableSpeechLstm(network), sounds(2000, 1500), LSTM_INPUTS)


@cache
def cnn_int8() -> tuple[onnx.ModelProto, Quantization]:
    """The CNN, quantized over drawn digits."""
    items = np.stack(digit_splits().train.items)
    return quantize_convolutions(cnn()[1], ({"pixels": items[i : i + 10]} for i in range(0, 40, 10)))


@cache
def lstm_int8() -> tuple[onnx.ModelProto, Quantization]:
    """The LSTM, quantized."""
    return quantize_lstm(lstm()[1])
