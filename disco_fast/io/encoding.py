"""From pictures to the bytes of a file, by libvips."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .kinds import JPEG_SUFFIXES, SUFFIXES, TIFF_SUFFIXES
from .libvips import pyvips
from .metadata import Kept, finish_jpeg, finish_png, finish_tiff, put
from .picture import ImageFileError, Pages, Picture


class _Format(NamedTuple):
    """How libvips writes a format: its saver and options, and what the format holds."""

    saver: str
    options: dict[str, Any]
    quality: int | None = None
    longest: int = 2**31 - 1
    deep: bool = False
    animated: bool = False


# Chroma is smooth, so half its resolution is enough for JPEG. PNG is written fast.
_JPEG = _Format("jpegsave_buffer", {"subsample_mode": "on"}, 95, 65_500)
_TIFF = _Format("tiffsave_buffer", {"compression": "lzw", "predictor": "horizontal"}, deep=True)
_FORMATS = {
    **{suffix: _JPEG for suffix in JPEG_SUFFIXES},
    **{suffix: _TIFF for suffix in TIFF_SUFFIXES},
    ".png": _Format("pngsave_buffer", {"compression": 1, "filter": "sub"}, deep=True),
    ".webp": _Format("webpsave_buffer", {}, 95, 16_383, animated=True),
    ".gif": _Format("gifsave_buffer", {}, None, 65_535, animated=True),
    ".avif": _Format("heifsave_buffer", {"compression": "av1", "effort": 2}, 85, 16_384, deep=True),
}
_LARGE_TIFF = 2**32 - 2**24  # bytes of samples, which a plain TIFF may not hold


def encode(pages: Pages, suffix: str, quality: int | None) -> bytes:
    """The bytes of a file.

    Args:
        pages: the pictures.
        suffix: of the file, in lower case.
        quality: of a lossy format, 1 to 100; None: 95, and 85 for AVIF.

    Raises:
        ImageFileError: the format cannot hold the pictures.
    """
    if suffix not in SUFFIXES:
        raise ImageFileError(f"pictures are written as {' '.join(SUFFIXES)}, not {suffix or 'so'}")
    form = _FORMATS[suffix]
    _check(pages, suffix, form)
    images = [_image(picture, suffix, form) for picture in pages.pictures]
    options = dict(form.options)
    if form.quality:
        options["Q"] = quality or form.quality
    if form is _TIFF:
        total = sum(image.width * image.height * image.bands * 2 for image in images)
        options["bigtiff"] = total > _LARGE_TIFF
    try:
        if pages.times and form.animated:
            return _saved(_animation(images, pages), form, options)
        pairs = zip(images, pages.pictures, strict=True)
        files = [_saved(image, form, options | _blocks(p.kept)) for image, p in pairs]
    except pyvips.Error as error:
        raise ImageFileError(f"libvips refuses to encode it ({str(error).strip()})") from error
    return _finished(files, form, [picture.kept for picture in pages.pictures])


def _check(pages: Pages, suffix: str, form: _Format) -> None:
    count = len(pages.pictures)
    if count > 1 and form is not _TIFF and not (pages.times and form.animated):
        several = (*TIFF_SUFFIXES, *((".webp", ".gif") if pages.times else ()))
        raise ImageFileError(f"{suffix} holds one picture, not {count}: choose {' '.join(several)}")
    for picture in pages.pictures:
        height, width = picture.pixels.shape[:2]
        if max(height, width) > form.longest:
            raise ImageFileError(f"{width} x {height} pixels are too many for {suffix}")


def _image(picture: Picture, suffix: str, form: _Format) -> pyvips.Image:
    samples = _samples(picture, with_alpha=form is not _JPEG)
    if not form.deep and samples.dtype == np.uint16:
        samples = ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)
    height, width, bands = samples.shape
    deep = samples.dtype == np.uint16
    image = pyvips.Image.new_from_memory(
        samples.data, width, height, bands, "ushort" if deep else "uchar"
    )
    names = ("grey16", "rgb16") if deep else ("b-w", "srgb")
    return put(image.copy(interpretation=names[bands > 2]), picture.kept, suffix)


def _samples(picture: Picture, with_alpha: bool) -> np.ndarray:
    """(H, W, 1) or (H, W, RGB), and last the alpha if any, with RGB ahead of it."""
    pixels, alpha = picture.pixels, picture.alpha
    if alpha is None:
        return np.ascontiguousarray(pixels)
    if with_alpha:
        colors = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
        return np.ascontiguousarray(np.concatenate([colors, alpha[..., None]], axis=2))
    if (alpha != np.iinfo(alpha.dtype).max).any():
        raise ImageFileError("JPEG cannot hold its alpha channel: choose PNG, TIFF or WebP")
    return np.ascontiguousarray(pixels)


def _saved(image: pyvips.Image, form: _Format, options: dict[str, Any]) -> bytes:
    if image.bands > 2 and form.saver != "gifsave_buffer":
        options = {**options, "profile": "srgb"}
    return getattr(image, form.saver)(**options)


def _blocks(kept: Kept) -> dict[str, str]:
    """What libvips may write: it makes up an EXIF block where there is nothing to say."""
    nothing = kept.exif is None and kept.resolution is None
    return {"keep": "icc:xmp:iptc:other"} if nothing else {}


def _finished(files: list[bytes], form: _Format, kept: list[Kept]) -> bytes:
    if form is _TIFF:
        return finish_tiff(files, kept)
    if form is _JPEG:
        return finish_jpeg(files[0], kept[0])
    return finish_png(files[0], kept[0]) if form is _FORMATS[".png"] else files[0]


def _animation(images: list[pyvips.Image], pages: Pages) -> pyvips.Image:
    tall = pyvips.Image.arrayjoin(images, across=1).copy()
    tall.set_type(pyvips.GValue.gint_type, "page-height", images[0].height)
    tall.set_type(pyvips.GValue.array_int_type, "delay", list(pages.times or ()))
    tall.set_type(pyvips.GValue.gint_type, "loop", pages.loops)
    return tall
