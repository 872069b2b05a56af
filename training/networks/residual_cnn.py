"""A residual convolutional network for small grey images (He et al. 2016), about 0.3 M parameters."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions around a shortcut; a stride of 2 halves height and width."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.convolution1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels_out)
        self.convolution2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels_in, h, w) -> (n, channels_out, h / stride, w / stride)."""
        y = F.relu(self.norm1(self.convolution1(x)))
        return F.relu(self.norm2(self.convolution2(y)) + self.shortcut(x))


class ResidualCnn(nn.Module):
    """Classify 28 x 28 grey images given as raw bytes.

    Args:
        classes: number of labels.
        widths: channels of the three stages; the last is the size of `features`.
        dropout: share of features dropped in training.
        mean, std: of the training pixels, on the scale 0..1.
    """

    def __init__(
        self,
        classes: int = 10,
        widths: tuple[int, int, int] = (32, 64, 128),
        dropout: float = 0.2,
        mean: float = 0.1307,
        std: float = 0.3081,
    ) -> None:
        super().__init__()
        self.mean, self.std = mean, std
        self.stem = nn.Sequential(
            nn.Conv2d(1, widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()
        )
        self.stages = nn.Sequential(
            ResidualBlock(widths[0], widths[0], stride=1),
            ResidualBlock(widths[0], widths[1], stride=2),
            ResidualBlock(widths[1], widths[2], stride=2),
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(widths[2], classes)
        # A fifth faster to train on CPUs.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(n, 28, 28) uint8 -> logits (n, classes), features (n, widths[2])."""
        x = (pixels.unsqueeze(1).float() / 255 - self.mean) / self.std  # (n, 1, 28, 28)
        x = self.stages(self.stem(x))  # (n, widths[2], 7, 7)
        features = x.mean(dim=(2, 3))
        return self.head(self.dropout(features)), features
