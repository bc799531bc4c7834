"""Films out of files, by PyAV: frames upright, with their times, and what is known of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .._extras import need
from .fields import deinterlaced, top_first
from .hdr import TRANSFERS, tone_mapped
from .upright import Orientation, orientation

FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
_MOST_PIXELS = 1 << 26  # of a frame; twice what 8K has
_MOST_STREAMS = 100
_COVERS = ("attached_pic", "timed_thumbnails", "still_image")


class FilmError(ValueError):
    """A file is no film, or a film cannot be written so; the message names it."""


class Frame(NamedTuple):
    """A picture of a film.

    Attributes:
        pixels: (H, W, 3) RGB, uint8, or uint16 of the full range where the film has more bits or is
            in HDR.
        time: in units of the film's time base.
        duration: likewise; 0 if the film does not say.
    """

    pixels: np.ndarray
    time: int
    duration: int = 0


class Facts(NamedTuple):
    """What must be known of a film to write another like it.

    Attributes:
        width, height: in pixels, upright.
        time_base: seconds of a unit of time.
        rate: frames a second, on average.
        frames: how many it says that it has, or should have by its duration; 0 if neither is known.
        aspect: width of a pixel over its height, upright.
        depth: bits of a sample, at least 8.
        hdr: "PQ", "HLG", or empty for a film of ordinary range.
        interlaced: whether frames are of two fields.
        top_first: of those, whether the upper lines are the earlier.
    """

    width: int
    height: int
    time_base: Fraction
    rate: Fraction
    frames: int
    aspect: Fraction
    depth: int = 8
    hdr: str = ""
    interlaced: bool = False
    top_first: bool = True

    @property
    def step(self) -> int:
        """Units of time of an average frame, at least 1."""
        return max(1, round(1 / (self.rate * self.time_base)))


@dataclass
class Losses:
    """What of a film could not be read.

    Attributes:
        packets: damaged ones, each of which costs its frames.
    """

    packets: int = 0


def look(path: Path) -> Facts:
    """The facts of a film.

    Raises:
        FilmError: there is none in the file, no frame of it can be decoded, or it is larger than
            any film.
    """
    with opened(path) as container:
        return _read(container, path)[0]


def frames(
    path: Path, skip: int = 0, keep_interlaced: bool = False, losses: Losses | None = None
) -> Iterator[Frame]:
    """The frames of a film in the order they are shown, from number `skip` on.

    They are upright, deinterlaced, and of ordinary range: of a film in HDR the lightness alone,
    tone-mapped. Times rise from frame to frame: one that is missing is taken to be an average frame
    later, one that does not rise a unit. Frames of another size than the film's are resized. Frames
    that cannot be decoded are missing, as in any player.

    Args:
        path: the film.
        skip: how many frames to leave out at the beginning.
        keep_interlaced: leave fields as they are.
        losses: is told of what could not be read.

    Raises:
        FilmError: as `look`.
    """
    facts, turn = _facts_of(path)
    names = ("height", "width") if turn.transposed else ("width", "height")
    size = dict(zip(names, (facts.width, facts.height), strict=True))
    with opened(path) as container:
        stream = film_stream(container, path)
        stream.thread_type = "AUTO"
        pictures = _decoded(container, stream, losses or Losses())
        if not keep_interlaced:
            pictures = deinterlaced(pictures)
        last: int | None = None
        for number, picture in enumerate(pictures):
            time = _next_time(picture.pts, last, facts.step)
            last = time
            if number >= skip:
                pixels = turn.applied(_rgb(picture, facts, size))
                yield Frame(pixels, time, picture.duration or 0)


def opened(path: Path) -> Any:
    """A film's file, open to read.

    Raises:
        FilmError: it is none.
    """
    av = need("video", "av")
    try:
        return av.open(str(path), metadata_errors="surrogateescape")
    except (OSError, av.FFmpegError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise FilmError(f"{path}: not a film that can be read ({reason})") from error


def film_stream(container: Any, path: Path) -> Any:
    """The pictures of an open file: the first stream of them that is no cover.

    Raises:
        FilmError: there is none, or the header says that it is larger than any film.
    """
    if len(container.streams) > _MOST_STREAMS:
        raise FilmError(
            f"{path}: expected at most {_MOST_STREAMS} streams, got {len(container.streams)}"
        )
    for stream in container.streams.video:
        if stream.codec_context is not None and not is_cover(stream):
            break
    else:
        raise FilmError(f"{path}: no film in it, or of a codec that FFmpeg does not know")
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > _MOST_PIXELS:
        raise FilmError(
            f"{path}: expected at most {_MOST_PIXELS} pixels a frame, got {width}x{height}"
        )
    stream.codec_context.options["max_pixels"] = str(_MOST_PIXELS)  # whatever comes after
    return stream


def is_cover(stream: Any) -> bool:
    """Whether a stream of pictures is the film's cover or the like."""
    av = need("video", "av")
    return any(stream.disposition & av.stream.Disposition[name] for name in _COVERS)


def _facts_of(path: Path) -> tuple[Facts, Orientation]:
    with opened(path) as container:
        return _read(container, path)


def _read(container: Any, path: Path) -> tuple[Facts, Orientation]:
    """The facts, and how frames are turned upright; decodes up to the first frame."""
    stream = film_stream(container, path)
    context = stream.codec_context
    first = next(_decoded(container, stream, Losses()), None)
    if first is None:
        raise FilmError(f"{path}: no frame of it can be decoded")
    turn = orientation(first)
    width, height = context.width, context.height
    aspect = stream.sample_aspect_ratio or Fraction(1)
    if turn.transposed:
        width, height, aspect = height, width, 1 / aspect
    # Of a file without times the average is FFmpeg's 25, whatever the film says itself.
    said = stream.guessed_rate if first.pts is None else stream.average_rate
    rate = said or stream.guessed_rate or Fraction(25)
    count = stream.frames
    if not count and container.duration:
        count = round(container.duration / 1_000_000 * rate)
    facts = Facts(
        width,
        height,
        stream.time_base,
        rate,
        count,
        aspect,
        depth=max(8, *(part.bits for part in first.format.components)),
        hdr=TRANSFERS.get(first.color_trc, ""),
        interlaced=first.interlaced_frame,
        top_first=first.interlaced_frame and top_first(first),
    )
    return facts, turn


def _decoded(container: Any, stream: Any, losses: Losses) -> Iterator[Any]:
    """The frames, in the order they are shown; a packet that cannot be decoded is counted."""
    av = need("video", "av")
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.InvalidDataError:  # ends the file, as in a player
            losses.packets += 1
            packet = None
        if packet is None:
            break
        try:
            pictures = packet.decode()
        except MemoryError:
            raise
        except av.FFmpegError:
            losses.packets += 1
            continue
        yield from pictures
    try:
        pictures = stream.decode(None)
    except av.FFmpegError:  # most often: the last packet of `demux` has done it already
        return
    yield from pictures


def _next_time(given: int | None, last: int | None, step: int) -> int:
    if last is None:
        return given if given is not None else 0
    if given is None:
        return last + step
    return max(given, last + 1)


def _rgb(picture: Any, facts: Facts, size: dict[str, int]) -> np.ndarray:
    """(H, W, 3) as `Frame` has it, as stored."""
    kind = "rgb24" if facts.depth == 8 and not facts.hdr else "rgb48le"
    pixels = picture.reformat(format=kind, interpolation=scaling(), **size).to_ndarray()
    return tone_mapped(pixels, facts.hdr) if facts.hdr else pixels


def scaling() -> Any:
    """How colors and sizes are converted: with all bits, which is not FFmpeg's default."""
    kinds = need("video", "av").video.reformatter.Interpolation
    return kinds.BILINEAR | kinds.ACCURATE_RND | kinds.FULL_CHR_H_INT | kinds.FULL_CHR_H_INP
