"""What is measured on: photographs as the network's input, and first centers for K-Means."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from disco_fast.color import normalize_lightness
from disco_fast.engine.calibration import measure_ranges
from disco_fast.engine.precision import cpu_has_int8
from disco_fast.model import DISCO
from disco_fast.reference import rgb_to_l

from . import N_ANCHORS, SIZE
from .report import ROOT

PHOTOGRAPHS = ROOT / "examples" / "photographs"
_CALIBRATED = 20  # crops; as many come before them, for rivals to be compared on
SMALLEST_CROP = 0.6  # of the photograph's shorter side


def photographs(count: int, size: int, folder: Path = PHOTOGRAPHS) -> tuple[Tensor, str]:
    """Distinct square inputs, the same ones every time.

    First the middle of each photograph, as large a square as it holds; then, as long as more are
    asked for, squares of varying place and size, every other round flipped.

    Returns:
        (gray [count,1,size,size], how they were made).

    Raises:
        FileNotFoundError: no image in the folder.
    """
    images = [p for p in map(cv2.imread, map(str, sorted(folder.iterdir()))) if p is not None]
    if not images:
        raise FileNotFoundError(f"--photographs: no image in {folder}")
    crops = [_crop(images[i % len(images)], i // len(images), size) for i in range(count)]
    rgb = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)
    made = (
        f"{count} crops of {len(images)} photographs"
        if count > len(images)
        else f"{count} photographs"
    )
    return normalize_lightness(rgb_to_l(rgb)), made


def _crop(bgr: np.ndarray, turn: int, size: int) -> np.ndarray:
    """The photograph's crop number `turn`, RGB uint8 [size,size,3]; number 0 is the middle."""
    height, width = bgr.shape[:2]
    share, y, x = np.random.default_rng(turn).random(3) if turn else (1.0, 0.5, 0.5)
    side = round(min(height, width) * (SMALLEST_CROP + (1 - SMALLEST_CROP) * share))
    top, left = round(y * (height - side)), round(x * (width - side))
    crop = cv2.resize(
        bgr[top : top + side, left : left + side], (size, size), interpolation=cv2.INTER_AREA
    )
    if turn % 2:
        crop = crop[:, ::-1]
    return np.ascontiguousarray(crop[..., ::-1])


def random_centers(images: int, superpixels: int) -> Tensor:
    """[images,K] first centers as the official code draws them: different superpixels at random."""
    generator = torch.Generator().manual_seed(0)
    draws = [torch.randperm(superpixels, generator=generator)[:N_ANCHORS] for _ in range(images)]
    return torch.stack(draws)


def calibration_crops() -> tuple[Tensor, ...]:
    """What ranges are measured on: the crops after those that rivals are compared on."""
    return photographs(2 * _CALIBRATED, SIZE)[0][_CALIBRATED:].split(1)


def know_ranges(network: DISCO) -> None:
    """Measure what int8 needs to know. In place."""
    network.ranges = measure_ranges(network, calibration_crops(), N_ANCHORS)


def runs_here(precision: str) -> bool:
    """Whether a precision that suits a kind of device is to be had on this machine."""
    return precision != "int8" or cpu_has_int8()


def is_size(size: int) -> bool:
    """Whether the network takes images of this side as they are."""
    return size >= 48 and size % 16 == 0
