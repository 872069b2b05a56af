"""What the project draws and sings: fixed by the seed, and of the form that the models take."""

from __future__ import annotations

import numpy as np
import pytest

from training.synthetic import draw_digit, sing_vowels


@pytest.mark.parametrize("digit", range(10))
def test_a_digit_is_light_on_black_and_fills_the_frame(digit: int) -> None:
    image = draw_digit(digit, seed=digit)
    assert (image.shape, image.dtype) == ((28, 28), np.uint8)
    assert image.max() > 200
    assert 0.05 < (image > 100).mean() < 0.5
    assert (image == 0).mean() > 0.3
    rows = np.flatnonzero(image.max(axis=1) > 100)
    assert rows[-1] - rows[0] >= 12


def test_equal_seeds_draw_equal_pixels_and_others_do_not() -> None:
    assert np.array_equal(draw_digit(5, seed=1), draw_digit(5, seed=1))
    assert not np.array_equal(draw_digit(5, seed=1), draw_digit(5, seed=2))
    assert not np.array_equal(draw_digit(5, seed=1), draw_digit(6, seed=1))
    assert draw_digit(5, seed=1, size=40).shape == (40, 40)


def test_a_sung_vowel_is_a_clean_sound_of_the_given_length() -> None:
    sound = sing_vowels(seed=0, seconds=0.4)
    assert (sound.shape, sound.dtype) == ((3200,), np.float32)
    assert np.abs(sound).max() == pytest.approx(0.5)
    assert sing_vowels(seed=0, seconds=0.5, sample_rate_hz=16_000).shape == (8000,)


def test_equal_seeds_sing_equal_samples_and_others_do_not() -> None:
    assert np.array_equal(sing_vowels(seed=1, seconds=0.1), sing_vowels(seed=1, seconds=0.1))
    assert not np.array_equal(sing_vowels(seed=1, seconds=0.1), sing_vowels(seed=2, seconds=0.1))


def test_a_sung_vowel_is_a_voice_and_no_noise() -> None:
    spectrum = np.abs(np.fft.rfft(sing_vowels(seed=3, seconds=1.0))) ** 2
    low = spectrum[60:3500].sum() / spectrum.sum()
    assert low > 0.95
