"""What the committed models reach on the official test sets, through the predictor that serves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bundle.manifest import Precision
from bundle.predictor import load_predictor
from tests.committed import MNIST_CNN, SPOKEN_DIGITS_LSTM
from training.data.splits import Examples

pytestmark = pytest.mark.realdata


def labels_of(model: Path, precision: Precision, examples: Examples) -> np.ndarray:
    predictor = load_predictor(model, precision=precision)
    assert predictor.precision == precision
    return predictor.run_all(predictor.rows(examples.items)).logits.argmax(axis=1)


def check(model: Path, examples: Examples, min_accuracy: float, min_agreement: float) -> None:
    int8, fp32 = labels_of(model, "int8", examples), labels_of(model, "fp32", examples)
    assert (int8 == examples.labels).mean() >= min_accuracy
    assert (int8 == fp32).mean() >= min_agreement
    measured = load_predictor(model).bundle.manifest.graphs["int8"].metrics
    assert measured is not None
    # The published figures are those of the machine that published; kernels differ a little elsewhere.
    assert abs((int8 == examples.labels).mean() - measured.accuracy) <= 0.002
    assert measured.n == len(examples)


def test_mnist_cnn_reaches_its_figures(mnist_test: Examples) -> None:
    assert len(mnist_test) == 10_000
    check(MNIST_CNN, mnist_test, min_accuracy=0.995, min_agreement=0.999)


def test_spoken_digits_lstm_reaches_its_figures(fsdd_test: Examples) -> None:
    assert len(fsdd_test) == 300
    check(SPOKEN_DIGITS_LSTM, fsdd_test, min_accuracy=0.97, min_agreement=0.99)
