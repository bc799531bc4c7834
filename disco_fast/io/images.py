"""Read and write picture files, without losing what they hold.

Sixteen-bit pictures stay sixteen-bit, an alpha channel is kept, and a picture is turned the way
up its EXIF orientation says. Colors are those that a color-managed viewer shows, in sRGB. What a
file says besides (EXIF, XMP, IPTC, comments, resolution) comes with the picture. A file that is not
decoded whole and right is refused, with the reason.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import torch

from .atomic import whole_file
from .bounds import MEGAPIXELS, TooLargeError, largest_file
from .decoding import decode
from .encoding import encode
from .kinds import JPEG_SUFFIXES, READ_SUFFIXES, SUFFIXES, kind_of
from .picture import ImageFileError, Pages, Picture

__all__ = [
    "JPEG_SUFFIXES",
    "READ_SUFFIXES",
    "SUFFIXES",
    "ImageFileError",
    "Pages",
    "Picture",
    "decode_image",
    "decode_pages",
    "encode_image",
    "encode_pages",
    "read_bytes",
    "read_image",
    "read_pages",
    "to_pixels",
    "to_tensor",
    "write_image",
    "write_pages",
]


def read_image(path: str | os.PathLike[str], max_megapixels: float = MEGAPIXELS) -> Picture:
    """Read a picture file, by its content and not its suffix; of several pages, the first.

    Args:
        path: the file.
        max_megapixels: what has more, 10^6 pixels, is refused before it is decoded.

    Raises:
        ImageFileError: the file cannot be opened or decoded, or is too large, or holds samples, an
            alpha channel or a color model that cannot be read faithfully.
    """
    try:
        return decode_image(read_bytes(path, max_megapixels), max_megapixels)
    except ImageFileError as error:
        raise _named(path, error) from error


def read_pages(path: str | os.PathLike[str], max_megapixels: float = MEGAPIXELS) -> Pages:
    """Read all pages of a TIFF file, all frames of an animated GIF or WebP; see `read_image`.

    Args:
        path: the file.
        max_megapixels: of all pages together.

    Raises:
        ImageFileError: as `read_image`.
    """
    try:
        return decode_pages(read_bytes(path, max_megapixels), max_megapixels)
    except ImageFileError as error:
        raise _named(path, error) from error


def write_image(
    path: str | os.PathLike[str],
    picture: Picture,
    quality: int | None = None,
    replace: bool = True,
) -> None:
    """Write a picture file in the format of its suffix, whole or not at all.

    JPEG, WebP and GIF hold 8 bits: a 16-bit picture is rounded for them. JPEG has no alpha: one
    that is opaque all over is left out.

    Args:
        path: the file; its suffix is one of ``SUFFIXES``, its folder exists.
        picture: what to write.
        quality: of a lossy format, 1 to 100; None: 95, and 85 for AVIF.
        replace: whether a file of that name is replaced.

    Raises:
        ImageFileError: the format cannot hold the picture, or the file cannot be written.
    """
    write_pages(path, Pages((picture,)), quality, replace)


def write_pages(
    path: str | os.PathLike[str], pages: Pages, quality: int | None = None, replace: bool = True
) -> None:
    """Write the pages of a TIFF file, or the frames of an animation; see `write_image`.

    Args:
        path: the file.
        pages: what to write.
        quality: see `write_image`.
        replace: likewise.

    Raises:
        ImageFileError: as `write_image`.
    """
    path = Path(path)
    try:
        data = encode_pages(pages, path.suffix.lower(), quality)
        with whole_file(path, replace) as partial:
            partial.write_bytes(data)
    except (ImageFileError, OSError) as error:
        raise _named(path, error) from error


def read_bytes(path: str | os.PathLike[str], max_megapixels: float = MEGAPIXELS) -> bytes:
    """The bytes of a regular file that may hold a picture; a pipe or a device is never opened.

    Args:
        path: the file.
        max_megapixels: what is larger than any picture of so many is not read.

    Raises:
        ImageFileError: it cannot be read.
    """
    try:
        # A name may change what it stands for between any two looks: the file that is open counts.
        with open(os.open(path, os.O_RDONLY | _NO_WAITING), "rb") as file:
            status = os.fstat(file.fileno())
            if stat.S_ISDIR(status.st_mode):
                raise IsADirectoryError(None, "Is a directory")
            if not stat.S_ISREG(status.st_mode):
                raise ImageFileError("not a regular file")
            if status.st_size > largest_file(max_megapixels):
                raise ImageFileError(
                    f"{status.st_size} bytes are more than a picture of at most "
                    f"{max_megapixels:g} megapixels has"
                )
            return file.read()
    except OSError as error:
        raise ImageFileError(error.strerror or str(error)) from error


_NO_WAITING = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def decode_image(data: bytes, max_megapixels: float = MEGAPIXELS) -> Picture:
    """The picture in the bytes of a file; see `read_image`.

    Raises:
        ImageFileError: as `read_image`, without a name.
    """
    return _decoded(data, max_megapixels, only_first=True).pictures[0]


def decode_pages(data: bytes, max_megapixels: float = MEGAPIXELS) -> Pages:
    """All pictures in the bytes of a file; see `read_pages`.

    Raises:
        ImageFileError: as `read_image`, without a name.
    """
    return _decoded(data, max_megapixels, only_first=False)


def encode_image(picture: Picture, suffix: str, quality: int | None = None) -> bytes:
    """The bytes of a file of a suffix; see `write_image`.

    Raises:
        ImageFileError: the format cannot hold the picture.
    """
    return encode_pages(Pages((picture,)), suffix, quality)


def encode_pages(pages: Pages, suffix: str, quality: int | None = None) -> bytes:
    """The bytes of a file of a suffix; see `write_pages`.

    Raises:
        ImageFileError: the format cannot hold the pictures.
    """
    return encode(pages, suffix, quality)


def _decoded(data: bytes, max_megapixels: float, only_first: bool) -> Pages:
    if not data:
        raise ImageFileError("the file is empty")
    try:
        return decode(data, kind_of(data), max_megapixels, only_first)
    except TooLargeError as error:
        raise ImageFileError(str(error)) from error


def _named(path: str | os.PathLike[str], error: Exception) -> ImageFileError:
    reason = error.strerror or error if isinstance(error, OSError) else error
    return ImageFileError(f"{os.fspath(path)}: {reason}")


def to_tensor(pixels: np.ndarray) -> torch.Tensor:
    """(H, W, C) samples as the (C, H, W) tensor of the same gray values that Colorizer takes."""
    if pixels.dtype == np.uint16:
        pixels = pixels.astype(np.float32) / 65535
    return torch.from_numpy(pixels).permute(2, 0, 1)


def to_pixels(image: torch.Tensor, dtype: np.dtype) -> np.ndarray:
    """The reverse of ``to_tensor``."""
    pixels = image.permute(1, 2, 0).numpy()
    return np.rint(pixels * 65535).astype(dtype) if dtype == np.uint16 else pixels
