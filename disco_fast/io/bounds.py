"""How large a picture may be, decided by its header before any of it is decoded."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Condition

MEGAPIXELS = 250.0
"""What a picture may have, over all its pages or frames, where nothing else is asked for."""

_AT_ONCE = 500_000_000  # pixels being decoded by all threads
# No photograph is coded in so little: what claims more is refused. A blank page may be.
_PIXELS_OF_A_BYTE, _ALWAYS_CREDIBLE = 4096, 40_000_000
_BYTES_OF_A_PIXEL, _BYTES_OF_THE_REST = 16, 2**26


class TooLargeError(ValueError):
    """A picture has more pixels or bytes than allowed, or than it can truly have."""


def check_pixels(sizes: Sequence[tuple[int, int]], size: int, megapixels: float) -> None:
    """Refuse a file whose pictures are too large.

    Args:
        sizes: (width, height) of every page or frame.
        size: bytes of the file.
        megapixels: the most that they may have together, 10^6 pixels.

    Raises:
        TooLargeError: they have more, or more than the bytes can hold.
    """
    pixels = sum(width * height for width, height in sizes)
    shown = " x ".join(map(str, max(sizes)))
    if len(sizes) > 1:
        shown = f"{len(sizes)} times up to {shown}"
    if pixels > megapixels * 1e6:
        raise TooLargeError(
            f"{shown} pixels are {pixels / 1e6:.0f} megapixels; at most {megapixels:g} are read"
        )
    if pixels > _ALWAYS_CREDIBLE + _PIXELS_OF_A_BYTE * size:
        raise TooLargeError(f"it claims {shown} pixels, which its {size} bytes cannot hold")


def largest_file(megapixels: float) -> int:
    """Bytes of a file that may be read to find a picture of so many megapixels in it."""
    return int(megapixels * 1e6) * _BYTES_OF_A_PIXEL + _BYTES_OF_THE_REST


class Budget:
    """An amount that all threads share; what is larger than all of it is let through alone.

    Args:
        most: the amount.
    """

    def __init__(self, most: int):
        self._most = most
        self._begin()

    def _begin(self) -> None:
        self._used, self._changed = 0, Condition()

    @contextmanager
    def taken(self, amount: int) -> Iterator[None]:
        """Wait until there is so much left, and hold it."""
        with self._changed:
            self._changed.wait_for(lambda: not self._used or self._used + amount <= self._most)
            self._used += amount
        try:
            yield
        finally:
            with self._changed:
                self._used -= amount
                self._changed.notify_all()


DECODING = Budget(_AT_ONCE)
"""Pixels that are being decoded."""

if hasattr(os, "register_at_fork"):  # a child has none of the threads that hold some of it
    os.register_at_fork(after_in_child=DECODING._begin)
