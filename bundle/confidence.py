"""From logits to calibrated probabilities and what can be said about one answer. Plain numpy."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class RowConfidence(NamedTuple):
    """What is known of one row's answer, in plain Python numbers, as it is rendered.

    Attributes:
        logits: (labels,) as the graph gave them.
        probabilities: (labels,) softmax of the logits over the temperature.
        order: (labels,) labels from most to least probable.
    """

    logits: list[float]
    probabilities: list[float]
    order: list[int]

    @property
    def raw(self) -> list[float]:
        """(labels,) softmax of the logits as they are."""
        largest = max(self.logits)
        exponentials = [math.exp(logit - largest) for logit in self.logits]
        total = math.fsum(exponentials)
        return [value / total for value in exponentials]

    @property
    def raw_confidence(self) -> float:
        """The largest of `raw`, at a third of its price."""
        largest = max(self.logits)
        return 1.0 / sum([math.exp(logit - largest) for logit in self.logits])

    @property
    def margin(self) -> float:
        """Difference of the two largest probabilities."""
        return self.probabilities[self.order[0]] - self.probabilities[self.order[1]]

    @property
    def entropy_bits(self) -> float:
        """Shannon entropy of the probabilities, 0..log2(labels)."""
        log2 = math.log2
        return abs(sum([p * log2(p) for p in self.probabilities if p > 0]))


def softmax(logits: NDArray[np.floating], temperature: float = 1.0) -> NDArray[np.float64]:
    """Return the softmax of the logits over the temperature, along the last axis, in float64.

    The temperature is that of Guo et al. 2017, eq. 9. The largest logit is subtracted first, so that
    no exponential overflows.
    """
    values = np.asarray(logits, dtype=np.float64) / temperature
    values -= np.maximum.reduce(values, axis=-1, keepdims=True)
    np.exp(values, out=values)
    values /= np.add.reduce(values, axis=-1, keepdims=True)
    return values


def assess(
    logits: NDArray[np.floating], temperature: float, probabilities: NDArray[np.float64] | None = None
) -> list[RowConfidence]:
    """Compute what can be said about each row from its logits alone.

    What every answer needs is computed for all rows at once; the rest, when a caller asks for it.

    Args:
        logits: (n, labels), at least two labels.
        temperature: of the graph that gave the logits.
        probabilities: the softmax of the logits over the temperature, where that was made already.
    """
    if probabilities is None:
        probabilities = softmax(logits, temperature)
    wide = np.asarray(logits, dtype=np.float64)
    # Stable on the negated logits: equal logits keep the order of the labels, as argmax does.
    order = (-wide).argsort(axis=-1, kind="stable")
    return list(map(RowConfidence, wide.tolist(), probabilities.tolist(), order.tolist()))
