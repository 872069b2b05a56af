"""From logits to calibrated probabilities and what can be said about one answer. Plain numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Confidence:
    """What is known of each row's answer.

    Attributes:
        probabilities: (n, labels) float64, softmax of the logits over the temperature.
        raw: (n, labels) float64, softmax of the logits as they are.
        order: (n, labels) int64, labels from most to least probable.
        margin: (n,) difference of the two largest probabilities.
        entropy_bits: (n,) Shannon entropy of the probabilities, 0..log2(labels).
    """

    probabilities: NDArray[np.float64]
    raw: NDArray[np.float64]
    order: NDArray[np.int64]
    margin: NDArray[np.float64]
    entropy_bits: NDArray[np.float64]


def softmax(logits: NDArray[np.floating], temperature: float = 1.0) -> NDArray[np.float64]:
    """Return the softmax of the logits over the temperature, along the last axis, in float64.

    The temperature is that of Guo et al. 2017, eq. 9. The largest logit is subtracted first, so that
    no exponential overflows.
    """
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    exponentials = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True))


def assess(logits: NDArray[np.floating], temperature: float) -> Confidence:
    """Compute what can be said about each row from its logits alone.

    Args:
        logits: (n, labels), at least two labels.
        temperature: of the graph that gave the logits.
    """
    probabilities = softmax(logits, temperature)
    # Stable on the negated logits: equal logits keep the order of the labels, as argmax does.
    order = np.argsort(-np.asarray(logits, dtype=np.float64), axis=-1, kind="stable")
    largest = np.take_along_axis(probabilities, order[:, :2], axis=-1)
    logarithms = np.log2(probabilities, out=np.zeros_like(probabilities), where=probabilities > 0)
    return Confidence(
        probabilities=probabilities,
        raw=softmax(logits),
        order=order,
        margin=largest[:, 0] - largest[:, 1],
        entropy_bits=np.abs((probabilities * logarithms).sum(axis=-1)),
    )
