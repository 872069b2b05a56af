"""Log-mel features of raw sound, as plain matrix products that export to any runtime.

The short-time Fourier transform is a product of frames with windowed cosines and sines, followed by a mel
matrix. Measured at batch 8 this is several times faster in ONNX Runtime than the STFT operator. As a
convolution it would be as fast, but ONNX Runtime then sums in an order that depends on the padded length,
so that a row's last bits would depend on its neighbours.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LogMel(nn.Module):
    """Turn samples into normalised log-mel frames, clipped to the range seen in training.

    The output is clipped to what `fit_range` saw, so that no input can carry values into a
    dynamically quantized layer that would coarsen its scale; frames beyond a row's length hold 0, a
    value inside that range.

    Args:
        sample_rate_hz: of the samples.
        window: samples a frame.
        hop: samples from one frame to the next.
        mels: number of mel bands.
    """

    low: Tensor
    high: Tensor
    mean: Tensor
    std: Tensor
    fourier: Tensor
    mel: Tensor

    def __init__(self, sample_rate_hz: int = 8_000, window: int = 256, hop: int = 80, mels: int = 40) -> None:
        super().__init__()
        self.window, self.hop = window, hop
        self.register_buffer("fourier", _fourier_kernels(window))  # (2 bins, 1, window)
        self.register_buffer("mel", _mel_matrix(sample_rate_hz, window, mels))  # (bins, mels)
        self.register_buffer("mean", torch.zeros(mels))
        self.register_buffer("std", torch.ones(mels))
        self.register_buffer("low", torch.full((mels,), -10.0))
        self.register_buffer("high", torch.full((mels,), 10.0))

    def forward(self, samples: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(n, time) float32, (n,) int64 -> frames (n, frames, mels) float32, frame counts (n,) int64."""
        logs, counts = self.log_frames(samples, lengths)
        frames = ((logs - self.mean) / self.std).clamp(self.low, self.high)
        real = torch.arange(frames.shape[1], device=frames.device)[None, :] < counts[:, None]
        return frames * real.unsqueeze(-1), counts

    def log_frames(self, samples: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """As `forward`, before normalisation: natural logarithms of the mel energies."""
        # Whatever stands in the padding is silenced, so that a row never depends on it.
        real = torch.arange(samples.shape[1], device=samples.device)[None, :] < lengths[:, None]
        spectrum = self._cut_frames(samples * real) @ self.fourier.squeeze(1).T  # (n, frames, 2 bins)
        cosine, sine = spectrum.chunk(2, dim=2)
        power = cosine.square() + sine.square()  # (n, frames, bins)
        energies = power @ self.mel  # (n, frames, mels)
        return torch.log(energies + 1e-6), lengths // self.hop + 1

    def _cut_frames(self, samples: Tensor) -> Tensor:
        """Cut overlapping frames around every hop; (n, time) -> (n, frames, window).

        They are gathered in blocks that divide window and hop, which is far faster than single samples.
        """
        n, time = samples.shape
        block = math.gcd(self.window, self.hop)
        frames, blocks = time // self.hop + 1, (time + self.window) // block + 1
        x = F.pad(samples, (self.window // 2, blocks * block - time - self.window // 2))
        starts = torch.arange(frames, device=x.device)[:, None] * (self.hop // block)
        chosen = starts + torch.arange(self.window // block, device=x.device)  # (frames, blocks a frame)
        gathered = x.reshape(n, blocks, block).index_select(1, chosen.flatten())
        return gathered.reshape(n, frames, self.window)

    @torch.no_grad()
    def fit_range(self, samples: Tensor, lengths: Tensor) -> None:
        """Set mean, standard deviation and range of each band from the training sounds."""
        logs, counts = self.log_frames(samples, lengths)
        rows = torch.cat([frames[:count] for frames, count in zip(logs, counts, strict=True)])
        self.mean.copy_(rows.mean(0))
        self.std.copy_(rows.std(0).clamp(min=1e-3))
        scaled = (rows - self.mean) / self.std
        self.low.copy_(scaled.amin(0))
        self.high.copy_(scaled.amax(0))


def _fourier_kernels(window: int) -> Tensor:
    """Rows of a Hann-windowed discrete Fourier transform: cosines, then sines; (2 bins, 1, window)."""
    n = torch.arange(window, dtype=torch.float64)
    k = torch.arange(window // 2 + 1, dtype=torch.float64)
    angle = 2 * math.pi * k[:, None] * n[None, :] / window
    hann = torch.hann_window(window, periodic=True, dtype=torch.float64)
    return torch.cat([angle.cos() * hann, -angle.sin() * hann]).unsqueeze(1).float()


def _mel_matrix(sample_rate_hz: int, window: int, mels: int) -> Tensor:
    """Triangular filters, evenly spaced on the mel scale of O'Shaughnessy (1987); (bins, mels)."""
    top = 2595 * math.log10(1 + sample_rate_hz / 2 / 700)
    edges = 700 * (10 ** (torch.linspace(0, top, mels + 2, dtype=torch.float64) / 2595) - 1)  # Hz
    bins = torch.linspace(0, sample_rate_hz / 2, window // 2 + 1, dtype=torch.float64)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return torch.minimum(rising, falling).clamp(min=0).float()
