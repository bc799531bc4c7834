"""Frames of a film in any order, each in the colors that it has in the whole film."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import TypeAlias, TypeVar

from torch import Tensor

from .flow import motion
from .tracking import Tracker

Read: TypeAlias = Callable[[int], Tensor]
Value = TypeVar("Value")
_BLOCK = 32  # frames that are read in their order, since decoders hate to go backwards
_EVERY = 50  # frames between two that can always be gone on from
_MARKS = 64


class Seeker:
    """Colorizes the frames that are asked for, as one `Tracker` would that sees the whole film.

    What a frame looks like follows from the frames since the last cut, and from nothing else: not
    from the order of requests. Frames in their order cost as much as in a film; a frame elsewhere
    costs those since the cut before it, or since the nearest one before it of which it is still
    known how to go on. It may be used from several threads.

    Args:
        begin: makes a tracker that has seen nothing.
        ahead: frames kept for requests that come late, at least 1.
    """

    def __init__(self, begin: Callable[[], Tracker], ahead: int):
        self._begin, self._ahead, self._lock = begin, ahead, Lock()
        self._ready: dict[int, Tensor] = {}
        self._recent: dict[int, dict[str, Tensor]] = {}
        self._marks: dict[int, dict[str, Tensor]] = {}

    def colorize(self, n: int, read: Read) -> Tensor:
        """Frame n in color, [3,H,W].

        Args:
            n: from 0.
            read: gives any frame from 0 to n, [1 or 3,H,W], uint8 0-255 or floating 0-1.
        """
        with self._lock:
            if n not in self._ready:
                self._compute(n, read)
            return self._ready.pop(n)

    def _compute(self, n: int, read: Read) -> None:
        tracker = self._begin()
        first = self._first(n, read, tracker)
        if (known := self._known(first - 1)) is not None:
            tracker.load(known)
        for k in range(first, n + 1):
            _keep(self._ready, k, tracker.colorize(read(k)[None])[0], self._ahead)
            _keep(self._recent, k, tracker.save(), self._ahead)
            if k % _EVERY == 0:
                _keep(self._marks, k, self._recent[k], _MARKS)

    def _known(self, k: int) -> dict[str, Tensor] | None:
        """What the frame after k follows from, if it is kept."""
        return self._recent.get(k) or self._marks.get(k)

    def _first(self, n: int, read: Read, tracker: Tracker) -> int:
        """The last frame, up to n, that begins a scene or follows a known one."""
        last = n
        while last > 0 and self._known(last - 1) is None:
            first = max(last - _BLOCK, 0)
            first = max((k + 1 for k in range(first, last) if self._known(k)), default=first)
            views = [tracker.lightness(read(k)).numpy() for k in range(first, last + 1)]
            for k in range(last, first, -1):
                if motion(views[k - first - 1], views[k - first]).cut:
                    return k
            last = first
        return last


def _keep(kept: dict[int, Value], n: int, value: Value, most: int) -> None:
    """Add a value, and forget the oldest beyond `most`."""
    kept.pop(n, None)
    kept[n] = value
    while len(kept) > most:
        del kept[next(iter(kept))]
