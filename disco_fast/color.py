"""The 313 color bins of the ab plane, and the scales between pictures and the network."""

from __future__ import annotations

from numbers import Real
from typing import Any

import torch
from torch import Tensor

AB_SCALE = 110.0  # the network's chroma is ab / 110
BIN_SIZE = 10
N_BINS = 313

# Bins are the multiples of 10 in the ab plane that sRGB reaches: for each a from -90 to 100 one run
# of b.
_B_RANGES = (
    (50, 90), (20, 90), (0, 90), (-20, 90), (-30, 100),
    (-40, 100), (-50, 100), (-50, 100), (-60, 100), (-70, 100),
    (-80, 90), (-80, 90), (-90, 90), (-100, 90), (-100, 80),
    (-110, 80), (-110, 80), (-110, 70), (-110, 70), (-90, 0),
)  # fmt: skip


# sRGB to XYZ, each row divided by its sum, which is the white point's.
_XYZ_OF_WHITE = (
    (0.433953, 0.376219, 0.189828),
    (0.212671, 0.715160, 0.072169),
    (0.017758, 0.109477, 0.872765),
)


def bin_centers(device: torch.device | str) -> Tensor:
    """[313,2] fp32: (a, b) of every color bin, in the class order of the network's logits."""
    return torch.tensor(
        [
            (a, b)
            for a, (low, high) in zip(range(-90, 101, BIN_SIZE), _B_RANGES, strict=True)
            for b in range(low, high + 1, BIN_SIZE)
        ],
        dtype=torch.float32,
        device=device,
    )


def nearest_bins(ab: Tensor) -> Tensor:
    """[...,2] ab to [...] int64, the bin whose center is nearest; the first of two alike."""
    return torch.cdist(ab.float(), bin_centers(ab.device)).argmin(dim=-1)


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """[...,3] sRGB 0-1 as Lab: L 0-100, a and b in Lab units, white point D65."""
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = linear @ rgb.new_tensor(_XYZ_OF_WHITE).T
    curved = torch.where(xyz > (6 / 29) ** 3, xyz ** (1 / 3), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = curved.unbind(-1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=-1)


def normalize_lightness(lightness: Tensor) -> Tensor:
    """L in 0..100 to the network's input, (L - 50) / 50."""
    return (lightness - 50) / 50


def check_vividness(value: Any) -> None:
    """Raise TypeError or ValueError if a vividness is none, or not within 0..1."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"vividness: expected a number in 0..1, got {type(value).__name__}")
    if not 0 <= float(value) <= 1:
        raise ValueError(f"vividness: expected a number in 0..1, got {value}")
