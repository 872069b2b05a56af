"""Log-mel features against torch.stft, and what no input may do to them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.small import make_lstm, sounds
from training.networks.log_mel import LogMel


@pytest.fixture(scope="module")
def front_end() -> LogMel:
    """With a range that was fitted on sung vowels."""
    return make_lstm().front_end


@pytest.mark.parametrize("time", [1, 79, 80, 81, 256, 1000, 8001])
def test_frames_are_those_of_the_short_time_fourier_transform(time: int) -> None:
    module = LogMel()
    samples, lengths = sounds(time, time, seed=time)
    spectrum = torch.stft(
        samples, n_fft=256, hop_length=80, window=torch.hann_window(256),
        center=True, pad_mode="constant", return_complex=True,
    )  # fmt: skip
    expected = torch.log(spectrum.abs().square().transpose(1, 2) @ module.mel + 1e-6)
    found, counts = module.log_frames(samples, lengths)
    assert counts.tolist() == [time // 80 + 1] * 2
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize(("window", "mels", "rate"), [(256, 40, 8_000), (512, 40, 16_000), (128, 10, 8_000)])
def test_every_mel_filter_is_a_triangle_with_a_peak(window: int, mels: int, rate: int) -> None:
    matrix = LogMel(rate, window, mels=mels).mel
    assert matrix.shape == (window // 2 + 1, mels)
    assert (matrix >= 0).all()
    assert (matrix <= 1).all()
    peaks = matrix.argmax(0)
    assert (matrix.amax(0) > 0.3).all()
    assert (peaks.diff() >= 0).all()
    for peak, band in zip(peaks.tolist(), matrix.T, strict=True):
        assert (band[: peak + 1].diff() >= 0).all()
        assert (band[peak:].diff() <= 0).all()


def test_each_tone_is_loudest_in_the_band_around_it() -> None:
    module = LogMel()
    top = 2595 * torch.log10(torch.tensor(1 + 4000 / 700))
    edges = 700 * (10 ** (torch.linspace(0, float(top), 42) / 2595) - 1)
    for band in (8, 20, 35):
        tone = 0.5 * torch.sin(2 * torch.pi * edges[band + 1] * torch.arange(4000) / 8000)
        frames, _ = module.log_frames(tone[None], torch.tensor([4000]))
        assert int(frames[0, 5:-5].mean(0).argmax()) == band


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    lengths=st.lists(st.integers(1, 1500), min_size=1, max_size=3),
    scale=st.sampled_from([0.0, 1e-20, 1e-3, 1.0, 1e4, 1e15]),
)
def test_no_input_leaves_the_range_seen_in_training(
    front_end: LogMel, seed: int, lengths: list[int], scale: float
) -> None:
    samples, sizes = sounds(*lengths, seed=seed)
    frames, counts = front_end(samples * scale, sizes)
    assert (frames >= front_end.low).all()
    assert (frames <= front_end.high).all()
    for row, count in zip(frames, counts.tolist(), strict=True):
        assert not row[count:].any()


def test_the_range_is_that_of_the_sounds_it_was_fitted_on() -> None:
    module = LogMel()
    samples, lengths = sounds(4000, 2500, 800)
    module.fit_range(samples, lengths)
    frames, counts = module(samples, lengths)
    rows = torch.cat([row[:count] for row, count in zip(frames, counts.tolist(), strict=True)])
    torch.testing.assert_close(rows.mean(0), torch.zeros(40), atol=1e-4, rtol=0)
    torch.testing.assert_close(rows.std(0), torch.ones(40), atol=1e-4, rtol=0)
    torch.testing.assert_close(rows.amin(0), module.low)
    torch.testing.assert_close(rows.amax(0), module.high)
    assert (module.low < 0).all()
    assert (module.high > 0).all()


@settings(max_examples=20, deadline=None)
@given(lengths=st.lists(st.integers(1, 1500), min_size=2, max_size=4), garbage=st.floats(-1e6, 1e6))
def test_a_row_depends_neither_on_its_neighbours_nor_on_its_padding(
    front_end: LogMel, lengths: list[int], garbage: float
) -> None:
    samples, sizes = sounds(*lengths)
    real = torch.arange(samples.shape[1])[None, :] < sizes[:, None]
    frames, counts = front_end(torch.where(real, samples, garbage), sizes)
    for i, length in enumerate(lengths):
        alone, count = front_end(samples[i : i + 1, :length], sizes[i : i + 1])
        assert counts[i] == count[0]
        torch.testing.assert_close(frames[i, : count[0]], alone[0, : count[0]], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("window", "hop"), [(256, 80), (256, 64), (250, 100), (64, 64), (16, 5)])
def test_frames_overlap_and_are_centred_on_every_hop(window: int, hop: int) -> None:
    module = LogMel(window=window, hop=hop, mels=8)
    for time in (1, hop - 1, hop, 1000, 1003):
        samples = torch.arange(1.0, 2 * time + 1).reshape(2, time)
        frames = module._cut_frames(samples)
        padded = torch.nn.functional.pad(samples, (window // 2, window))
        expected = padded.unfold(1, window, hop)[:, : time // hop + 1]
        assert torch.equal(frames, expected)
