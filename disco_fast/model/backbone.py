"""The backbone: pixel features of the lightness (section 4.2); 32.5 of 43.06 M parameters."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils import spectral_norm

from .scale import TOKEN_DIM, scaled


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1)


def _encoder_stage(inputs: int, outputs: int, convolutions: int, stride: int) -> nn.Sequential:
    """Spectrally normalized convolutions, each with a leaky ReLU, then one batch norm."""
    layers: list[nn.Module] = []
    for i in range(convolutions):
        conv = _conv(inputs if i == 0 else outputs, outputs, stride if i == 0 else 1)
        layers += [spectral_norm(conv), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.BatchNorm2d(outputs))


def _upsample(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), _conv(inputs, outputs))


class Backbone(nn.Module):
    """An encoder of seven stages down to an eighth of the side, and a decoder back to full size.

    Attribute names are the published checkpoint's keys: the first digit numbers the stage.
    """

    def __init__(self, width: float = 1.0):
        super().__init__()
        c1, c2, c3, c4 = (scaled(c, width) for c in (64, 128, 256, 512))
        self.conv1_2 = _encoder_stage(1, c1, 2, stride=1)
        self.conv2_3 = _encoder_stage(c1, c2, 3, stride=2)
        self.conv3_3 = _encoder_stage(c2, c3, 3, stride=2)
        self.conv4_3 = _encoder_stage(c3, c4, 3, stride=2)
        self.conv5_3 = _encoder_stage(c4, c4, 3, stride=1)
        self.conv6_3 = _encoder_stage(c4, c4, 3, stride=1)
        self.conv7_3 = _encoder_stage(c4, c4, 3, stride=1)
        self.conv8up = _upsample(c4, c3)
        self.conv3short8 = nn.Sequential(_conv(c3, c3))
        self.conv8_3 = nn.Sequential(
            nn.ReLU(), _conv(c3, c3), nn.ReLU(), _conv(c3, c3), nn.ReLU(), nn.BatchNorm2d(c3)
        )
        self.conv9up = _upsample(c3, c2)
        self.conv9_2 = nn.Sequential(_conv(c2, c2), nn.ReLU(), nn.BatchNorm2d(c2))
        self.conv10up = _upsample(c2, c1)
        self.conv10_2 = nn.Sequential(nn.ReLU(), _conv(c1, TOKEN_DIM), nn.ReLU())

    def encode(self, gray: Tensor) -> tuple[Tensor, Tensor]:
        """The encoder's features after stages 3 (a quarter of the side) and 7 (an eighth)."""
        x3 = self.conv3_3(self.conv2_3(self.conv1_2(gray)))
        return x3, self.conv7_3(self.conv6_3(self.conv5_3(self.conv4_3(x3))))

    def forward(self, gray: Tensor) -> Tensor:
        """Lightness [N,1,H,W] to features [N,64,H,W]."""
        x3, x7 = self.encode(gray)
        x8 = self.conv8_3(self.conv8up(x7) + self.conv3short8(x3))
        x9 = self.conv9_2(self.conv9up(x8))
        return self.conv10_2(self.conv10up(x9))
