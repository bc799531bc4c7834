"""The backbone that knows objects: EfficientNet-lite0's features of the gray picture, by scale.

EfficientNet-lite (Apache-2.0) is a classifier without squeeze-and-excitation whose activations are
ReLU6. Its batch norms are folded into the convolutions before they come here, so it has none.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..reference import wide_dtype
from .scale import TOKEN_DIM

# Expansion, kernel, channels and repeats of inverted residuals; each scale halves the side once.
_SCALES = (
    ((1, 3, 16, 1),),
    ((6, 3, 24, 2),),
    ((6, 5, 40, 2),),
    ((6, 3, 80, 3), (6, 5, 112, 3)),
    ((6, 5, 192, 4), (6, 3, 320, 1)),
)
QUARTER = 2  # halvings of the side at which features are pooled: finer, they would say no more
_STEM = 32  # channels, at half the side
CHANNELS = (1, *(stages[-1][2] for stages in _SCALES))
"""Channels of what is projected to features: the gray picture, then scales from fine to coarse."""


def _halved(kernel: int) -> nn.ZeroPad2d:
    """Padding before a stride of 2, as TensorFlow pads an even side: one more at the end."""
    before, after = (kernel - 2) // 2, (kernel - 1) // 2
    return nn.ZeroPad2d((before, after, before, after))


class InvertedResidual(nn.Module):
    """Widened by a 1x1 convolution, filtered channel by channel, narrowed; and the input added.

    Args:
        inputs, outputs: channels.
        expansion: how many times wider it is in between.
        kernel: side of the filters, odd.
        stride: 1 or 2; an input of the same shape as the result is added to it.
    """

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int):
        super().__init__()
        inner = inputs * expansion
        widen = [nn.Conv2d(inputs, inner, 1), nn.ReLU6()] if expansion > 1 else []
        pad = [_halved(kernel)] if stride == 2 else []
        padding = kernel // 2 if stride == 1 else 0
        depthwise = nn.Conv2d(inner, inner, kernel, stride, padding, groups=inner)
        self.layers = nn.Sequential(
            *widen, *pad, depthwise, nn.ReLU6(), nn.Conv2d(inner, outputs, 1)
        )
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """[N,inputs,H,W] to [N,outputs,h,w]."""
        return x + self.layers(x) if self.adds else self.layers(x)


class Standardize(nn.Module):
    """Takes the mean from each channel and divides by the deviation; both are fixed.

    The projections train faster on features of one size. A prepared network folds it into them.

    Args:
        channels: of its input.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, channels: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("deviation", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """[N,channels,H,W] to the same."""
        return (x - self.mean[:, None, None]) / self.deviation[:, None, None]


class Pyramid(nn.Module):
    """The picture and the classifier's five scales, each projected to features, and summed."""

    def __init__(self) -> None:
        super().__init__()
        stem = nn.Sequential(_halved(3), nn.Conv2d(1, _STEM, 3, 2), nn.ReLU6())
        self.scales = nn.ModuleList()
        inputs = _STEM
        for number, stages in enumerate(_SCALES):
            blocks: list[nn.Module] = [stem] if number == 0 else []
            for expansion, kernel, outputs, repeats in stages:
                for _ in range(repeats):
                    # The stem has halved the side for the first scale.
                    first = number > 0 and not blocks
                    stride = 2 if first else 1
                    blocks.append(InvertedResidual(inputs, outputs, expansion, kernel, stride))
                    inputs = outputs
            self.scales.append(nn.Sequential(*blocks))
        self.laterals = nn.ModuleList(
            nn.Sequential(Standardize(c), nn.Conv2d(c, TOKEN_DIM, 1)) for c in CHANNELS
        )

    def standardize(self, mean: Tensor, deviation: Tensor) -> None:
        """Set what each channel of the scales is standardized by, [513] each. In place."""
        parts = zip(mean.split(CHANNELS), deviation.split(CHANNELS), strict=True)
        for lateral, (its_mean, its_deviation) in zip(self.laterals, parts, strict=True):
            standard = lateral.get_submodule("0")
            standard.load_state_dict({"mean": its_mean, "deviation": its_deviation})

    def encode(self, x: Tensor) -> list[Tensor]:
        """The gray picture [N,1,H,W] and its scales [N,C,H/2^i,W/2^i], from fine to coarse."""
        found = [x]
        for scale in self.scales:
            found.append(scale(found[-1]))
        return found

    def at_quarter(self, x: Tensor) -> list[Tensor]:
        """What `encode` finds, each at a quarter of the side: [N,C,H/4,W/4]."""
        return [_to_quarter(level, halvings) for halvings, level in enumerate(self.encode(x))]

    def forward(self, x: Tensor) -> Tensor:
        """The gray picture as `gray_picture` makes it, [N,1,H,W], to features [N,64,H/4,W/4].

        Every scale is projected at the size that has fewer pixels.
        """
        features = [
            lateral(_to_quarter(level, halvings))
            if halvings < QUARTER
            else _to_quarter(lateral(level), halvings)
            for halvings, (level, lateral) in enumerate(
                zip(self.encode(x), self.laterals, strict=True)
            )
        ]
        total = features[0].to(wide_dtype(features[0].dtype))
        for feature in features[1:]:
            total = total + feature
        return total

    def project(self, pooled: Tensor) -> Tensor:
        """What SP-Pooling makes of the features, from the scales pooled one by one.

        Both are linear and pooling keeps a constant, so they may change places.

        Args:
            pooled: [N,P,513], the scales of `at_quarter` pooled and concatenated.

        Returns:
            [N,P,64].
        """
        parts = pooled.transpose(1, 2)[..., None].split(CHANNELS, dim=1)
        tokens = [lateral(part) for lateral, part in zip(self.laterals, parts, strict=True)]
        return torch.stack(tokens).sum(0)[..., 0].transpose(1, 2)


class EfficientNetBackbone(nn.Module):
    """Features of the lightness by a pretrained classifier, in the place of the published ones."""

    def __init__(self) -> None:
        super().__init__()
        self.pyramid: nn.Module = Pyramid()

    def forward(self, gray: Tensor) -> Tensor:
        """Lightness [N,1,H,W], (L - 50) / 50, to features [N,64,H/4,W/4]; H, W multiples of 32."""
        return self.pyramid(gray_picture(gray))


def pyramid_of(backbone: nn.Module) -> Pyramid:
    """The pyramid of a backbone in training.

    Raises:
        TypeError: the backbone is another one, or prepared.
    """
    if isinstance(backbone, EfficientNetBackbone) and isinstance(backbone.pyramid, Pyramid):
        return backbone.pyramid
    raise TypeError("backbone: expected efficientnet-lite0, got the published one")


def _to_quarter(level: Tensor, halvings: int) -> Tensor:
    """A scale, halved so often, at a quarter: by area where it shrinks, else bilinearly."""
    if halvings < QUARTER:
        return F.avg_pool2d(level, 2 ** (QUARTER - halvings))
    if halvings == QUARTER:
        return level
    scale = 2.0 ** (halvings - QUARTER)
    return F.interpolate(level, scale_factor=scale, mode="bilinear", align_corners=False)


def gray_picture(gray: Tensor) -> Tensor:
    """Lightness (L - 50) / 50 as the sRGB gray of that lightness, in the classifier's units.

    Mean 127 and deviation 128 of 0..255 are what the lite networks were trained with.
    """
    lightness = 50 * gray + 50
    linear = torch.where(lightness > 8, ((lightness + 16) / 116) ** 3, lightness / 903.3)
    curved = 1.055 * linear.clamp(min=0.0031308) ** (1 / 2.4) - 0.055
    srgb = torch.where(linear > 0.0031308, curved, 12.92 * linear).clamp(0, 1)
    return (255 * srgb - 127) / 128
