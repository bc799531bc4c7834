"""Interlaced films: frames of two fields made whole, or marked as what they are."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np

_SMALLEST = (3, 4)  # width and height that the filter can do


def deinterlaced(frames: Iterator[Any]) -> Iterator[Any]:
    """Decoded frames, those of two fields deinterlaced; as many, at the same times."""
    chain: _Chain | None = None
    for frame in frames:
        if chain is not None and not chain.takes(frame):
            yield from chain.end()
            chain = None
        if chain is None and frame.interlaced_frame:
            chain = _Chain(frame)
        if chain is None or frame.width < _SMALLEST[0] or frame.height < _SMALLEST[1]:
            yield frame
        else:
            yield from chain.put(frame)
    if chain is not None:
        yield from chain.end()


class _Chain:
    """FFmpeg's bwdif for frames of one kind; progressive ones pass it as they are."""

    def __init__(self, frame: Any):
        self._kind = _kind(frame)
        self._times: deque[tuple[int | None, int, Any]] = deque()
        self._graph = graph(frame, ("bwdif", "mode=send_frame:deint=interlaced"))

    def takes(self, frame: Any) -> bool:
        return _kind(frame) == self._kind

    def put(self, frame: Any) -> Iterator[Any]:
        self._times.append((frame.pts, frame.duration, frame.time_base))
        self._graph.vpush(frame)
        yield from self._pulled()

    def end(self) -> Iterator[Any]:
        if self._times:
            self._graph.vpush(None)
            yield from self._pulled()

    def _pulled(self) -> Iterator[Any]:
        for frame in pulled(self._graph):
            if not self._times:
                return
            frame.pts, frame.duration, base = self._times.popleft()
            if base is not None:
                frame.time_base = base
            yield frame


def top_first(frame: Any) -> bool:
    """Whether the upper lines of a frame of two fields are the earlier."""
    fields = graph(frame, ("separatefields", ""))
    fields.vpush(frame)
    first = next(pulled(fields)).to_ndarray(format="gray")
    whole = frame.to_ndarray(format="gray")
    return np.array_equal(first, whole[: 2 * len(first) : 2])


def graph(frame: Any, *filters: tuple[str, str]) -> Any:
    """FFmpeg's filters in a row, for frames like this one."""
    import av

    whole = av.filter.Graph()
    base = frame.time_base or "1/1"
    source = (
        f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:time_base={base}"
        f":pixel_aspect=1/1:colorspace={frame.colorspace}:range={frame.color_range}"
    )
    nodes = [whole.add("buffer", source)]
    nodes += [whole.add(name, options) for name, options in filters]
    whole.link_nodes(*nodes, whole.add("buffersink")).configure()
    return whole


def pulled(whole: Any) -> Iterator[Any]:
    """All frames that the filters have ready."""
    import av

    while True:
        try:
            yield whole.vpull()
        except (av.BlockingIOError, av.EOFError):
            return


def _kind(frame: Any) -> tuple[Any, ...]:
    return frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range
