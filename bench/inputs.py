"""What is asked about: digits that the project draws and sounds that it sings, no items of a data set."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.synthetic import draw_digit, sing_vowels

# The length of most recordings of a spoken digit.
SOUND_S = 0.44


def digits(n: int = 16) -> NDArray[np.uint8]:
    """Draw (n, 28, 28) uint8 digits."""
    return np.stack([draw_digit(i % 10, seed=i) for i in range(n)])


def sounds(n: int = 16, seconds: float = SOUND_S) -> NDArray[np.float32]:
    """Sing (n, time) float32 sounds at 8 kHz."""
    return np.stack([sing_vowels(seed=i, seconds=seconds) for i in range(n)])
