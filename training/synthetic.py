"""Inputs made by the project: golden examples, quick tests and the files in `examples/`.

Drawn digits and synthetic voices, from seeds, so that nothing of a data set is ever copied.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont


def draw_digit(digit: int, *, seed: int, size: int = 28) -> NDArray[np.uint8]:
    """Draw a digit in light strokes on black, a little turned, moved and blurred.

    Args:
        digit: 0..9.
        seed: of the changes; equal arguments give equal pixels.
        size: height and width of the result.

    Returns:
        (size, size) uint8, 0 for the background and up to 255 for ink.
    """
    random = np.random.default_rng(seed)
    scale = 8  # drawn large and shrunk, so that edges are soft
    big = Image.new("L", (size * scale, size * scale), 0)
    font = ImageFont.load_default(size * scale * random.uniform(0.70, 0.80))
    centre = size * scale / 2 + random.uniform(-1, 1, size=2) * scale
    ImageDraw.Draw(big).text(
        tuple(centre),
        str(digit),
        fill=255,
        font=font,
        anchor="mm",
        stroke_width=int(scale * 0.5),
        stroke_fill=255,
    )
    big = big.rotate(random.uniform(-8, 8), Image.Resampling.BICUBIC)
    small = big.filter(ImageFilter.GaussianBlur(scale * 0.4)).resize((size, size), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.uint8)


def sing_vowels(*, seed: int, seconds: float, sample_rate_hz: int = 8_000) -> NDArray[np.float32]:
    """Synthesize a voice that glides between two vowels: harmonics of a pitch, shaped by formants.

    Args:
        seed: of pitch and vowels; equal arguments give equal samples.
        seconds: length of the sound.

    Returns:
        (time,) float32 in -1..1.
    """
    random = np.random.default_rng(seed)
    n = int(seconds * sample_rate_hz)
    time = np.arange(n) / sample_rate_hz
    glide = time / seconds
    pitch = random.uniform(90, 220) * (1 + random.uniform(-0.2, 0.2) * glide)  # Hz
    phase = 2 * np.pi * np.cumsum(pitch) / sample_rate_hz
    vowels = random.uniform([250, 800, 2000], [850, 2200, 3200], size=(2, 3))  # Hz, from and to
    formants = vowels[0] + (vowels[1] - vowels[0]) * glide[:, None]  # (time, 3)
    sound = np.zeros(n)
    for harmonic in range(1, 30):
        frequency = harmonic * pitch
        resonance = (1 / (1 + ((frequency[:, None] - formants) / 120) ** 2)).sum(axis=1)
        sound += (
            np.where(frequency < sample_rate_hz / 2, resonance, 0) * np.sin(harmonic * phase) / harmonic**0.5
        )
    envelope = np.sin(np.pi * glide) ** 0.5
    sound = sound * envelope + random.normal(0, 0.002, n)
    return np.asarray(sound / np.abs(sound).max() * 0.5, dtype=np.float32)
