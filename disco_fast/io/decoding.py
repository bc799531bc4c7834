"""From the bytes of a picture file to pictures in sRGB, by libvips.

Every format has its own loader, called by name: none of those that libvips also has, for drawings
or tables, is ever tried on bytes of a stranger.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from threading import Lock
from typing import Any

import numpy as np

from . import other_decoders, tiff_pages, tiff_tags
from .blocks import gif_is_cut, jpeg_segments, png_profile
from .bounds import DECODING, check_pixels
from .libvips import forget_errors, pyvips
from .metadata import Kept, field, of_image, of_tiff
from .picture import ImageFileError, Pages, Picture
from .tiff_tags import Directory, TagsError

# How much damage is an error: libtiff and libpng also warn of what harms no sample.
_LOADERS = {
    "JPEG": ("jpegload_buffer", "warning"),
    "PNG": ("pngload_buffer", "error"),
    "TIFF": ("tiffload_buffer", "error"),
    "BigTIFF": ("tiffload_buffer", "error"),
    "WebP": ("webpload_buffer", "error"),
    "GIF": ("gifload_buffer", "error"),
    "AVIF": ("heifload_buffer", "error"),
}
_PROFILE = "icc-profile-data"
_ANIMATED = ("GIF", "WebP")
_DTYPES = {"uchar": np.uint8, "ushort": np.uint16}
_COLORS = {"b-w": 1, "grey16": 1, "cmyk": 4}  # samples that are no alpha; of all others three
_XMP, _PHOTOSHOP, _ICC = 700, 34377, 34675  # tags of TIFF
_DAMAGED = "not a picture in a known format, or damaged, or cut short"
_NOT_READ = re.compile("not read|unsupported|not supported|not implemented", re.IGNORECASE)
_STRAY = re.compile(r"(\d+) extraneous bytes before marker 0xd9")
_NO_END = "premature end of JPEG image"
_ALONE = Lock()
_STRAY_BYTES = 64  # before the end of a JPEG; some cameras leave a few


def decode(data: bytes, kind: str | None, megapixels: float, only_first: bool) -> Pages:
    """The pictures of a file.

    Args:
        data: the file.
        kind: of `kind_of`.
        megapixels: the most that it may have, over all pages.
        only_first: leave out all but the first.

    Raises:
        ImageFileError: it is not known, or not sound, or holds what cannot be shown in sRGB.
        TooLargeError: see `check_pixels`.
    """
    if kind is None:
        raise ImageFileError(_DAMAGED)
    try:
        if kind not in _LOADERS:
            return Pages((_other(data, kind, megapixels),))
        if kind in ("TIFF", "BigTIFF"):
            return Pages(tuple(_tiff(data, megapixels, only_first)))
        return _raster(data, kind, megapixels, only_first)
    except (pyvips.Error, TagsError, UnicodeDecodeError) as error:  # the last: of its own message
        said = _said(error)
        forget_errors()
        known = "of a kind that is not read" if _NOT_READ.search(said) else _DAMAGED
        raise ImageFileError(f"{known} ({kind}: {said})") from error


def measure(data: bytes, kind: str, megapixels: float) -> int:
    """Pixels of the first picture of a file, by its header; none of it is decoded.

    Args:
        data: the file.
        kind: of `kind_of`, one that libvips reads.
        megapixels: the most that it may have.

    Raises:
        ImageFileError: its header is damaged.
        TooLargeError: see `check_pixels`.
    """
    try:
        if kind in ("TIFF", "BigTIFF"):
            width, height = tiff_pages.size(tiff_pages.full_pictures(data)[0])
        else:
            image = _load(data, kind)
            width, height = image.width, image.height
    except (pyvips.Error, TagsError, UnicodeDecodeError, IndexError) as error:
        raise ImageFileError(f"damaged, or cut short ({kind}: {_said(error)})") from error
    check_pixels([(width, height)], len(data), megapixels)
    return width * height


def _said(error: Exception) -> str:
    """What libvips says of a file, without what it says of itself."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[min(1, len(lines) - 1)]


def _load(data: bytes, kind: str, **options: Any) -> pyvips.Image:
    loader, fail_on = _LOADERS[kind]
    image = getattr(pyvips.Image, loader)(
        data, **{"access": "sequential", "fail_on": fail_on, **options}
    )
    if kind == "PNG" and field(image, _PROFILE) is None and (profile := png_profile(data)):
        image = image.copy()
        image.set_type(pyvips.GValue.blob_type, _PROFILE, profile)
    return image


def _samples(image: pyvips.Image) -> np.ndarray:
    """(H, W, C)."""
    memory = image.write_to_memory()
    dtype = _DTYPES[image.format]
    return np.frombuffer(memory, dtype).reshape(image.height, image.width, image.bands)


def _check(image: pyvips.Image) -> None:
    if image.format not in _DTYPES:
        raise ImageFileError(f"its samples are {image.format}; only 8 and 16 bits are read")
    colors = _COLORS.get(image.interpretation, 3)
    if image.bands - colors not in (0, 1):
        raise ImageFileError(f"{image.bands} samples a pixel: save it as gray, RGB or RGBA")


def _raster(data: bytes, kind: str, megapixels: float, only_first: bool) -> Pages:
    if not only_first and _is_animation(data, kind):
        return _animation(data, kind, megapixels)
    if kind == "GIF" and gif_is_cut(data):
        raise pyvips.Error("it ends within a frame")
    image = _load(data, kind)
    count = image.get("n-pages") if kind in _ANIMATED and image.get_typeof("n-pages") else 1
    count = 1 if only_first else count
    check_pixels([(image.width, image.height)] * count, len(data), megapixels)
    _check(image)
    kept = of_image(image, kind, data)
    # libheif turns pictures by itself.
    turned = kind != "AVIF" and image.get_typeof("orientation")
    orientation = image.get("orientation") if turned else 1
    with DECODING.taken(image.width * image.height * count):
        if count > 1:
            image = _load(data, kind, n=-1)
            pixels, alpha = _split(image)
            times, loops = tuple(image.get("delay")), image.get("loop")
            return Pages(_frames(pixels, alpha, count, kept), times, loops)
        pixels, alpha = _jpeg(image, data) if kind == "JPEG" else _split(image)
    return Pages((_upright(pixels, alpha, orientation, kept),))


def _is_animation(data: bytes, kind: str) -> bool:
    """Whether there are frames that libvips does not know of."""
    if kind == "PNG":
        return data.find(b"acTL", 0, data.find(b"IDAT")) >= 0
    return kind == "AVIF" and data[8:12] == b"avis"


def _animation(data: bytes, kind: str, megapixels: float) -> Pages:
    """An animated PNG or AVIF, of which libvips knows the first frame only."""
    head = _load(data, kind)
    frames, times, loops = other_decoders.frames(data, kind, megapixels)
    kept, profile = of_image(head, kind, data), field(head, _PROFILE)
    pictures = [Picture(*_split(_of_samples(frame, profile)), kept) for frame in frames]
    return Pages(tuple(pictures), times, loops)


def _frames(
    pixels: np.ndarray, alpha: np.ndarray | None, count: int, kept: Kept
) -> tuple[Picture, ...]:
    """The frames of an animation, which libvips gives one below the other."""
    all_pixels = pixels.reshape(count, -1, *pixels.shape[1:])
    if alpha is None:
        return tuple(Picture(frame, None, kept) for frame in all_pixels)
    all_alpha = alpha.reshape(count, -1, alpha.shape[1])
    return tuple(Picture(*pair, kept) for pair in zip(all_pixels, all_alpha, strict=True))


def _jpeg(image: pyvips.Image, data: bytes) -> tuple[np.ndarray, np.ndarray | None]:
    """Samples of a JPEG; damage that costs none of them is forgiven."""
    if image.interpretation == "cmyk":
        markers = {data[start : start + 5] for _, start, _ in jpeg_segments(data)}
        if b"Adobe" not in markers:
            image = _as_ink(image.copy_memory())
    try:
        return _split(image)
    except pyvips.Error:
        damage = _damage(data)
        stray = [_STRAY.search(line) for line in damage]
        if damage and all(found and int(found[1]) <= _STRAY_BYTES for found in stray):
            return _split(_load(data, "JPEG", fail_on="error"))
        if any(_NO_END in line for line in damage) and not image.get("jpeg-multiscan"):
            return _split(_load(data + b"\xff\xd9", "JPEG"))  # fails again if samples are missing
        raise


def _damage(data: bytes) -> list[str]:
    """What libvips has to say of a JPEG, without what it still had to say of other files."""
    with _ALONE:
        forget_errors()
        try:
            _load(data, "JPEG").copy_memory()
        except pyvips.Error as damage:
            return [line for line in str(damage).splitlines()[1:] if line.strip()]
    return []


def _as_ink(image: pyvips.Image) -> pyvips.Image:
    """CMYK that may be the wrong way round: no paper takes more than three full inks."""

    def too_much(ink: np.ndarray) -> int:
        return int((ink.sum(axis=2, dtype=np.int64) - 3 * 255).clip(0).sum())

    ink = _samples(image)
    return image if too_much(ink) <= too_much(255 - ink) else image.invert()


def _split(image: pyvips.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """Gray or RGB in sRGB, and alpha if there is one."""
    colors = _COLORS.get(image.interpretation, 3)
    profile = field(image, _PROFILE)
    if colors < 4 and (profile is None or _says_srgb(profile, colors)):
        samples = _samples(image)
    else:
        image = image.copy_memory()
        samples = _samples(_in_srgb(image[:colors] if image.bands > colors else image))
        if image.bands > colors:
            samples = np.concatenate([samples, _samples(image[colors])], axis=2)
    if samples.shape[2] in (1, 3):
        return samples, None
    return np.ascontiguousarray(samples[..., :-1]), np.ascontiguousarray(samples[..., -1])


def _in_srgb(image: pyvips.Image) -> pyvips.Image:
    """By the profile of the picture, or as is usual without."""
    colors = _COLORS.get(image.interpretation, 3)
    deep = image.format == "ushort"
    if colors == 4 and field(image, _PROFILE) is None:
        most = 65535 if deep else 255
        light = (most - image[:3]) * ((most - image[3]) / most)
        return light.rint().cast(image.format).copy(interpretation="rgb16" if deep else "srgb")
    try:
        depth = 16 if deep else 8
        shown = image.icc_transform("srgb", embedded=True, intent="perceptual", depth=depth)
        return shown[1] if colors == 1 else shown
    except pyvips.Error:  # a profile of something else, which viewers pass over
        return image


@lru_cache(maxsize=64)
def _says_srgb(profile: bytes, colors: int) -> bool:
    """Whether a profile changes no sample by more than 1 of 255; so then they stay as they are."""
    ramp = np.arange(0, 256, 3, dtype=np.uint8)[:, None]
    probe = np.concatenate([ramp * mask for mask in _masks(colors)])[None]
    image = pyvips.Image.new_from_memory(
        np.ascontiguousarray(probe).data, probe.shape[1], 1, colors, "uchar"
    ).copy(interpretation="b-w" if colors == 1 else "srgb")
    image.set_type(pyvips.GValue.blob_type, _PROFILE, profile)
    shown = _samples(_in_srgb(image)).astype(int)
    return bool(np.abs(shown - probe).max() <= 1)


def _masks(colors: int) -> Sequence[np.ndarray]:
    """Which colors of a probe take part in a ramp."""
    if colors == 1:
        return [np.ones(1, np.uint8)]
    return [np.array([n & 1, n >> 1 & 1, n >> 2], np.uint8) for n in range(1, 8)]


def _upright(pixels: np.ndarray, alpha: np.ndarray | None, orientation: int, kept: Kept) -> Picture:
    turned = None if alpha is None else _turned(alpha, orientation)
    if orientation in (5, 6, 7, 8) and kept.resolution:
        kept = replace(kept, resolution=kept.resolution[::-1])
    return Picture(_turned(pixels, orientation), turned, kept)


def _turned(samples: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation, 1 to 8; any other number means nothing, and leaves it as it is."""
    if orientation in (5, 6, 7, 8):
        samples = samples.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    return np.ascontiguousarray(samples)


# ---- TIFF ---------------------------------------------------------------------------------------


def _tiff(data: bytes, megapixels: float, only_first: bool) -> list[Picture]:
    wanted = tiff_pages.full_pictures(data)[: 1 if only_first else None]
    if not wanted:
        raise TagsError("no picture in it")
    sizes = [tiff_pages.size(page) for page in wanted]
    check_pixels(sizes, len(data), megapixels)
    with DECODING.taken(sum(width * height for width, height in sizes)):
        return [_tiff_page(data, page) for page in wanted]


def _tiff_page(data: bytes, directory: Directory) -> Picture:
    colors = tiff_tags.number(directory, tiff_pages.PHOTOMETRIC, 0)
    lab = colors in (tiff_pages.CIELAB, tiff_pages.ICCLAB)
    # libvips knows some of these only: told that they are RGB, it gives them as they are.
    changes: Directory = {tiff_pages.PHOTOMETRIC: tiff_tags.shorts(tiff_pages.RGB)} if lab else {}
    page = tiff_pages.alone(data, directory, changes)
    image = _load(page.data, "TIFF", fail_on="warning" if page.strict else "error")
    if page.finished:
        samples, is_ink = page.finished(_samples(image)), image.interpretation == "cmyk"
        image = _of_samples(samples, _block(directory, _ICC), is_ink)
    if (image.width, image.height) != tiff_pages.size(directory):
        raise TagsError("its size is damaged")
    _check(image)
    if lab:
        image = _from_lab(image, offset=colors == tiff_pages.ICCLAB)
    pixels, alpha = _split(image)
    xmp, photoshop = (_block(directory, tag) for tag in (_XMP, _PHOTOSHOP))
    orientation = tiff_tags.number(directory, tiff_tags.ORIENTATION, 1)
    return _upright(pixels, alpha, orientation, of_tiff(directory, xmp, photoshop))


def _block(directory: Directory, tag: int) -> bytes | None:
    entry = directory.get(tag)
    return entry.data if isinstance(entry, tiff_tags.Entry) else None


def _from_lab(image: pyvips.Image, offset: bool) -> pyvips.Image:
    """CIE Lab as TIFF has it, L full range and a, b signed or offset, in sRGB of that depth."""
    image = image.copy_memory()
    most, signed, scale = (255, "char", 1.0) if image.format == "uchar" else (65535, "short", 256.0)
    if offset and most > 255:
        raise ImageFileError("ICC Lab of 16 bits is not read: save it as RGB")
    chroma = (image[1:3] ^ (128 if offset else 0)).copy_memory()
    chroma = chroma.copy(format=signed).cast("float") / scale
    lightness = image[0] * (100.0 / most)
    lab = lightness.bandjoin(chroma).copy(interpretation="lab")
    deep = most > 255
    shown = lab.colourspace("rgb16" if deep else "srgb")
    return shown if image.bands == 3 else shown.bandjoin(image[3])


def _other(data: bytes, kind: str, megapixels: float) -> Picture:
    """A picture of a format that libvips lacks."""
    samples, profile, kept = other_decoders.decode(data, kind, megapixels)
    return Picture(*_split(_of_samples(samples, profile)), kept)


def _of_samples(samples: np.ndarray, profile: bytes | None, is_ink: bool = False) -> pyvips.Image:
    height, width, bands = samples.shape
    deep = samples.dtype == np.uint16
    names = ("grey16", "rgb16") if deep else ("b-w", "srgb")
    image = pyvips.Image.new_from_memory(
        np.ascontiguousarray(samples).data, width, height, bands, "ushort" if deep else "uchar"
    ).copy(interpretation="cmyk" if is_ink else names[bands > 2])
    if profile:
        image.set_type(pyvips.GValue.blob_type, _PROFILE, profile)
    return image
