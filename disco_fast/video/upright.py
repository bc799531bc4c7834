"""Films that lie on their side, as phones store them, and how to turn their frames upright."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import numpy as np


class Orientation(NamedTuple):
    """How a stored picture is shown: transposed first, then mirrored.

    Attributes:
        transposed: whether rows are shown as columns.
        mirrored: left and right are exchanged.
        flipped: top and bottom are exchanged.
    """

    transposed: bool
    mirrored: bool
    flipped: bool

    def applied(self, pixels: np.ndarray) -> np.ndarray:
        """(H, W, C) as it is shown."""
        if self.transposed:
            pixels = pixels.transpose(1, 0, 2)
        if self.mirrored:
            pixels = pixels[:, ::-1]
        if self.flipped:
            pixels = pixels[::-1]
        return np.ascontiguousarray(pixels)


def orientation(frame: Any) -> Orientation:
    """That of a decoded frame, by its display matrix; the nearest of the eight right ones."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return Orientation(False, False, False)
    # A stored point (x, y) is shown at (a x + c y, b x + d y).
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(matrix))
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(False, a < 0, d < 0)
    return Orientation(True, c < 0, b < 0)
