"""Films of high dynamic range, as a display of ordinary range shows them."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

TRANSFERS = {16: "PQ", 18: "HLG"}
"""FFmpeg's numbers of the transfer functions of SMPTE ST 2084 and ARIB STD-B67."""
_LUMINANCE = np.array([0.2627, 0.6780, 0.0593], np.float32)  # of BT.2020's primaries
_WHITE = 203.0  # cd/m2 that ordinary white is shown at (ITU-R BT.2408)
_PEAK = 1000.0  # cd/m2 of the brightest highlight that is kept; most films are graded to it
_TOP = 65535


def tone_mapped(pixels: np.ndarray, transfer: str) -> np.ndarray:
    """What remains of a picture in HDR: its lightness, with highlights compressed.

    Up to about half of white everything is as bright as it was; beyond that the curve of ITU-R
    BT.2390 leads highlights of 1000 cd/m2 to white.

    Args:
        pixels: (H, W, 3) uint16, RGB of BT.2020.
        transfer: a value of `TRANSFERS`.

    Returns:
        (H, W, 3) uint16, gray of sRGB.
    """
    luminance = _linear(transfer)[pixels] @ _LUMINANCE
    if transfer == "HLG":
        luminance = _PEAK * luminance**1.2  # the display's part of the curve (BT.2100)
    gray = np.interp(luminance, *_curve()).astype(np.float32)
    return np.repeat(np.rint(gray * _TOP).astype(np.uint16)[..., None], 3, axis=2)


@lru_cache
def _linear(transfer: str) -> np.ndarray:
    """[65536] fp32: cd/m2 of PQ samples, or light in the scene, 0 to 1, of HLG samples."""
    sample = np.arange(_TOP + 1) / _TOP
    if transfer == "PQ":
        return _pq_luminance(sample).astype(np.float32)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(sample <= 0.5, sample**2 / 3, (np.exp((sample - c) / a) + b) / 12).astype(
        np.float32
    )


@lru_cache
def _curve() -> tuple[np.ndarray, np.ndarray]:
    """Luminance in cd/m2 and the sRGB sample, 0 to 1, that shows it."""
    sample = np.linspace(0, 1, 4096)  # of PQ, the peak being 1
    peak, white = _pq_sample(_PEAK), _pq_sample(_WHITE) / _pq_sample(_PEAK)
    knee = 1.5 * white - 0.5
    t = ((sample - knee) / (1 - knee)).clip(0, 1)
    bent = (
        (2 * t**3 - 3 * t**2 + 1) * knee
        + (t**3 - 2 * t**2 + t) * (1 - knee)
        + (-2 * t**3 + 3 * t**2) * white
    )
    shown = np.where(sample < knee, sample, bent)
    linear = (_pq_luminance(shown * peak) / _WHITE).clip(0, 1)
    gray = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return _pq_luminance(sample * peak), gray


_M1, _M2, _C1, _C2, _C3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875


def _pq_luminance(sample: np.ndarray) -> np.ndarray:
    root = sample ** (1 / _M2)
    return 10000 * ((root - _C1).clip(0) / (_C2 - _C3 * root)) ** (1 / _M1)


def _pq_sample(luminance: float) -> float:
    root = (luminance / 10000) ** _M1
    return ((_C1 + _C2 * root) / (1 + _C3 * root)) ** _M2
