"""Novelty: how unlike its training data an input is, by what the graph made of it. High scores are familiar.

Two scores see different things: the energy, how much the logits say at all (Liu et al. 2020, eq. 4), and the
Mahalanobis distance of the features, brought to unit length, to the nearest class (Lee et al. 2018; the unit
length is what makes it work on small networks of ReLUs). Each becomes a conformal p-value; the two together
are held to the smaller one, doubled for having looked twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np
from numpy.typing import NDArray

from bundle.conformal import Floats

# Of the trace of a covariance, divided by its size: enough that one with fewer directions can be inverted.
_RIDGE = 1e-6


def energy(logits: NDArray[np.floating]) -> Floats:
    """Return the logarithm of the sum of the exponentials of the logits.

    Args:
        logits: (n, labels).

    Returns:
        (n,) float64.
    """
    wide = np.asarray(logits, np.float64)
    largest = wide.max(axis=1)
    return np.asarray(largest + np.log(np.exp(wide - largest[:, np.newaxis]).sum(axis=1)))


@dataclass(frozen=True)
class Classes:
    """Where the classes lie among the features of unit length, in coordinates in which they are round.

    Attributes:
        whitening: (size, size), L with L L' the inverse of the covariance within the classes.
        means: (labels, size), of the classes, times L.
    """

    whitening: NDArray[np.floating]
    means: NDArray[np.floating]

    def familiarity(self, features: NDArray[np.floating]) -> Floats:
        """Return minus the squared Mahalanobis distance to the nearest class.

        Args:
            features: (n, size).

        Returns:
            (n,) float64, at most 0.
        """
        x = _unit(features) @ self.whitening  # (n, size)
        # |x - m|^2 = |x|^2 - 2 x m + |m|^2, without an array of n times labels times size
        squares, twice = self._means
        nearest = (squares - x @ twice).min(axis=1)
        return np.asarray(-np.maximum(np.vecdot(x, x) + nearest, 0.0))

    @cached_property
    def _means(self) -> tuple[Floats, Floats]:
        """The squared lengths of the means, and twice the means, (size, labels)."""
        means = np.asarray(self.means, np.float64)
        return np.vecdot(means, means), np.ascontiguousarray(2 * means.T)


def fit_classes(features: NDArray[np.floating], labels: NDArray[np.integer], count: int) -> Classes:
    """Fit the classes to features that the network was fitted on.

    Args:
        features: (n, size).
        labels: (n,) 0 <= label < count; every label stands there.
    """
    x = _unit(features)
    means = np.stack([x[labels == label].mean(axis=0) for label in range(count)])
    within = x - means[labels]
    covariance = within.T @ within / len(x)
    size = len(covariance)
    covariance += np.eye(size) * _RIDGE * max(float(np.trace(covariance)) / size, np.finfo(np.float64).tiny)
    whitening = np.linalg.cholesky(np.linalg.inv(covariance))
    return Classes(whitening, means @ whitening)


def novelty_p_values(
    familiar: tuple[NDArray[np.floating], ...], found: tuple[NDArray[np.floating], ...]
) -> tuple[Floats, list[Floats]]:
    """Return how often inputs like the held-out ones look at most as familiar as those found.

    Args:
        familiar: for each kind of score, (n,) of the held-out inputs, sorted.
        found: for each kind, (m,).

    Returns:
        (m,) p-values of all kinds together, min(1, kinds * smallest), and those of each kind.
    """
    each = [
        np.asarray((1.0 + np.searchsorted(scores, values, side="right")) / (len(scores) + 1.0), np.float64)
        for scores, values in zip(familiar, found, strict=True)
    ]
    return np.minimum(1.0, len(each) * reduce(np.minimum, each)), each


def _unit(features: NDArray[np.floating]) -> Floats:
    wide = np.asarray(features, np.float64)
    lengths = np.sqrt(np.vecdot(wide, wide))[:, np.newaxis]
    return np.asarray(wide / np.maximum(lengths, np.finfo(np.float64).tiny))
