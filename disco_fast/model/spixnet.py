"""SPixNet: the association of every pixel to its nine candidate superpixels (section 4.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .scale import scaled


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.LeakyReLU(0.1),
    )


def _deconv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1), nn.LeakyReLU(0.1)
    )


class SPixNet(nn.Module):
    """A U-Net over the lightness, four levels deep: sides must be multiples of 16.

    Attribute names are the published checkpoint's keys.
    """

    def __init__(self, width: float = 1.0):
        super().__init__()
        c0, c1, c2, c3, c4 = (scaled(c, width) for c in (16, 32, 64, 128, 256))
        self.conv0a, self.conv0b = _conv(1, c0), _conv(c0, c0)
        self.conv1a, self.conv1b = _conv(c0, c1, stride=2), _conv(c1, c1)
        self.conv2a, self.conv2b = _conv(c1, c2, stride=2), _conv(c2, c2)
        self.conv3a, self.conv3b = _conv(c2, c3, stride=2), _conv(c3, c3)
        self.conv4a, self.conv4b = _conv(c3, c4, stride=2), _conv(c4, c4)
        self.deconv3, self.conv3_1 = _deconv(c4, c3), _conv(2 * c3, c3)
        self.deconv2, self.conv2_1 = _deconv(c3, c2), _conv(2 * c2, c2)
        self.deconv1, self.conv1_1 = _deconv(c2, c1), _conv(2 * c1, c1)
        self.deconv0, self.conv0_1 = _deconv(c1, c0), _conv(2 * c0, c0)
        self.pred_mask0 = nn.Conv2d(c0, 9, 3, padding=1)

    def forward(self, gray: Tensor) -> Tensor:
        """Lightness [N,1,H,W] to association [N,9,H,W], which sums to 1 over the candidates."""
        x0 = self.conv0b(self.conv0a(gray))
        x1 = self.conv1b(self.conv1a(x0))
        x2 = self.conv2b(self.conv2a(x1))
        x3 = self.conv3b(self.conv3a(x2))
        x = self.conv4b(self.conv4a(x3))
        x = self.conv3_1(self.joined(x3, self.deconv3, x))
        x = self.conv2_1(self.joined(x2, self.deconv2, x))
        x = self.conv1_1(self.joined(x1, self.deconv1, x))
        x = self.conv0_1(self.joined(x0, self.deconv0, x))
        return self.associated(x)

    def joined(self, skip: Tensor, deconv: nn.Module, x: Tensor) -> Tensor:
        """The skip connection [N,C,H,W] and the deconvolved [N,I,H/2,W/2]: [N,2C,H,W]."""
        return torch.cat([skip, deconv(x)], 1)

    def associated(self, x: Tensor) -> Tensor:
        """The last features [N,C,H,W] to association [N,9,H,W]."""
        return torch.softmax(self.pred_mask0(x), dim=1)
