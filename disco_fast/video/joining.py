"""A film put together: its parts, and whatever else the source's file holds."""

from __future__ import annotations

import heapq
import io
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from .._extras import need
from .coding import Coding, add_film
from .film import FORMATS, Facts, FilmError, film_stream, is_cover, opened

_COPIED = ("audio", "subtitle")
_COVERS = {"mjpeg": ("cover.jpg", "image/jpeg"), "png": ("cover.png", "image/png")}
_BIT_EXACT = 1 << 10  # the same film gives the same file: no random numbers in it
# Of the encoder's film, not of this one; some programs write them as tags.
_STATISTICS = ("BPS", "DURATION", "NUMBER_OF_", "_STATISTICS", "ENCODER", "SOURCE_ID")
_OF_FORMAT = ("major_brand", "minor_version", "compatible_brands")
_PLAIN_TAGS = {
    *("title", "artist", "album_artist", "composer", "album", "date", "year", "genre", "comment"),
    *("copyright", "grouping", "lyrics", "description", "synopsis", "show", "episode_id", "track"),
    *("network", "keywords", "disc", "location", "creation_time", "encoder", "encoded_by"),
}
"""Tags that MP4 has a place for; any others go into QuickTime's list of keys."""
_QUICKTIME = {
    **{"deu": "ger", "nld": "dut", "swe": "sve", "ell": "gre", "isl": "ice", "zho": "chi"},
    **{"sqi": "alb", "mkd": "mac", "hye": "arm", "kat": "geo"},
}
"""Languages that QuickTime's table has under another code."""


class Part(NamedTuple):
    """Frames of a film, encoded.

    Attributes:
        path: the file of `coding.write_part`.
        times: of its frames.
        duration: of its last frame; 0 if the film does not say.
    """

    path: Path
    times: Sequence[int]
    duration: int


def check_target(source: Path, target: Path, facts: Facts, coding: Coding) -> list[str]:
    """Refuse a target that could not be written.

    Returns:
        What of the source will not be in the target, in words.

    Raises:
        FilmError: its suffix is unknown, that kind of file cannot hold the pictures or a stream of
            the source, or the encoder refuses the film's size.
    """
    av = need("video", "av")
    if target.suffix.lower() not in FORMATS:
        raise FilmError(f"{target}: films are written as {' '.join(FORMATS)}")
    kind = FORMATS[target.suffix.lower()]
    try:
        trial = av.open(io.BytesIO(), "w", format=kind)
        add_film(trial, facts, coding)
        trial.start_encoding()
    except (ValueError, av.FFmpegError) as error:
        raise FilmError(
            f"{target}: a {kind} file cannot hold {facts.width}x{facts.height} pictures as"
            f" {coding.codec}; try another --codec, or .mkv ({error})"
        ) from None
    with opened(source) as container:
        for stream in _copied(container):
            try:
                trial = av.open(io.BytesIO(), "w", format=kind)
                add_film(trial, facts, coding)
                trial.add_stream_from_template(stream)
                trial.start_encoding()
            except (ValueError, av.FFmpegError) as error:
                name = stream.codec_context.name if stream.codec_context else "unknown"
                raise FilmError(
                    f"{target}: a {kind} file cannot hold the {stream.type} of {source}, which is"
                    f" {name}; .mkv holds most ({error})"
                ) from None
        return [_described(stream) for stream in _left_out(container, source, kind)]


def join(
    source: Path, parts: Sequence[Part], facts: Facts, coding: Coding, target: Path, kind: str
) -> None:
    """Write a film of parts, with all that the source holds besides pictures.

    Sound and subtitles are copied as they are, with their languages, titles and dispositions;
    chapters, attachments and the film's tags as well.

    Args:
        source: the film that the parts were made from.
        parts: in order, at least one.
        facts: of the source.
        coding: of the parts.
        target: written to.
        kind: one of `FORMATS`.

    Raises:
        FilmError: a part is damaged.
    """
    av = need("video", "av")
    with ExitStack() as stack:
        container = stack.enter_context(opened(source))
        tags = _tags(container)
        options = {"movflags": "use_metadata_tags"} if _needs_keys(tags, kind) else {}
        output = stack.enter_context(
            av.open(
                str(target),
                "w",
                format=kind,
                container_options=options,
                metadata_errors="surrogateescape",
            )
        )
        output.flags |= _BIT_EXACT
        output.metadata.update(tags)
        output.set_chapters(container.chapters())
        video = add_film(output, facts, coding)  # encodes nothing: heads are alike
        _tell(video, film_stream(container, source))
        beside: list[tuple[Any, Any]] = []
        copies = {s.index: output.add_stream_from_template(s) for s in _copied(container)}
        for index, copy in copies.items():
            _tell(copy, container.streams[index])
            if kind != "matroska":
                copy.metadata.update(_of_quicktime(copy.metadata, kind))
        for cover in _covers(container, kind):
            content = _content(source, cover.index)
            if kind == "matroska":
                output.add_attachment(*_COVERS[cover.codec_context.name], content)
            else:
                copy = output.add_stream_from_template(cover, opaque=True)
                copy.disposition = cover.disposition
                beside.append((av.Packet(content), copy))
        for attachment in _attachments(container, kind):
            output.add_stream_from_template(attachment)
        output.start_encoding()
        for packet, copy in beside:
            packet.stream, packet.pts, packet.dts, packet.is_keyframe = copy, 0, 0, True
            output.mux(packet)

        def pictures() -> Iterator[tuple[Any, Any]]:
            for packet in _pictures(parts, facts):
                yield packet, video

        def others() -> Iterator[tuple[Any, Any]]:
            if copies:
                for packet in _sound(container):
                    if packet.dts is not None:
                        yield packet, copies[packet.stream.index]

        for packet, stream in heapq.merge(pictures(), others(), key=_seconds):
            packet.stream = stream
            output.mux(packet)


def _pictures(parts: Sequence[Part], facts: Facts) -> Iterator[Any]:
    """The packets of the parts, each with its time and how long it is shown."""
    for number, part in enumerate(parts):
        if number + 1 < len(parts):
            end = parts[number + 1].times[0]
        else:
            end = part.times[-1] + (part.duration or facts.step)
        left = deque(zip(part.times, [*part.times[1:], end], strict=True))
        for packet in _packets(part):
            time, after = left.popleft()
            packet.time_base, packet.pts, packet.dts = facts.time_base, time, time
            packet.duration = after - time
            yield packet
        if left:
            raise FilmError(
                f"{part.path}: damaged, {len(left)} frames are missing; remove the folder"
                f" {part.path.parent} to begin anew"
            )


def _packets(part: Part) -> Iterator[Any]:
    """As far as the file goes."""
    av = need("video", "av")
    try:
        with opened(part.path) as container:
            packets = container.demux(film_stream(container, part.path))
            yield from islice((packet for packet in packets if packet.size), len(part.times))
    except (FilmError, av.InvalidDataError):
        return


def _sound(container: Any) -> Iterator[Any]:
    """The packets of sound and subtitles, up to where the file is damaged."""
    try:
        yield from container.demux(_copied(container))
    except need("video", "av").InvalidDataError:
        return


def _tell(copy: Any, stream: Any) -> None:
    """Give a stream the other's language, title, and what it is for."""
    kept = {k: v for k, v in stream.metadata.items() if not k.upper().startswith(_STATISTICS)}
    copy.metadata.update(kept)
    copy.disposition = stream.disposition


def _of_quicktime(tags: dict[str, str], kind: str) -> dict[str, str]:
    """What QuickTime and MP4 call a stream's title and language."""
    own = {"handler_name": tags["title"]} if "title" in tags else {}
    if kind == "mov" and tags.get("language") in _QUICKTIME:
        own["language"] = _QUICKTIME[tags["language"]]
    return own


def _copied(container: Any) -> list[Any]:
    return [s for s in container.streams if s.type in _COPIED and s.codec_context is not None]


def _tags(container: Any) -> dict[str, str]:
    return {k: v for k, v in container.metadata.items() if k not in _OF_FORMAT}


def _needs_keys(tags: dict[str, str], kind: str) -> bool:
    """Whether tags must go into QuickTime's list of keys."""
    return kind != "matroska" and not {tag.lower() for tag in tags} <= _PLAIN_TAGS


def _covers(container: Any, kind: str) -> list[Any]:
    """Covers that can be kept: not in QuickTime, nor beside its keys."""
    if kind == "mov" or _needs_keys(_tags(container), kind):
        return []
    found = (s for s in container.streams.video if s.codec_context is not None and is_cover(s))
    return [stream for stream in found if stream.codec_context.name in _COVERS]


def _content(source: Path, index: int) -> bytes:
    """The first packet of a stream."""
    with opened(source) as container:
        return next(bytes(p) for p in container.demux(container.streams[index]) if p.size)


def _attachments(container: Any, kind: str) -> list[Any]:
    if kind != "matroska":
        return []
    return [s for s in container.streams if s.type == "attachment"]


def _left_out(container: Any, source: Path, kind: str) -> list[Any]:
    kept = [film_stream(container, source), *_copied(container)]
    kept += [*_covers(container, kind), *_attachments(container, kind)]
    indices = {stream.index for stream in kept}
    return [stream for stream in container.streams if stream.index not in indices]


def _described(stream: Any) -> str:
    name = stream.metadata.get("filename") or stream.metadata.get("title") or ""
    what = "cover" if stream.type == "video" and is_cover(stream) else stream.type
    return f"stream {stream.index} ({' '.join(filter(None, [what, name]))})"


def _seconds(pair: tuple[Any, Any]) -> float:
    packet = pair[0]
    return float(packet.dts * packet.time_base)
