"""Novelty: how unlike its training data an input is, by what the graph made of it. High scores are familiar.

Two scores see different things: the energy, how much the logits say at all (Liu et al. 2020, eq. 4), and the
Mahalanobis distance of the features, brought to unit length, to the nearest class (Lee et al. 2018; the unit
length is what makes it work on small networks of ReLUs). Each becomes a conformal p-value; the two together
are held to the smaller one, doubled for having looked twice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bundle.conformal import Floats, p_values

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
        x = _unit(features) @ np.asarray(self.whitening, np.float64)  # (n, size)
        means = np.asarray(self.means, np.float64)
        # |x - m|^2 = |x|^2 - 2 x m + |m|^2, without an array of n times labels times size
        squares = (x**2).sum(axis=1)[:, np.newaxis] - 2 * x @ means.T + (means**2).sum(axis=1)
        return np.asarray(-np.maximum(squares.min(axis=1), 0.0))


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
    each = [p_values(-scores[::-1], -values) for scores, values in zip(familiar, found, strict=True)]
    return np.minimum(1.0, len(each) * np.min(each, axis=0)), each


def _unit(features: NDArray[np.floating]) -> Floats:
    wide = np.asarray(features, np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    return np.asarray(wide / np.maximum(lengths, np.finfo(np.float64).tiny))
