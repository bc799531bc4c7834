"""Films in VapourSynth: clips in colors that stay from frame to frame.

from disco_fast.integrations.vapoursynth import colorize
colorize(core.bs.VideoSource("film.mkv")).set_output()
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..colorizer import Colorizer
from ..options import AnchorSettings, ColorizeOptions
from ..video.seeking import Seeker
from ..video.tracking import Tracker

if TYPE_CHECKING:
    from typing_extensions import Unpack

_UNKNOWN = 2  # of the matrices of ITU-T H.273, as are the next two
_BT709, _BT601 = 1, 6
# As the functions of `resize` have always had them, unlike VapourSynth's enum.
_LIMITED, _FULL = 0, 1
_SQUEEZED = {8: "linear light", 16: "PQ", 18: "HLG"}
"""Transfer functions whose samples are no lightness as the network knows it."""
_MOST_BITS = 16  # of integers that VapourSynth itself can convert


class _Coding(NamedTuple):
    """How a frame's samples are meant, in VapourSynth's numbers.

    Attributes:
        matrix: from YUV to RGB.
        range: 0, limited, or 1, full.
        location: of the chroma samples; None if the frame does not say.
    """

    matrix: int
    range: int
    location: int | None


def colorize(
    clip: Any,
    *,
    checkpoint: str | Path | None = None,
    device: torch.device | str | None = None,
    precision: str = "auto",
    **settings: Unpack[AnchorSettings],
) -> Any:
    """A clip in color, its anchors followed from frame to frame as by ``disco-fast video``.

    Only the lightness of the clip is used. Matrix, range and chroma location are those of each
    frame's properties; a matrix that is not given is taken to be BT.709 for clips wider than 1024
    or higher than 576 pixels, else BT.601. Frames may be asked for in any order and always look
    the same, but a jump costs all frames since the cut before it (see `video.seeking.Seeker`).
    One frame at a time is computed, by all threads of torch.

    Args:
        clip: a `vapoursynth.VideoNode` of one format and size: RGB, YUV or gray of 8 to 16 bits,
            or floating.
        checkpoint: as for `Colorizer`.
        device: as for `Colorizer`.
        precision: as for `Colorizer`.
        settings: `ColorizeOptions` by name; the number of anchors is not "auto".

    Returns:
        A clip of the same format; of a gray clip, RGB of the same type and bits. A frame that is
        interlaced, or of linear light, PQ or HLG, raises `vapoursynth.Error` when it is asked for.

    Raises:
        ImportError: VapourSynth is not installed; the message names the extra.
        TypeError, ValueError, FileNotFoundError: naming the argument that does not fit.
    """
    vs = _need_vapoursynth()
    _check_clip(vs, clip)
    options = ColorizeOptions(**settings)
    if isinstance(options.n_anchors, str):
        raise TypeError(f"n_anchors: expected an int, got {options.n_anchors!r}")
    n_anchors = options.n_anchors
    engine = Colorizer(checkpoint, device, precision).engine

    def begin() -> Tracker:
        return Tracker(
            engine,
            n_anchors,
            options.seed,
            options.working_size,
            vividness=options.vividness,
        )

    rgb = _to_rgb(vs, clip)
    return _from_rgb(vs, _colored(vs, rgb, Seeker(begin, vs.core.num_threads)), clip)


def _need_vapoursynth() -> Any:
    try:
        import vapoursynth
    except ImportError as error:
        raise ImportError(
            "clips need VapourSynth, whose wheels are for Python 3.12 and later: python -m pip"
            " install 'disco_fast[vapoursynth]', or in a checkout python -m pip install"
            " '.[vapoursynth]'"
        ) from error
    return vapoursynth


def _check_clip(vs: Any, clip: Any) -> None:
    if not isinstance(clip, vs.VideoNode):
        raise TypeError(f"clip: expected a vapoursynth.VideoNode, got {type(clip).__name__}")
    if clip.format is None or clip.format.color_family == vs.UNDEFINED or not clip.width:
        raise ValueError("clip: expected one format and size, got a clip of varying ones")
    if clip.format.sample_type == vs.INTEGER and clip.format.bits_per_sample > _MOST_BITS:
        raise ValueError(f"clip: expected 8 to {_MOST_BITS} bits, got {clip.format.name}")


def _to_rgb(vs: Any, clip: Any) -> Any:
    """RGB of the full range: of 8 bits if that is what the clip has, else fp32 0-1."""
    given = clip.format
    kind = vs.RGB24 if given.id in (vs.RGB24, vs.GRAY8) else vs.RGBS

    def converted(coding: _Coding) -> Any:
        matrix = {"matrix_in": coding.matrix} if given.color_family == vs.YUV else {}
        return clip.resize.Bicubic(format=kind, range=_FULL, **matrix)

    return _by_coding(vs, clip, kind, converted)


def _from_rgb(vs: Any, rgb: Any, clip: Any) -> Any:
    """RGB as the clip has it."""
    given = clip.format
    kind = given.id
    if given.color_family == vs.GRAY:
        kind = vs.core.query_video_format(vs.RGB, given.sample_type, given.bits_per_sample).id

    def converted(coding: _Coding) -> Any:
        if given.color_family == vs.GRAY:
            return rgb.resize.Bicubic(format=kind)
        if given.color_family == vs.RGB:
            return rgb.resize.Bicubic(format=kind, range=coding.range)
        location = {} if coding.location is None else {"chromaloc": coding.location}
        return rgb.resize.Bicubic(format=kind, matrix=coding.matrix, range=coding.range, **location)

    return _by_coding(vs, clip, kind, converted)


def _by_coding(vs: Any, clip: Any, kind: int, convert: Callable[[_Coding], Any]) -> Any:
    """A clip of format `kind`, each frame converted as the same frame of `clip` is coded."""
    converted = lru_cache(maxsize=8)(convert)
    template = vs.core.std.BlankClip(clip, format=kind, keep=True)
    return vs.core.std.FrameEval(template, lambda n, f: converted(_coding(vs, n, f)), prop_src=clip)


def _coding(vs: Any, n: int, frame: Any) -> _Coding:
    """How frame n is coded.

    Raises:
        ValueError: in a way that has to be undone first.
    """
    props = frame.props
    if (transfer := props.get("_Transfer")) in _SQUEEZED:
        raise ValueError(
            f"clip: expected samples of ordinary range, got {_SQUEEZED[transfer]} in frame {n}:"
            " convert it first, or correct its property _Transfer"
        )
    if props.get("_FieldBased", 0):
        raise ValueError(
            f"clip: expected progressive frames, frame {n} is interlaced: deinterlace it first,"
            " or correct its property _FieldBased"
        )
    matrix = props.get("_Matrix", _UNKNOWN)
    if matrix == _UNKNOWN:
        matrix = _BT709 if frame.width > 1024 or frame.height > 576 else _BT601
    usual = _FULL if frame.format.color_family == vs.RGB else _LIMITED
    if "_Range" in props or "_ColorRange" not in props:
        given = props.get("_Range", usual)
    else:  # before VapourSynth 74, with the opposite meaning
        given = _FULL - props["_ColorRange"]
    return _Coding(int(matrix), int(given), props.get("_ChromaLocation"))


def _colored(vs: Any, rgb: Any, seeker: Seeker) -> Any:
    """The same clip in color."""

    def frame(n: int, f: Any) -> Any:
        picture = seeker.colorize(n, lambda k: _tensor(f if k == n else rgb.get_frame(k)))
        result = f.copy()
        for plane, samples in enumerate(picture.numpy()):
            np.copyto(np.asarray(result[plane]), samples)
        return result

    return vs.core.std.ModifyFrame(rgb, rgb, frame)


def _tensor(frame: Any) -> Tensor:
    """The samples of RGB, [3,H,W]."""
    return torch.from_numpy(np.stack([np.asarray(frame[plane]) for plane in range(3)]))
