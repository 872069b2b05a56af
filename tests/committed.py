"""The bundles that belong to the project; a person who trains more has them beside these."""

from __future__ import annotations

from pathlib import Path

MODELS = Path(__file__).parents[1] / "models"
VERSION = "4"
NEXT_VERSION = str(int(VERSION) + 1)
MNIST_CNN = MODELS / "mnist-cnn" / VERSION
SPOKEN_DIGITS_LSTM = MODELS / "spoken-digits-lstm" / VERSION
