"""CIE Lab and sRGB (sRGB primaries, D65)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

RGB_TO_XYZ = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
XYZ_TO_RGB = (
    (3.240479, -1.537150, -0.498535),
    (-0.969256, 1.875991, 0.041556),
    (0.055648, -0.204043, 1.057311),
)
WHITE = (0.950456, 1.0, 1.088754)


def _unit_range(image: Tensor) -> Tensor:
    return image.float() / 255 if image.dtype == torch.uint8 else image


def rgb_to_l(image: Tensor) -> Tensor:
    """Lightness L of an sRGB or gray picture.

    Args:
        image: [N,1 or 3,H,W], uint8 0-255 or floating 0-1; one channel means R = G = B.

    Returns:
        [N,1,H,W], 0-100, fp32 for uint8 and otherwise in the input's dtype.
    """
    rgb = _unit_range(image)
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    if linear.shape[1] == 3:
        weights = linear.new_tensor(RGB_TO_XYZ[1])[:, None, None]
        linear = (linear * weights).sum(1, keepdim=True)
    return torch.where(linear > 0.008856, 116 * linear ** (1 / 3) - 16, 903.3 * linear)


def lab_to_rgb(lightness: Tensor, ab: Tensor, to_uint8: bool) -> Tensor:
    """A picture in sRGB from lightness at full size and chroma at any size.

    Chroma is resampled bilinearly (pixel centers at half integers, edges repeated). Colors outside
    sRGB are clamped channel by channel.

    Args:
        lightness: [N,1,H,W], 0-100, floating.
        ab: [N,2,h,w] in Lab units (about -110..110), same dtype.
        to_uint8: round to uint8 0-255, else leave floating 0-1.

    Returns:
        [N,3,H,W] RGB, uint8 or in the dtype of `lightness`.
    """
    ab = F.interpolate(ab, size=lightness.shape[-2:], mode="bilinear", align_corners=False)
    fy = (lightness + 16) / 116
    f = torch.cat([fy + ab[:, :1] / 500, fy, fy - ab[:, 1:] / 200], dim=1)
    threshold = 0.008856 ** (1 / 3)
    xyz = torch.where(f > threshold, f**3, (f - 16 / 116) / 7.787)
    xyz = xyz * xyz.new_tensor(WHITE)[:, None, None]
    linear = torch.einsum("cx,nxhw->nchw", xyz.new_tensor(XYZ_TO_RGB), xyz).clamp(0, 1)
    power = linear.clamp(min=0.0031308) ** (1 / 2.4)  # kept off 0, where its gradient is infinite
    rgb = torch.where(linear > 0.0031308, 1.055 * power - 0.055, 12.92 * linear).clamp(0, 1)
    return (rgb * 255).round().to(torch.uint8) if to_uint8 else rgb
