"""Read and write picture files: JPEG, PNG, TIFF and WebP, by OpenCV, without losing what they hold.

Sixteen-bit pictures stay sixteen-bit, an alpha channel is kept, and a picture is turned the way
up its EXIF orientation says. A kind of file that OpenCV would misread is refused, with the reason.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from .files import whole_file

JPEG_SUFFIXES = (".jpg", ".jpeg")
SUFFIXES = (*JPEG_SUFFIXES, ".png", ".tif", ".tiff", ".webp")
"""The file names, in lower case, that pictures are looked for and written under."""

_EIGHT_BIT_SUFFIXES = (*JPEG_SUFFIXES, ".webp")
_QUALITY = {
    ".jpg": [cv2.IMWRITE_JPEG_QUALITY, 95],
    ".jpeg": [cv2.IMWRITE_JPEG_QUALITY, 95],
    ".webp": [cv2.IMWRITE_WEBP_QUALITY, 95],
}

_TIFF_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_BIG_TIFF = (b"II+\0", b"MM\0+")
# The tags of a TIFF directory that are looked at; EXIF is such a directory too.
_BITS, _PHOTOMETRIC, _ORIENTATION, _SAMPLES, _EXTRA_SAMPLES = 258, 262, 274, 277, 338
_NUMBER_FORMATS = {3: "H", 4: "I"}
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6
_UNSPECIFIED, _PREMULTIPLIED = 0, 1


class ImageFileError(ValueError):
    """A picture file that cannot be read or written; the message begins with its path."""


@dataclass(frozen=True)
class Picture:
    """A picture in memory, the way up it is to be seen.

    Attributes:
        pixels: (H, W, 1) grey or (H, W, 3) RGB, ``uint8`` or ``uint16``, full range.
        alpha: (H, W) of the same type, 0 transparent, or None for a picture without one.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None


def read_image(path: str | os.PathLike[str]) -> Picture:
    """Read a picture file, by its content and not its suffix; of an animation, the first frame.

    Args:
        path: the file.

    Raises:
        ImageFileError: the file cannot be opened or decoded, or holds samples, an alpha channel or
            a colour model that cannot be read faithfully.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageFileError(f"{path}: {error.strerror or error}") from error
    try:
        return decode_image(data)
    except ImageFileError as error:
        raise ImageFileError(f"{path}: {error}") from error


def write_image(path: str | os.PathLike[str], picture: Picture) -> None:
    """Write a picture file in the format of its suffix, whole or not at all.

    A file of that name is replaced. JPEG and WebP are written at quality 95 and hold 8 bits: a
    16-bit picture is rounded for them. JPEG has no alpha: one that is opaque all over is left out.

    Args:
        path: the file; its suffix is one of ``SUFFIXES``, its folder exists.
        picture: what to write.

    Raises:
        ImageFileError: the format cannot hold the picture, or the file cannot be written.
    """
    path = Path(path)
    try:
        data = encode_image(picture, path.suffix.lower())
        with whole_file(path) as partial:
            partial.write_bytes(data)
    except ImageFileError as error:
        raise ImageFileError(f"{path}: {error}") from error
    except OSError as error:
        raise ImageFileError(f"{path}: {error.strerror or error}") from error


def decode_image(data: bytes) -> Picture:
    """The picture in the bytes of a file; see `read_image`.

    Raises:
        ImageFileError: as `read_image`, without a name.
    """
    if not data:
        raise ImageFileError("the file is empty")
    if data.startswith((*_TIFF_ORDERS, *_BIG_TIFF)):
        # OpenCV turns a TIFF the right way up by itself, and nothing else.
        return _picture(_raw_samples(_tiff_with_plain_alpha(data))[0], orientation=1)
    samples, exif = _raw_samples(data)
    # OpenCV drops the transparency of such a file. Looking for the name of the chunk ahead of the
    # first pixel data is enough: a false alarm needs those four bytes inside another chunk.
    if samples.ndim == 2 and data.find(b"tRNS", 0, max(data.find(b"IDAT"), 0)) >= 0:
        raise ImageFileError("a grey PNG with one transparent shade: save it with an alpha channel")
    return _picture(samples, _tiff_number(exif.removeprefix(b"Exif\0\0"), _ORIENTATION, default=1))


def _raw_samples(data: bytes) -> tuple[np.ndarray, bytes]:
    """The samples as OpenCV gives them, (H, W) or (H, W, BGR or BGRA), and the EXIF block."""
    try:
        samples, kinds, blocks = cv2.imdecodeWithMetadata(
            np.frombuffer(data, np.uint8), flags=cv2.IMREAD_UNCHANGED
        )
    except cv2.error as error:
        raise ImageFileError(f"OpenCV refuses to decode it ({error.err})") from error
    if samples is None:
        raise ImageFileError("not a picture in a known format, or damaged, or cut short")
    if samples.dtype not in (np.uint8, np.uint16):
        raise ImageFileError(f"its samples are {samples.dtype}; only 8 and 16 bits are read")
    exif = (b.tobytes() for k, b in zip(kinds, blocks, strict=True) if k == cv2.IMAGE_METADATA_EXIF)
    return samples, next(exif, b"")


def _picture(samples: np.ndarray, orientation: int) -> Picture:
    if samples.ndim == 2:
        samples = samples[..., None]
    samples = _upright(samples, orientation)
    alpha = np.ascontiguousarray(samples[..., 3]) if samples.shape[2] == 4 else None
    return Picture(np.ascontiguousarray(samples[..., :3][..., ::-1]), alpha)


def _upright(samples: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation, 1 to 8; any other number means nothing, and leaves it as it is."""
    if orientation in (5, 6, 7, 8):
        samples = samples.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    return samples


def _tiff_with_plain_alpha(data: bytes) -> bytes:
    """The same TIFF, marked so that OpenCV leaves its colours alone; refused if it is misread.

    OpenCV drops the alpha of a grey TIFF, takes 16-bit white-is-zero for black-is-zero, and
    multiplies 8-bit colours by their alpha unless that is marked as "unspecified".
    """
    if data.startswith(_BIG_TIFF):
        raise ImageFileError("a BigTIFF: save it as a plain TIFF")
    model = _tiff_number(data, _PHOTOMETRIC, default=_BLACK_IS_ZERO)
    samples = _tiff_number(data, _SAMPLES, default=1)
    if model not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _YCBCR):
        raise ImageFileError(f"a TIFF of colour model {model}: save it as RGB or grey")
    if model == _WHITE_IS_ZERO and _tiff_number(data, _BITS, default=1) > 8:
        raise ImageFileError("a 16-bit TIFF whose white is zero: save it with black as zero")
    if samples not in (1, 3, 4):
        raise ImageFileError(f"a TIFF of {samples} samples a pixel: save it as grey, RGB or RGBA")
    if _tiff_number(data, _EXTRA_SAMPLES, default=_UNSPECIFIED) == _PREMULTIPLIED:
        raise ImageFileError("a TIFF whose colours are multiplied by its alpha: save it without")
    return _with_tiff_number(data, _EXTRA_SAMPLES, _UNSPECIFIED)


def _tiff_number(block: bytes, tag: int, default: int) -> int:
    """The number a tag of a TIFF (or EXIF) block holds, ``default`` where there is no such tag."""
    found = _find_number(block, tag)
    return default if found is None else struct.unpack_from(found[0], block, found[1])[0]


def _with_tiff_number(block: bytes, tag: int, number: int) -> bytes:
    """The block with another number under a tag that it has."""
    found = _find_number(block, tag)
    if found is None:
        return block
    changed = bytearray(block)
    struct.pack_into(found[0], changed, found[1], number)
    return bytes(changed)


def _find_number(block: bytes, tag: int) -> tuple[str, int] | None:
    """Format and position of a tag's number in a TIFF block's first directory; None without one."""
    order = _TIFF_ORDERS.get(block[:4])
    if order is None:
        return None
    try:
        (start,) = struct.unpack_from(f"{order}I", block, 4)
        (length,) = struct.unpack_from(f"{order}H", block, start)
        for entry in range(start + 2, start + 2 + 12 * length, 12):
            name, kind, count = struct.unpack_from(f"{order}HHI4x", block, entry)
            if name == tag and kind in _NUMBER_FORMATS and count == 1:
                return order + _NUMBER_FORMATS[kind], entry + 8
    except struct.error:  # the directory points outside the block: the picture may still be sound
        pass
    return None


def encode_image(picture: Picture, suffix: str) -> bytes:
    """The bytes of a file of a suffix; see `write_image`.

    Raises:
        ImageFileError: the format cannot hold the picture.
    """
    if suffix not in SUFFIXES:
        raise ImageFileError(f"pictures are written as {' '.join(SUFFIXES)}, not {suffix or 'so'}")
    samples = _samples(picture, with_alpha=suffix not in JPEG_SUFFIXES)
    if suffix in _EIGHT_BIT_SUFFIXES and samples.dtype == np.uint16:
        samples = ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)
    try:
        done, data = cv2.imencode(suffix, samples, _QUALITY.get(suffix, []))
    except cv2.error as error:
        raise ImageFileError(f"OpenCV refuses to encode it ({error.err})") from error
    if not done:
        height, width = samples.shape[:2]
        raise ImageFileError(f"{width} x {height} pixels are too many for {suffix}")
    return data.tobytes()


def _samples(picture: Picture, with_alpha: bool) -> np.ndarray:
    """The samples as OpenCV takes them: (H, W, 1), or (H, W, BGR) and, last, the alpha if any."""
    pixels, alpha = picture.pixels[..., ::-1], picture.alpha
    if alpha is None:
        return np.ascontiguousarray(pixels)
    if with_alpha:
        colours = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
        return np.concatenate([colours, alpha[..., None]], axis=2)
    if (alpha != np.iinfo(alpha.dtype).max).any():
        raise ImageFileError("JPEG cannot hold its alpha channel: choose PNG, TIFF or WebP")
    return np.ascontiguousarray(pixels)


def to_tensor(pixels: np.ndarray) -> torch.Tensor:
    """(H, W, C) samples as the (C, H, W) tensor of the same grey values that Colorizer takes."""
    if pixels.dtype == np.uint16:
        pixels = pixels.astype(np.float32) / 65535
    return torch.from_numpy(pixels).permute(2, 0, 1)


def to_pixels(image: torch.Tensor, dtype: np.dtype) -> np.ndarray:
    """The reverse of ``to_tensor``."""
    pixels = image.permute(1, 2, 0).numpy()
    return np.rint(pixels * 65535).astype(dtype) if dtype == np.uint16 else pixels
