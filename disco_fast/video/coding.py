"""How films are encoded: the codecs to choose from, and parts of a film."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .._extras import need
from .fields import graph, pulled
from .film import Facts, FilmError, Frame, scaling

CODECS = ("h264", "hevc", "prores", "ffv1")
_ENCODERS = {"h264": "libx264", "hevc": "libx265", "prores": "prores_ks", "ffv1": "ffv1"}
_FIELDS = ("h264", "prores")  # what can be written interlaced
_GLOBAL_HEADER, _INTERLACED_DCT, _INTERLACED_MOTION = 1 << 22, 1 << 18, 1 << 29
_BT709 = 1  # of FFmpeg's matrices, primaries and transfer functions
_LIMITED = 1  # of its ranges: 16 to 235


class Coding(NamedTuple):
    """How a film is encoded.

    Attributes:
        codec: one of `CODECS`.
        quality: the constant rate factor of H.264 and HEVC, 0 to 51, the lower the better.
        interlaced: whether frames are written as two fields.
    """

    codec: str
    quality: int
    interlaced: bool = False

    def pixel_format(self, facts: Facts) -> str:
        """How samples are stored: no fewer bits than the film has, but at most 10 (FFV1: 16)."""
        if self.codec == "prores":
            return "yuv422p10le"
        kind = "yuv444p" if self.codec == "ffv1" else "yuv420p"
        if facts.depth == 8:
            return kind
        if facts.depth <= 10 or self.codec != "ffv1":
            return f"{kind}10le"
        return f"{kind}{12 if facts.depth <= 12 else 16}le"

    def size(self, facts: Facts) -> tuple[int, int]:
        """(width, height): even, but for FFV1, since players show no other 4:2:0."""
        if self.codec == "ffv1":
            return facts.width, facts.height
        return facts.width + facts.width % 2, facts.height + facts.height % 2

    @property
    def parts(self) -> str:
        """The format of files for parts: one that any program writes as any other."""
        return "mov" if self.codec == "prores" else "nut"


def choose(facts: Facts, codec: str | None, quality: int, keep_interlaced: bool) -> Coding:
    """The coding of a film like that of the facts.

    Args:
        facts: of the film.
        codec: one of `CODECS`, or None for the one that most players know: H.264, and HEVC for
            films of more than 8 bits.
        quality: as `Coding` has it.
        keep_interlaced: write an interlaced film as one.

    Raises:
        FilmError: the codec cannot be written interlaced.
    """
    chosen = codec or ("h264" if facts.depth == 8 or _fields(facts, keep_interlaced) else "hevc")
    if _fields(facts, keep_interlaced) and chosen not in _FIELDS:
        raise FilmError(f"--keep-interlaced: expected --codec {' or '.join(_FIELDS)}, got {chosen}")
    return Coding(chosen, quality, _fields(facts, keep_interlaced))


def add_film(container: Any, facts: Facts, coding: Coding) -> Any:
    """A stream for the pictures of a film, in a container to be written.

    Raises:
        ValueError: the container's format cannot hold it.
    """
    # Without B-frames packets have the order of frames, so that parts can follow one another.
    options = {
        # x264's macroblock tree does not always give the same packets for the same frames.
        "h264": {
            "crf": str(coding.quality),
            "bf": "0",
            "preset": "medium",
            "x264-params": "mbtree=0",
        },
        "hevc": {
            "crf": str(coding.quality),
            "preset": "medium",
            "x265-params": "bframes=0:open-gop=0:info=0:log-level=none",
        },
        "prores": {"profile": "hq", "vendor": "apl0"},
        "ffv1": {"level": "3", "slicecrc": "1", "g": "1"},
    }[coding.codec]
    stream = container.add_stream(_ENCODERS[coding.codec], rate=facts.rate, options=options)
    context = stream.codec_context
    context.width, context.height = coding.size(facts)
    context.pix_fmt = coding.pixel_format(facts)
    context.time_base = facts.time_base
    context.sample_aspect_ratio = facts.aspect
    context.colorspace = context.color_primaries = context.color_trc = _BT709
    context.color_range = _LIMITED
    context.flags |= _GLOBAL_HEADER  # some formats want it, all take it
    if coding.codec == "hevc" and container.format.name in ("mp4", "mov"):
        context.codec_tag = "hvc1"  # the only one that Apple's players know
    if coding.interlaced:
        context.flags |= _INTERLACED_DCT | _INTERLACED_MOTION
        context.field_order = 2 if facts.top_first else 3
    return stream


def write_part(path: Path, facts: Facts, frames: Iterable[Frame], coding: Coding) -> None:
    """Frames as a film of its own, whose packets are in their order, one of each.

    Args:
        path: written to.
        facts: of the whole film.
        frames: RGB of the film's size.
        coding: of the whole film.
    """
    av = need("video", "av")
    with av.open(str(path), "w", format=coding.parts) as container:
        stream = add_film(container, facts, coding)
        for frame in _stored(frames, facts, coding):
            frame.colorspace = frame.color_primaries = frame.color_trc = _BT709
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _stored(frames: Iterable[Frame], facts: Facts, coding: Coding) -> Iterator[Any]:
    """Frames as the encoder takes them."""
    av = need("video", "av")
    kind = coding.pixel_format(facts)
    fields = None
    for pixels, time, _ in frames:
        name = "rgb24" if pixels.dtype == np.uint8 else "rgb48le"
        frame = av.VideoFrame.from_ndarray(_padded(pixels, coding.size(facts)), format=name)
        frame.pts, frame.time_base = time, facts.time_base
        if coding.interlaced:
            fields = fields or graph(frame, *_as_fields(facts, kind))
            fields.vpush(frame)
            yield from pulled(fields)
        else:
            yield frame.reformat(
                format=kind,
                dst_colorspace=av.video.reformatter.Colorspace.ITU709,
                dst_color_range=av.video.reformatter.ColorRange.MPEG,
                interpolation=scaling(),
            )


def _as_fields(facts: Facts, kind: str) -> list[tuple[str, str]]:
    order = "tff" if facts.top_first else "bff"
    accurate = "flags=bilinear+accurate_rnd+full_chroma_int+full_chroma_inp"
    scale = f"interl=1:out_color_matrix=bt709:out_range=tv:{accurate}"
    return [("setfield", f"mode={order}"), ("scale", scale), ("format", f"pix_fmts={kind}")]


def _padded(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """With the last column and row once more where the size wants it."""
    height, width = pixels.shape[:2]
    if (width, height) != size:
        pixels = np.pad(pixels, ((0, size[1] - height), (0, size[0] - width), (0, 0)), "edge")
    return np.ascontiguousarray(pixels)


def _fields(facts: Facts, keep_interlaced: bool) -> bool:
    return keep_interlaced and facts.interlaced
