"""Augmentation changes items within its bounds and never their form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.small import pixels, sounds
from training.data.augment import add_echo, colour_speech, move_images, vary_speaker, vary_speech
from training.synthetic import draw_digit


def test_without_room_to_move_images_stay_as_they_are() -> None:
    images = pixels(5)
    assert torch.equal(move_images(images, max_shift=0, max_degrees=0, max_scale=0), images)


def test_images_keep_their_form_and_each_moves_by_its_own_amounts() -> None:
    torch.manual_seed(0)
    images = torch.from_numpy(np.stack([draw_digit(4, seed=1)] * 6))
    moved = move_images(images)
    assert (moved.shape, moved.dtype) == (images.shape, torch.uint8)
    assert len(torch.unique(moved, dim=0)) == 6


def test_what_comes_in_from_outside_is_background() -> None:
    torch.manual_seed(0)
    bright = torch.full((50, 28, 28), 255, dtype=torch.uint8)
    moved = move_images(bright, max_shift=3, max_degrees=0, max_scale=0)
    assert (moved[:, 14, 14] == 255).all()
    assert (moved == 0).any()
    inner = moved[:, 4:-4, 4:-4]
    assert (inner == 255).all()  # nothing moved farther than 3 pixels


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    lengths=st.lists(st.integers(1, 3000), min_size=1, max_size=4),
    max_speed=st.floats(0, 0.5),
)
def test_varied_speech_stays_within_its_bounds(seed: int, lengths: list[int], max_speed: float) -> None:
    torch.manual_seed(seed)
    samples, before = sounds(*lengths, seed=seed)
    varied, after = vary_speech(samples, before, max_speed=max_speed, max_gain_db=20, max_noise_db=0)
    assert varied.dtype == samples.dtype
    assert after.dtype == before.dtype
    assert varied.shape == (len(lengths), int(after.max()))
    assert varied.isfinite().all()
    assert varied.abs().max() <= 1
    for row, old, new in zip(varied, lengths, after.tolist(), strict=True):
        assert max(1, int(old / (1 + max_speed)) - 1) <= new <= old / (1 - max_speed) + 1
        assert not row[new:].any()


def test_without_room_to_vary_speech_stays_as_it_is() -> None:
    samples, lengths = sounds(400, 900, 1)
    varied, after = vary_speech(samples, lengths, max_speed=0, max_gain_db=0, max_noise_db=-300)
    assert torch.equal(after, lengths)
    torch.testing.assert_close(varied, samples)


def test_another_speed_moves_the_pitch() -> None:
    torch.manual_seed(3)
    time = torch.arange(8000) / 8000
    samples = (0.5 * torch.sin(2 * torch.pi * 440 * time)).repeat(8, 1)
    varied, lengths = vary_speech(
        samples, torch.full((8,), 8000), max_speed=0.1, max_gain_db=0, max_noise_db=-300
    )
    speeds = 8000 / lengths.double()
    assert speeds.max() - speeds.min() > 0.05
    for row, n, speed in zip(varied, lengths.tolist(), speeds.tolist(), strict=True):
        peak = np.abs(np.fft.rfft(row[:n].numpy())).argmax() * 8000 / n
        assert peak == pytest.approx(440 * speed, abs=1.5)


def test_the_noise_is_as_strong_as_it_is_said_to_be() -> None:
    torch.manual_seed(4)
    time = torch.arange(8000) / 8000
    samples = (0.3 * torch.sin(2 * torch.pi * 440 * time)).repeat(64, 1)
    varied, _ = vary_speech(samples, torch.full((64,), 8000), max_speed=0, max_gain_db=0, max_noise_db=-20)
    noise_db = 20 * torch.log10((varied - samples).square().mean(1).sqrt() / (0.3 / 2**0.5))
    assert -60.5 < noise_db.min() < -50
    assert -30 < noise_db.max() < -19.5


def test_the_gain_is_as_large_as_it_is_said_to_be() -> None:
    torch.manual_seed(5)
    samples = torch.full((64, 100), 0.1)
    varied, _ = vary_speech(samples, torch.full((64,), 100), max_speed=0, max_gain_db=6, max_noise_db=-300)
    gains_db = 20 * torch.log10(varied[:, 0] / 0.1)
    assert -6.01 <= gains_db.min() < -4
    assert 4 < gains_db.max() <= 6.01


def level_db(sounds: torch.Tensor) -> torch.Tensor:
    return 10 * torch.log10(sounds.square().sum(1))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), lengths=st.lists(st.integers(1, 3000), min_size=1, max_size=4))
def test_coloured_and_echoing_sounds_keep_their_length_and_level(seed: int, lengths: list[int]) -> None:
    torch.manual_seed(seed)
    samples, before = sounds(*lengths, seed=seed)
    for change in (colour_speech, add_echo):
        changed, after = change(samples, before)
        assert torch.equal(after, before)
        assert (changed.shape, changed.dtype) == (samples.shape, samples.dtype)
        for row, old, length in zip(changed, samples, lengths, strict=True):
            assert row.isfinite().all()
            assert not row[length:].any()
            if row.any():  # a single band may be all there was
                assert row.norm() == pytest.approx(float(old.norm()), rel=1e-4)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), lengths=st.lists(st.integers(1, 3000), min_size=1, max_size=4))
def test_another_speaker_stays_within_the_bounds_of_sound(seed: int, lengths: list[int]) -> None:
    torch.manual_seed(seed)
    samples, before = sounds(*lengths, seed=seed)
    varied, after = vary_speaker(samples, before)
    assert varied.shape == (len(lengths), int(after.max()))
    assert varied.isfinite().all()
    assert varied.abs().max() <= 1
    for row, old, new in zip(varied, lengths, after.tolist(), strict=True):
        assert max(1, int(old / 1.2) - 1) <= new <= old / 0.8 + 1
        assert not row[new:].any()


def test_without_room_colour_and_echo_leave_sounds_as_they_are() -> None:
    samples, lengths = sounds(400, 900, 1)
    torch.testing.assert_close(colour_speech(samples, lengths, max_db=0, max_gap=0)[0], samples)
    torch.testing.assert_close(add_echo(samples, lengths, share=0)[0], samples)


def responses_db(n: int = 64, **bounds: float) -> tuple[torch.Tensor, torch.Tensor]:
    """What colour does to the bins of a click: their frequencies, and the changes up to a constant."""
    samples = torch.zeros(n, 4000)
    samples[:, 2000] = 0.5
    coloured, _ = colour_speech(samples, torch.full((n,), 4000), **bounds)
    bands = 20 * torch.log10(torch.fft.rfft(coloured).abs() + 1e-9)
    return torch.fft.rfftfreq(4000, 1 / 8000), bands


def test_colour_changes_bands_by_as_much_as_it_is_said_to() -> None:
    torch.manual_seed(6)
    _, bands = responses_db(max_db=9, max_gap=0)
    spread = bands.amax(1) - bands.amin(1)
    assert spread.max() < 18.1
    assert spread.median() > 8
    steps = bands.diff(dim=1).abs()
    assert steps.max() < 0.6  # in lines between few points, not a jagged one


def test_one_band_is_taken_out() -> None:
    torch.manual_seed(7)
    hertz, bands = responses_db(max_db=0, max_gap=0.2)
    mels = torch.log10(1 + hertz / 700) / torch.log10(torch.tensor(1 + 4000 / 700))
    widths = []
    for row in bands:
        gone = (row < row.median() - 20).nonzero().flatten()
        if len(gone):
            assert (gone.diff() == 1).all()
            widths.append(float(mels[gone[-1]] - mels[gone[0]]))
    assert len(widths) > 50
    assert 0.15 < max(widths) <= 0.2


def test_echoes_die_away_and_some_sounds_have_none() -> None:
    torch.manual_seed(8)
    samples = torch.zeros(200, 5000)
    samples[:, 100] = 0.5
    changed, _ = add_echo(samples, torch.full((200,), 5000), share=0.5, max_decay=3200, max_echo_db=0)
    tails = changed[:, 101:]
    echoing = tails.abs().amax(1) > 1e-5
    assert 70 < int(echoing.sum()) < 130
    assert changed[:, :100].abs().max() < 1e-5  # nothing is heard before the sound
    relative_db = level_db(tails[echoing]) - level_db(changed[echoing, 100:101])
    assert -20.5 < relative_db.min() < -15
    assert -5 < relative_db.max() < 0.5
    energy = tails[echoing].square().sum(0)
    assert energy[:300].sum() > 5 * energy[1500:1800].sum()
    assert energy[3300:].sum() < 1e-6 * energy.sum()
