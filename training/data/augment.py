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
