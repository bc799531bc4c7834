"""What moved where between two frames, and what is new."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..io.opencv import opencv

_ALIKE = 4.0  # of L, 0-100: a difference that noise and changing light make
_OTHER = 12.0  # a difference that they do not make
_CUT = 0.3  # share of pixels; a pan or a walk leaves a few per cent unexplained


class Motion(NamedTuple):
    """From a frame back to the one before.

    Attributes:
        places: (H, W, 2) fp32, where in the frame before each pixel was, (x, y).
        likeness: (H, W) fp32, 1 where the lightness there is the same, 0 where it is not.
        cut: whether the two frames show different scenes: too much of the new one is nowhere in the
            one before.
    """

    places: np.ndarray
    likeness: np.ndarray
    cut: bool

    def carry(self, pixels: np.ndarray) -> np.ndarray:
        """What belongs to the frame before, (H, W, C), where it is now."""
        return _carried(pixels, self.places)


def motion(before: np.ndarray, now: np.ndarray) -> Motion:
    """Optical flow (DIS) between the lightness of two frames.

    Args:
        before: (H, W) fp32, L 0-100.
        now: likewise, of the same size.
    """
    cv2 = opencv("optical flow")
    finder = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    flow = finder.calc(_bytes(now), _bytes(before), None)  # type: ignore[call-overload]
    y, x = np.indices(now.shape, np.float32)
    places = np.stack([x, y], axis=2) + flow
    was = cv2.remap(
        before, places[..., 0], places[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    difference = cv2.GaussianBlur(np.abs(now - was), (0, 0), 1.0)
    likeness = np.exp(-((difference / _ALIKE) ** 2)).astype(np.float32)
    return Motion(places, likeness, bool((difference > _OTHER).mean() > _CUT))


def _carried(pixels: np.ndarray, places: np.ndarray) -> np.ndarray:
    cv2 = opencv("optical flow")
    x, y = places[..., 0], places[..., 1]
    return cv2.remap(pixels, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _bytes(lightness: np.ndarray) -> np.ndarray:
    return np.rint(lightness * 2.55).clip(0, 255).astype(np.uint8)
