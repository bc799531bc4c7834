"""Color profiles of files that say their gamma and primaries in numbers, as PNG may."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

_D50 = (0.9642, 1.0, 0.8249)
_BRADFORD = np.array(
    [(0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296)]
)
_SRGB = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
_SRGB_EXPONENT, _NEAR_ENOUGH, _SAME_PLACE = 2.2, 0.05, 0.005


def of_numbers(exponent: float, places: Sequence[float] | None, gray: bool) -> bytes | None:
    """An ICC profile of a power curve, or None where sRGB is what is meant.

    Args:
        exponent: what samples of 0 to 1 are raised to for light, 0.1 to 10; others mean nothing.
        places: x and y of white, red, green and blue; None: those of sRGB.
        gray: whether it is for gray samples.
    """
    places = places or _SRGB
    usual = abs(exponent / _SRGB_EXPONENT - 1) <= _NEAR_ENOUGH
    if not 0.1 <= exponent <= 10 or (usual and (gray or _is_srgb(places))):
        return None
    curve = b"curv\0\0\0\0" + struct.pack(">IHxx", 1, round(exponent * 256))
    tags = {b"wtpt": _xyz(_D50)}
    if gray:
        tags[b"kTRC"] = curve
    else:
        matrix = _matrix(places)
        if matrix is None:
            return None
        for name, column in zip((b"r", b"g", b"b"), matrix.T, strict=True):
            tags |= {name + b"XYZ": _xyz(column), name + b"TRC": curve}
    tags[b"desc"] = b"desc\0\0\0\0" + struct.pack(">I", 2) + b"-\0" + bytes(78)
    tags[b"cprt"] = b"text\0\0\0\0-\0\0\0"
    return _profile(b"GRAY" if gray else b"RGB ", tags)


def _is_srgb(places: Sequence[float]) -> bool:
    return max(abs(a - b) for a, b in zip(places, _SRGB, strict=True)) <= _SAME_PLACE


def _matrix(places: Sequence[float]) -> np.ndarray | None:
    """From linear RGB to XYZ of a D50 white; None if the places make up no triangle."""
    if min(places[1::2]) <= 0:
        return None
    x, y = np.array(places[::2]), np.array(places[1::2])
    white, *colors = np.stack([x / y, np.ones(4), (1 - x - y) / y], axis=1)
    primaries = np.array(colors).T
    if abs(np.linalg.det(primaries)) < 1e-3:
        return None
    weighted = primaries * np.linalg.solve(primaries, white)
    cones = (_BRADFORD @ np.array(_D50)) / (_BRADFORD @ white)
    return np.linalg.solve(_BRADFORD, cones[:, None] * (_BRADFORD @ weighted))


def _xyz(values: Sequence[float]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(float(value) * 65536) for value in values))


def _profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    place, table, content = 132 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        table += struct.pack(">4sII", name, place + len(content), len(data))
        content += data + b"\0" * (-len(data) % 4)
    head = struct.pack(">I4xI4s4s4s", place + len(content), 0x02100000, b"mntr", space, b"XYZ ")
    head += struct.pack(">6H4s", 2000, 1, 1, 0, 0, 0, b"acsp").ljust(44, b"\0")
    head += _xyz(_D50)[8:]
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + content
