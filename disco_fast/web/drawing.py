"""Anchors on a picture, and their colors beside it."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from ..anchors import Anchor

LONGEST = 1200  # pixels of a picture on the page
_SHIFT = 4  # OpenCV draws at sixteenths of a pixel
_SWATCH = 64, 56  # height, width


def shown(pixels: np.ndarray) -> np.ndarray:
    """A picture at the size of the page: its longer side is `LONGEST`."""
    scale = LONGEST / max(pixels.shape[:2])
    height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cv2.resize(pixels, (width, height), interpolation=method)


def with_anchors(
    pixels: np.ndarray, anchors: Sequence[Anchor], selected: int | None, size: tuple[int, int]
) -> np.ndarray:
    """Every anchor as a disc of its color in a ring; that of the selected one is larger.

    Args:
        pixels: the picture, (H, W, 3) uint8, at any size.
        anchors: whose points are in pixels of `size`.
        selected: which is, if any.
        size: (width, height).
    """
    drawn = np.ascontiguousarray(pixels).copy()
    radius = max(drawn.shape[:2]) / 75
    across, down = drawn.shape[1] / size[0], drawn.shape[0] / size[1]
    for number, anchor in enumerate(anchors):
        place = anchor.pixel[0] * across, anchor.pixel[1] * down
        grown = radius * (1.5 if number == selected else 1.0)
        for share, color in ((1.45, (30, 30, 30)), (1.25, (255, 255, 255)), (0.85, anchor.rgb)):
            _disc(drawn, place, grown * share, color)
    return drawn


def swatches(anchor: Anchor | None) -> np.ndarray:
    """The ten probable colors of an anchor side by side, with a mark under the one in use."""
    height, width = _SWATCH
    strip = np.full((height, 10 * width, 3), 255, np.uint8)
    if anchor is None:
        return strip
    for place, swatch in enumerate(anchor.palette):
        left = place * width
        strip[4 : height - 14, left + 4 : left + width - 4] = swatch.rgb
        if swatch.bin == anchor.bin:
            strip[height - 9 : height - 4, left + 4 : left + width - 4] = (60, 60, 60)
    return strip


def swatch_at(x: int) -> int:
    """Which swatch is at a column of `swatches`."""
    return min(9, max(0, x // _SWATCH[1]))


def _disc(
    pixels: np.ndarray, place: tuple[float, float], radius: float, color: tuple[int, ...]
) -> None:
    x, y = (round(value * 2**_SHIFT) for value in place)
    cv2.circle(pixels, (x, y), round(radius * 2**_SHIFT), color, -1, cv2.LINE_AA, _SHIFT)
