"""RefineNet: pixel chroma from the lightness and the spread tokens (section 4.4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import spectral_norm

from .scale import TOKEN_DIM, scaled


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1)


class _InBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.inConv = nn.Sequential(_conv(inputs, outputs), nn.ReLU())
        self.conv = nn.Sequential(_conv(outputs, outputs), nn.ReLU(), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.inConv(x))


class _DownBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv = nn.Sequential(
            _conv(inputs, outputs, stride=2),
            nn.ReLU(),
            _conv(outputs, outputs),
            nn.ReLU(),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class ResidualBlock(nn.Module):
    """Three convolutions, one of them spectrally normalized, and the input added."""

    def __init__(self, channels: int):
        super().__init__()
        # Two convolutions in a row without an activation: so it is in the published network.
        self.conv = nn.Sequential(
            _conv(channels, channels),
            spectral_norm(_conv(channels, channels)),
            nn.ReLU(),
            _conv(channels, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N,C,H,W] to the same."""
        return F.relu(x + self.conv(x))


class UpBlock(nn.Module):
    """Twice the side: a convolution, upsampling, the skip connection, three convolutions."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv1 = _conv(inputs, outputs)
        self.combine = _conv(2 * outputs, outputs)
        self.conv2 = nn.Sequential(
            _conv(outputs, outputs),
            nn.ReLU(),
            _conv(outputs, outputs),
            nn.ReLU(),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """[N,I,h,w] and [N,O,2h,2w] to [N,O,2h,2w]."""
        x = F.interpolate(self.conv1(x), scale_factor=2.0, mode="nearest")
        return self.conv2(F.relu(self.combine(torch.cat([x, skip], 1))))


class RefineNet(nn.Module):
    """An hourglass of two levels with three residual blocks at its waist.

    Attribute names are the published checkpoint's keys.
    """

    def __init__(self, width: float = 1.0):
        super().__init__()
        c1, c2, c3 = (scaled(c, width) for c in (64, 128, 256))
        self.inConv = _InBlock(1 + TOKEN_DIM, c1)
        self.down1 = _DownBlock(c1, c2)
        self.down2 = _DownBlock(c2, c3)
        self.residual = nn.Sequential(*(ResidualBlock(c3) for _ in range(3)))
        self.up2 = UpBlock(c3, c2)
        self.up1 = UpBlock(c2, c1)
        self.outConv = _conv(c1, 2)

    def forward(self, pixels: Tensor) -> Tensor:
        """Lightness and spread tokens [N,1+64,H,W] to ab/110 [N,2,H,W] in -1..1."""
        x1 = self.inConv(pixels)
        x2 = self.down1(x1)
        x3 = self.residual(self.down2(x2))
        return torch.tanh(self.outConv(self.up1(self.up2(x3, x2), x1)))
