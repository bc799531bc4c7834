"""Pictures in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .metadata import Kept


class ImageFileError(ValueError):
    """A picture file that cannot be read or written; the message begins with its path."""


_NOTHING = Kept()


@dataclass(frozen=True)
class Picture:
    """A picture in memory, the way up it is to be seen.

    Attributes:
        pixels: (H, W, 1) gray or (H, W, 3) RGB, ``uint8`` or ``uint16``, full range, sRGB.
        alpha: (H, W) of the same type, 0 transparent, or None for a picture without one.
        kept: what its file says besides.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    kept: Kept = _NOTHING


@dataclass(frozen=True)
class Pages:
    """All pictures of a file: one, the pages of a TIFF, or the frames of an animation.

    Attributes:
        pictures: in their order; the frames of an animation are of one size.
        times: milliseconds that each frame is shown; None: no animation.
        loops: how often an animation is shown; 0: for ever.
    """

    pictures: tuple[Picture, ...]
    times: tuple[int, ...] | None = None
    loops: int = 0
