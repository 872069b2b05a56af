"""Which parts of an image an answer rests on: cover one after the other, and see how far it gives way."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

from bundle.confidence import softmax
from bundle.manifest import Manifest
from bundle.media import ImageDecoding
from bundle.predictor import Predictor
from training.report.answers import Floats


def occlude(predictor: Predictor, image: NDArray[np.uint8]) -> Floats:
    """Return how far the probability of the answer falls where a part of the image is covered.

    The patch is a quarter of the image's side (7 of 28 pixels) and moves by less than half of its own (3).

    Args:
        image: (height, width) or (height, width, channels) uint8.

    Returns:
        (height, width): the mean fall over all patches that cover each pixel; below 0 where it rises.
    """
    height, width = image.shape[:2]
    background = background_of(predictor.bundle.manifest)
    patch = (max(1, height // 4), max(1, width // 4))
    corners = list(product(_starts(height, patch[0]), _starts(width, patch[1])))
    covered = []
    for top, left in corners:
        copy = image.copy()
        copy[top : top + patch[0], left : left + patch[1]] = background
        covered.append(copy)
    logits = predictor.run_all(predictor.rows([image, *covered])).logits
    probabilities = softmax(logits, predictor.temperature)
    answer = int(logits[0].argmax())
    falls = probabilities[0, answer] - probabilities[1:, answer]
    total, count = np.zeros((height, width)), np.zeros((height, width))
    for (top, left), fall in zip(corners, falls, strict=True):
        total[top : top + patch[0], left : left + patch[1]] += fall
        count[top : top + patch[0], left : left + patch[1]] += 1
    return total / np.maximum(count, 1)


def background_of(manifest: Manifest) -> int:
    """Return the grey level that stands for nothing, 0..255."""
    decoding = manifest.decoding
    return decoding.background if isinstance(decoding, ImageDecoding) else 0


def _starts(size: int, patch: int) -> list[int]:
    """Where patches begin, so that the last one ends with the image."""
    steps = list(range(0, size - patch + 1, max(1, patch * 3 // 7)))
    return steps if steps[-1] == size - patch else [*steps, size - patch]
