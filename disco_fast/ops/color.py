"""CIE Lab and sRGB."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import reference
from .checks import check_floating, refuse
from .schemas import define

define(
    reference.rgb_to_l,
    "(Tensor image) -> Tensor",
)
define(
    reference.lab_to_rgb,
    "(Tensor lightness, Tensor ab, bool to_uint8) -> Tensor",
)


def rgb_to_l(image: Tensor) -> Tensor:
    """Lightness, 0-100, [N,1,H,W]; see `reference.rgb_to_l`.

    Args:
        image: [N,1 or 3,H,W], uint8 0-255, or fp32/fp64 0-1.

    Raises:
        ValueError: naming the argument that does not fit.
    """
    if image.dtype not in (torch.uint8, torch.float32, torch.float64):
        refuse("rgb_to_l", "image in uint8, fp32 or fp64", image.dtype)
    shape = tuple(image.shape)
    if len(shape) != 4 or shape[1] not in (1, 3) or min(shape) == 0:
        refuse("rgb_to_l", "image [N,1 or 3,H,W]", shape)
    return torch.ops.disco_fast.rgb_to_l(image)


def lab_to_rgb(lightness: Tensor, ab: Tensor, to_uint8: bool) -> Tensor:
    """Picture in sRGB from full-size lightness and chroma of any size; see `reference.lab_to_rgb`.

    Args:
        lightness: [N,1,H,W], fp32 or fp64, 0-100.
        ab: [N,2,h,w], same dtype, Lab units.
        to_uint8: uint8 0-255 instead of floating 0-1.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """
    check_floating("lab_to_rgb", lightness=lightness, ab=ab)
    wide = lightness.dtype in (torch.float32, torch.float64) and ab.dtype == lightness.dtype
    if not wide:
        refuse("lab_to_rgb", "lightness and ab both fp32 or both fp64", lightness.dtype)
    shapes = tuple(lightness.shape), tuple(ab.shape)
    fits = lightness.dim() == 4 and ab.dim() == 4 and shapes[0][1] == 1 and shapes[1][1] == 2
    fits = fits and shapes[0][0] == shapes[1][0] and min(*shapes[0], *shapes[1]) > 0
    if not fits:
        refuse("lab_to_rgb", "lightness [N,1,H,W] and ab [N,2,h,w]", shapes)
    return torch.ops.disco_fast.lab_to_rgb(lightness, ab, to_uint8)


@torch.library.register_fake("disco_fast::rgb_to_l")
def _(image: Tensor) -> Tensor:
    dtype = torch.float32 if image.dtype == torch.uint8 else image.dtype
    return image.new_empty(image.shape[0], 1, *image.shape[-2:], dtype=dtype)


@torch.library.register_fake("disco_fast::lab_to_rgb")
def _(lightness: Tensor, ab: Tensor, to_uint8: bool) -> Tensor:
    dtype = torch.uint8 if to_uint8 else lightness.dtype
    return lightness.new_empty(lightness.shape[0], 3, *lightness.shape[-2:], dtype=dtype)
