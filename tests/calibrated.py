"""A tiny image bundle with all the evidence that a training job gathers, by the code of the job itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bundle.manifest import Quantization, TensorSpec
from bundle.media import ImageDecoding
from tests import tiny
from training.assemble import Facts, Graphs, assemble
from training.card import CardFacts
from training.config import FitConfig, GateConfig, RecipeConfig
from training.data.splits import Examples, Splits

NAME = "calibrated"
_SIZE = 800


def examples(part: int, n: int = _SIZE) -> Examples:
    """Grey squares whose labels are drawn from the softmax of the oracle's logits: it is right as it says."""
    random = np.random.default_rng(100 + part)
    pixels = random.integers(0, 256, (n, 4, 4), dtype=np.uint8)
    logits = tiny.image_logits(pixels)
    labels = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)
    return Examples(np.arange(n) + part * 100_000, list(pixels), labels.astype(np.int64))


def splits() -> Splits:
    return Splits(*(examples(part) for part in range(5)))


def make_calibrated_bundle(repository: Path) -> Path:
    config = RecipeConfig(
        name=NAME,
        fit=FitConfig(max_epochs=1, batch_size=1, learning_rate=1),
        gates=GateConfig(max_latency_ratio=1e6, max_accuracy_loss=1, min_agreement=0),
    )
    facts = Facts(
        description="A tiny model with evidence.",
        inputs=(TensorSpec(name="pixels", datatype="UINT8", shape=("batch", 4, 4), allowed_range=(0, 255)),),
        features=16,
        decoding=ImageDecoding(height=4, width=4, channels=1, background=0),
        labels=tiny.LABELS,
        max_batch_size=8,
        data_sha256="d" * 64,
        default_target_risk=0.1,
        card=CardFacts("Calibrated", "Summary.", "Data.", "CC0", "Somebody", ("A limit.",)),
    )
    quantization = Quantization(method="static_qdq", per_channel=True, excluded_nodes=())
    graphs = Graphs(tiny.image_graph(), tiny.image_graph(0.001), quantization, weights_commit="abc")
    return assemble(config, facts, graphs, splits(), {"pixels": tiny.golden_pixels()}, repository)
