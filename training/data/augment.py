"""Small random changes of the training items, drawn anew each epoch."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def move_images(
    pixels: Tensor, *, max_shift: float = 2.0, max_degrees: float = 10.0, max_scale: float = 0.1
) -> Tensor:
    """Move, turn and scale each image by its own random amounts.

    Args:
        pixels: (n, height, width) uint8.
        max_shift: largest move in pixels, each way.
        max_degrees: largest turn, each way.
        max_scale: largest relative change of size, each way.

    Returns:
        (n, height, width) uint8, bilinear, 0 where nothing was.
    """
    n, height, width = pixels.shape
    device = pixels.device
    angle = (torch.rand(n, device=device) * 2 - 1) * math.radians(max_degrees)
    shift = (torch.rand(n, 2, device=device) * 2 - 1) * max_shift
    scale = 1 + (torch.rand(n, device=device) * 2 - 1) * max_scale
    cos, sin = angle.cos() / scale, angle.sin() / scale
    # Affine maps in normalised coordinates, where the image spans -1..1 both ways.
    rows = [cos, -sin, shift[:, 0] * 2 / width, sin, cos, shift[:, 1] * 2 / height]
    grid = F.affine_grid(torch.stack(rows, dim=1).view(n, 2, 3), [n, 1, height, width], align_corners=False)
    moved = F.grid_sample(pixels.unsqueeze(1).float(), grid, align_corners=False)  # (n, 1, h, w)
    return moved.squeeze(1).round().clamp(0, 255).to(torch.uint8)


def vary_speech(
    samples: Tensor,
    lengths: Tensor,
    *,
    max_speed: float = 0.12,
    max_gain_db: float = 10.0,
    max_noise_db: float = -25.0,
) -> tuple[Tensor, Tensor]:
    """Change the speed and gain of each sound, add noise, and keep it within -1..1.

    Args:
        samples: (n, time) float32 in -1..1, zero beyond each length.
        lengths: (n,) int64.
        max_speed: largest relative change of speed (and, with it, pitch), each way.
        max_gain_db: largest change of level in decibels, each way.
        max_noise_db: strongest white noise, relative to the sound's own level; the weakest is 40 dB less.

    Returns:
        New samples (n, new time) and lengths (n,), of the same types.
    """
    n, time = samples.shape
    device = samples.device
    speed = 1 + (torch.rand(n, device=device) * 2 - 1) * max_speed
    new_lengths = (lengths / speed).long().clamp(min=1)
    new_time = int(new_lengths.max())
    position = torch.arange(new_time, device=device) * speed[:, None]  # (n, new time), in old samples
    left = position.long().clamp(max=time - 1)
    right = (left + 1).clamp(max=time - 1)
    part = (position - left).clamp(0, 1)
    sound = samples.gather(1, left) * (1 - part) + samples.gather(1, right) * part
    real = torch.arange(new_time, device=device)[None, :] < new_lengths[:, None]
    level = (sound.square() * real).sum(1).div(new_lengths).sqrt()  # (n,) root mean square
    noise_db = max_noise_db - 40 * torch.rand(n, device=device)
    sound = sound + torch.randn_like(sound) * (level * 10 ** (noise_db / 20))[:, None]
    gain_db = (torch.rand(n, device=device) * 2 - 1) * max_gain_db
    sound = (sound * 10 ** (gain_db / 20)[:, None]).clamp(-1, 1)
    return sound * real, new_lengths


def vary_speaker(samples: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Change each sound as another speaker, microphone and room would; see `vary_speech` for the form.

    Wider than `vary_speech`: the speed moves pitch and formants as vocal tracts of other lengths do (Ko et
    al. 2015), random colour stands for other microphones (Nam, Kim and Park 2022), echo for other rooms
    (Ko et al. 2017).
    """
    return vary_speech(*add_echo(*colour_speech(samples, lengths)), max_speed=0.2, max_noise_db=-15.0)


def colour_speech(
    samples: Tensor, lengths: Tensor, *, max_db: float = 9.0, knots: int = 6, max_gap: float = 0.2
) -> tuple[Tensor, Tensor]:
    """Raise and lower the bands of each sound at random, and take one band out; its level stays.

    Args:
        samples: (n, time) float32, zero beyond each length.
        lengths: (n,) int64.
        max_db: largest change of a band in decibels, each way.
        knots: points, evenly spaced in mels, between which the change in decibels is linear.
        max_gap: widest band that is taken out, a share of all mels.
    """
    n, time = samples.shape
    # As long again in silence, so that nothing comes round from the end to the beginning.
    spectrum = torch.fft.rfft(samples, 2 * time)  # (n, bins)
    place = _mel_places(spectrum.shape[1], samples.device)  # (bins,)
    gains_db = (torch.rand(n, knots, device=samples.device) * 2 - 1) * max_db
    left = (place * (knots - 1)).long().clamp(max=knots - 2)
    part = place * (knots - 1) - left
    response_db = gains_db[:, left] * (1 - part) + gains_db[:, left + 1] * part  # (n, bins)
    width = torch.rand(n, 1, device=samples.device) * max_gap
    start = torch.rand(n, 1, device=samples.device) * (1 - width)
    gap = (place >= start) & (place < start + width)
    response = 10 ** (response_db / 20) * ~gap
    return _at_the_level_of(
        samples, torch.fft.irfft(spectrum * response, 2 * time)[:, :time], lengths
    ), lengths


def add_echo(
    samples: Tensor,
    lengths: Tensor,
    *,
    share: float = 0.5,
    max_decay: int = 3200,
    max_echo_db: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Let some of the sounds be heard in a room: noise that dies away stands for its echoes.

    Args:
        samples: (n, time) float32, zero beyond each length.
        lengths: (n,) int64.
        share: of the sounds that get an echo.
        max_decay: longest time, in samples, in which an echo falls by 60 decibels.
        max_echo_db: strongest energy of all echoes, relative to the sound itself; the weakest is 20 dB less.
    """
    n, time = samples.shape
    device = samples.device
    after = torch.arange(1, max_decay + 1, device=device)
    decay = (0.1 + 0.9 * torch.rand(n, 1, device=device)) * max_decay
    echoes = torch.randn(n, max_decay, device=device) * 10 ** (-3 * after / decay)  # -60 dB is 10^-3
    echo_db = max_echo_db - 20 * torch.rand(n, 1, device=device)
    echoes = echoes * 10 ** (echo_db / 20) / echoes.square().sum(1, keepdim=True).sqrt()
    echoes = echoes * (torch.rand(n, 1, device=device) < share)
    impulse = torch.cat([torch.ones(n, 1, device=device), echoes], dim=1)
    size = time + max_decay
    sound = torch.fft.irfft(torch.fft.rfft(samples, size) * torch.fft.rfft(impulse, size), size)[:, :time]
    return _at_the_level_of(samples, sound, lengths), lengths


def _mel_places(bins: int, device: torch.device) -> Tensor:
    """Where the bins of a spectrum of 8 kHz sound lie on the mel scale, 0..1; (bins,)."""
    hertz = torch.linspace(0, 4000, bins, device=device)
    mels = torch.log10(1 + hertz / 700)
    return mels / mels[-1]


def _at_the_level_of(old: Tensor, new: Tensor, lengths: Tensor) -> Tensor:
    """Give each new sound the level of the old one, and silence beyond its length."""
    real = torch.arange(new.shape[1], device=new.device)[None, :] < lengths[:, None]
    new = new * real
    before, after = (sound.square().sum(1, keepdim=True).sqrt() for sound in (old, new))
    return new * (before / after.clamp(min=1e-9))
