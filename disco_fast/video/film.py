"""Films in and out of files, by PyAV: frames with their times, and whatever else a file holds."""

from __future__ import annotations

import heapq
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
_PARTS = "nut"  # keeps any time base exactly, which Matroska does not
_ENCODER = "libx264"
_COPIED = ("audio", "subtitle")


class FilmError(ValueError):
    """A file is no film, or a film cannot be written so; the message names it."""


def need_av() -> ModuleType:
    """PyAV.

    Raises:
        ImportError: it is not installed; the message names the extra.
    """
    try:
        import av
    except ImportError as error:
        raise ImportError(
            "films need PyAV: python -m pip install 'disco_fast[video]', or in a checkout"
            " python -m pip install '.[video]'"
        ) from error
    return av


class Frame(NamedTuple):
    """A picture of a film.

    Attributes:
        pixels: (H, W, 3) uint8 RGB.
        time: in units of the film's time base.
    """

    pixels: np.ndarray
    time: int


class Facts(NamedTuple):
    """What must be known of a film to write another like it.

    Attributes:
        width, height: in pixels, as stored.
        time_base: seconds of a unit of time.
        rate: frames a second, on average.
        frames: how many it says that it has, or should have by its duration; 0 if neither is known.
        aspect: width of a pixel over its height.
    """

    width: int
    height: int
    time_base: Fraction
    rate: Fraction
    frames: int
    aspect: Fraction


def look(path: Path) -> Facts:
    """The facts of a film.

    Raises:
        FilmError: there is none in the file.
    """
    with _opened(path) as container:
        stream = _video(container, path)
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        frames = stream.frames
        if not frames and container.duration:
            frames = round(container.duration / 1_000_000 * rate)
        return Facts(
            stream.codec_context.width,
            stream.codec_context.height,
            stream.time_base,
            rate,
            frames,
            stream.sample_aspect_ratio or Fraction(1),
        )


def frames(path: Path, skip: int = 0) -> Iterator[Frame]:
    """The frames of a film in the order they are shown, from number `skip` on.

    Times rise from frame to frame: one that is missing or does not is taken to be a unit later.
    Frames of another size than the film's are resized. Frames that cannot be decoded are missing,
    as in any player.

    Raises:
        FilmError: there is no film in the file.
    """
    with _opened(path) as container:
        stream = _video(container, path)
        stream.thread_type = "AUTO"
        size = {"width": stream.codec_context.width, "height": stream.codec_context.height}
        last: int | None = None
        for number, frame in enumerate(container.decode(stream)):
            time = frame.pts if frame.pts is not None else (-1 if last is None else last) + 1
            if last is not None and time <= last:
                time = last + 1
            last = time
            if number >= skip:
                yield Frame(frame.to_ndarray(format="rgb24", **size), time)


def write_part(path: Path, facts: Facts, frames: Iterable[Frame], quality: int) -> None:
    """Frames as a film of its own, which `join` puts together with others.

    Args:
        path: written to.
        facts: of the whole film.
        frames: RGB of the film's size.
        quality: the constant rate factor of H.264, 0 to 51, the lower the better.
    """
    av = need_av()
    with av.open(str(path), "w", format=_PARTS) as container:
        stream = _add_video(container, facts, quality)
        for pixels, time in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame = frame.reformat(
                format=stream.pix_fmt,
                dst_colorspace=av.video.reformatter.Colorspace.ITU709,
                dst_color_range=av.video.reformatter.ColorRange.MPEG,
            )
            frame.pts, frame.time_base = time, facts.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def check_target(source: Path, target: Path) -> None:
    """Refuse a target that could not be written.

    Raises:
        FilmError: its suffix is unknown, or that kind of file cannot hold a stream of the source.
    """
    av = need_av()
    if target.suffix.lower() not in FORMATS:
        raise FilmError(f"{target}: films are written as {' '.join(FORMATS)}")
    kind = FORMATS[target.suffix.lower()]
    facts = look(source)
    with _opened(source) as container:
        streams = _copied(container)
        for stream in streams:
            try:
                trial = av.open(io.BytesIO(), "w", format=kind)
                _add_video(trial, facts, 20)
                trial.add_stream_from_template(stream)
                trial.start_encoding()
            except (ValueError, av.FFmpegError) as error:
                name = stream.codec_context.name if stream.codec_context else "unknown"
                raise FilmError(
                    f"{target}: a {kind} file cannot hold the {stream.type} of {source}, which is"
                    f" {name}; .mkv holds most ({error})"
                ) from None


def join(source: Path, parts: Sequence[Path], quality: int, target: Path, kind: str) -> None:
    """Write a film of parts, with sound and subtitles of the source as they are.

    Args:
        source: the film that the parts were made from.
        parts: of `write_part`, of one quality, in order, at least one.
        quality: theirs.
        target: written to.
        kind: one of `FORMATS`.
    """
    av = need_av()
    with ExitStack() as stack:
        container = stack.enter_context(_opened(source))
        output = stack.enter_context(av.open(str(target), "w", format=kind))
        output.metadata.update(container.metadata)
        video = _add_video(output, look(source), quality)  # encodes nothing: heads are alike
        copies = {s.index: output.add_stream_from_template(s) for s in _copied(container)}
        output.start_encoding()

        def pictures() -> Iterator[tuple[Any, Any]]:
            for part in parts:
                with _opened(part) as opened:
                    for packet in opened.demux(_video(opened, part)):
                        if packet.dts is not None:
                            yield packet, video

        def others() -> Iterator[tuple[Any, Any]]:
            if copies:
                for packet in container.demux(_copied(container)):
                    if packet.dts is not None:
                        yield packet, copies[packet.stream.index]

        for packet, stream in heapq.merge(pictures(), others(), key=_seconds):
            packet.stream = stream
            output.mux(packet)


def _seconds(pair: tuple[Any, Any]) -> float:
    packet = pair[0]
    return float(packet.dts * packet.time_base)


def _opened(path: Path) -> Any:
    av = need_av()
    try:
        return av.open(str(path))
    except (OSError, av.FFmpegError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise FilmError(f"{path}: not a film that can be read ({reason})") from error


def _video(container: Any, path: Path) -> Any:
    if not container.streams.video or container.streams.video[0].codec_context is None:
        raise FilmError(f"{path}: no film in it, or of a codec that FFmpeg does not know")
    return container.streams.video[0]


def _copied(container: Any) -> list[Any]:
    return [s for s in container.streams if s.type in _COPIED and s.codec_context is not None]


def _add_video(container: Any, facts: Facts, quality: int) -> Any:
    # Without B-frames packets have the order of frames, so that parts can follow one another.
    options = {"crf": str(quality), "bf": "0", "preset": "medium"}
    stream = container.add_stream(_ENCODER, rate=facts.rate, options=options)
    context = stream.codec_context
    context.width, context.height = facts.width, facts.height
    even = facts.width % 2 == 0 and facts.height % 2 == 0
    context.pix_fmt = "yuv420p" if even else "yuv444p"
    context.time_base = facts.time_base
    context.sample_aspect_ratio = facts.aspect
    context.colorspace, context.color_range = 1, 1  # BT.709, 16 to 235
    context.color_primaries, context.color_trc = 1, 1
    context.flags |= 1 << 22  # AV_CODEC_FLAG_GLOBAL_HEADER: some formats want it, all take it
    return stream
