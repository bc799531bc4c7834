"""From the bytes of a picture file to pictures in sRGB, by libvips.

Every format has its own loader, called by name: none of those that libvips also has, for drawings
or tables, is ever tried on bytes of a stranger.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from . import other_decoders, tiff_tags
from .blocks import gif_is_cut, jpeg_segments
from .bounds import DECODING, check_pixels
from .libvips import pyvips
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
_ANIMATED = ("GIF", "WebP")
_DTYPES = {"uchar": np.uint8, "ushort": np.uint16}
_COLORS = {"b-w": 1, "grey16": 1, "cmyk": 4}  # samples that are no alpha; of all others three
_STRAY_BYTES = 64  # before the end of a JPEG; some cameras leave a few

# Tags of a TIFF page that decide how its samples are read.
_SUBFILE, _OLD_SUBFILE, _WIDTH, _HEIGHT = 254, 255, 256, 257
_PHOTOMETRIC = 262
_REDUCED, _MASK, _OLD_REDUCED, _RGB, _CIELAB = 1, 4, 2, 2, 8


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
        raise ImageFileError("not a picture in a known format, or damaged, or cut short")
    try:
        if kind not in _LOADERS:
            return Pages((_other(data, kind, megapixels),))
        if kind in ("TIFF", "BigTIFF"):
            return Pages(tuple(_tiff(data, megapixels, only_first)))
        return _raster(data, kind, megapixels, only_first)
    except (pyvips.Error, TagsError, UnicodeDecodeError) as error:  # the last: of its own message
        raise ImageFileError(
            f"not a picture in a known format, or damaged, or cut short ({kind}: {_said(error)})"
        ) from error


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
            directories = tiff_tags.read(data)
            width, height = _size(directories[_full_pictures(directories)[0]])
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
    return getattr(pyvips.Image, loader)(
        data, **{"access": "sequential", "fail_on": fail_on, **options}
    )


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
        raise ImageFileError(f"{image.bands} samples a pixel: save it as grey, RGB or RGBA")


def _raster(data: bytes, kind: str, megapixels: float, only_first: bool) -> Pages:
    if not only_first and kind == "PNG" and data.find(b"acTL", 0, data.find(b"IDAT")) >= 0:
        return _animated_png(data, megapixels)
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


def _animated_png(data: bytes, megapixels: float) -> Pages:
    """An animated PNG, of which libvips knows the first frame only."""
    head = _load(data, "PNG")
    frames, times, loops = other_decoders.apng_frames(data, megapixels)
    kept, profile = of_image(head, "PNG", data), field(head, "icc-profile-data")
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
    except pyvips.Error as damage:
        stray = re.search(r"(\d+) extraneous bytes before marker 0xd9", str(damage))
        if stray and int(stray[1]) <= _STRAY_BYTES:
            return _split(_load(data, "JPEG", fail_on="error"))
        if "premature end of JPEG image" in str(damage) and not image.get("jpeg-multiscan"):
            return _split(_load(data + b"\xff\xd9", "JPEG"))  # fails again if samples are missing
        raise


def _as_ink(image: pyvips.Image) -> pyvips.Image:
    """CMYK that may be the wrong way round: no paper takes four full inks over wide areas."""

    def soaked(ink: np.ndarray) -> int:
        return int((ink.sum(axis=2, dtype=np.int64) > 0.9 * 4 * 255).sum())

    ink = _samples(image)
    return image if soaked(ink) < soaked(255 - ink) else image.invert()


def _split(image: pyvips.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """Grey or RGB in sRGB, and alpha if there is one."""
    colors = _COLORS.get(image.interpretation, 3)
    profile = field(image, "icc-profile-data")
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
    if colors == 4 and field(image, "icc-profile-data") is None:
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
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile)
    shown = _samples(_in_srgb(image)).astype(int)
    return bool(np.abs(shown - probe).max() <= 1)


def _masks(colors: int) -> Sequence[np.ndarray]:
    """Which colours of a probe take part in a ramp."""
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
    directories = tiff_tags.read(data)
    wanted = _full_pictures(directories)[: 1 if only_first else None]
    if not wanted:
        raise TagsError("no picture in it")
    sizes = [_size(directories[page]) for page in wanted]
    check_pixels(sizes, len(data), megapixels)
    with DECODING.taken(sum(width * height for width, height in sizes)):
        return [_tiff_page(data, page, directories[page], megapixels) for page in wanted]


def _full_pictures(directories: list[Directory]) -> list[int]:
    """The pages, without previews and masks; the largest if there is nothing else."""

    def extra(page: Directory) -> bool:
        kind = tiff_tags.number(page, _SUBFILE, 0)
        old = tiff_tags.number(page, _OLD_SUBFILE, 0)
        return bool(kind & (_REDUCED | _MASK)) or old == _OLD_REDUCED

    def area(number: int) -> int:
        width, height = _size(directories[number])
        return width * height

    numbers = range(len(directories))
    full = [number for number in numbers if not extra(directories[number])]
    return full or sorted(numbers, key=area)[-1:]


def _size(page: Directory) -> tuple[int, int]:
    return tiff_tags.number(page, _WIDTH, 0), tiff_tags.number(page, _HEIGHT, 0)


def _tiff_page(data: bytes, page: int, directory: Directory, megapixels: float) -> Picture:
    lab = tiff_tags.number(directory, _PHOTOMETRIC, 0) == _CIELAB
    orientation = tiff_tags.number(directory, tiff_tags.ORIENTATION, 1)
    changes: Directory = {}
    if lab:  # libvips knows some of these only: told that they are RGB, it gives them as they are
        changes[_PHOTOMETRIC] = tiff_tags.shorts(_RGB)
    if not 1 <= orientation <= 8:  # means nothing, but libtiff takes it for damage
        changes[tiff_tags.ORIENTATION] = tiff_tags.shorts(1)
    if changes:
        data, page = tiff_tags.alone(data, page, changes), 0
    image = _load(data, "TIFF", page=page)
    check_pixels([(image.width, image.height)], len(data), megapixels)
    _check(image)
    kept = of_tiff(
        directory,
        field(image, "xmp-data"),
        field(image, "photoshop-data"),
    )
    if lab:
        image = _from_lab(image)
    pixels, alpha = _split(image)
    return _upright(pixels, alpha, orientation, kept)


def _from_lab(image: pyvips.Image) -> pyvips.Image:
    """CIE Lab as TIFF has it, L full range and a, b signed, in sRGB of the same depth."""
    image = image.copy_memory()
    most, signed, scale = (255, "char", 1.0) if image.format == "uchar" else (65535, "short", 256.0)
    chroma = image[1:3].copy(format=signed).cast("float") / scale
    lightness = image[0] * (100.0 / most)
    lab = lightness.bandjoin(chroma).copy(interpretation="lab")
    deep = most > 255
    shown = lab.colourspace("rgb16" if deep else "srgb")
    return shown if image.bands == 3 else shown.bandjoin(image[3])


def _other(data: bytes, kind: str, megapixels: float) -> Picture:
    """A picture of a format that libvips lacks."""
    samples, profile, kept = other_decoders.decode(data, kind, megapixels)
    return Picture(*_split(_of_samples(samples, profile)), kept)


def _of_samples(samples: np.ndarray, profile: bytes | None) -> pyvips.Image:
    height, width, bands = samples.shape
    deep = samples.dtype == np.uint16
    names = ("grey16", "rgb16") if deep else ("b-w", "srgb")
    image = pyvips.Image.new_from_memory(
        np.ascontiguousarray(samples).data, width, height, bands, "ushort" if deep else "uchar"
    ).copy(interpretation=names[bands > 2])
    if profile:
        image.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile)
    return image
