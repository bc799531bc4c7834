"""Pictures that strangers send: their size is read and judged before they are decoded."""

from __future__ import annotations

import struct

from .image_files import ImageFileError, Picture, decode_image

MEGAPIXELS = 40.0
"""Of a picture that a page or a service takes, by default."""

_PNG = b"\x89PNG\r\n\x1a\n"
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # of JPEG; those are tables
_WITHOUT_LENGTH = frozenset((0x01, *range(0xD0, 0xD9)))
_TIFF = {b"II*\0": "<", b"MM\0*": ">"}
_WIDTH, _HEIGHT = 256, 257
_TIFF_NUMBERS = {3: "H", 4: "I"}


def decode_upload(data: bytes, max_megapixels: float = MEGAPIXELS) -> Picture:
    """The picture in the bytes of a file; see `image_files.decode_image`.

    Raises:
        ImageFileError: it is too large, its size cannot be told from its head, or it cannot be
            decoded.
    """
    pixels(data, max_megapixels)
    return decode_image(data, max_megapixels)


def pixels(data: bytes, max_megapixels: float = MEGAPIXELS) -> int:
    """How many pixels a file's head says that it has.

    Raises:
        ImageFileError: more than `max_megapixels`, or the head does not say it.
    """
    if not data:
        raise ImageFileError("the file is empty")
    try:
        width, height = _size(data)
    except (struct.error, IndexError):
        raise ImageFileError("damaged, or cut short") from None
    if width * height > max_megapixels * 1e6:
        raise ImageFileError(
            f"{width * height / 1e6:.0f} megapixels ({width} x {height});"
            f" at most {max_megapixels:g}, please"
        )
    return width * height


def _size(data: bytes) -> tuple[int, int]:
    """Width and height by the head of a PNG, JPEG, WebP or TIFF file."""
    if data.startswith(_PNG) and data[12:16] == b"IHDR":
        return struct.unpack_from(">II", data, 16)
    if data.startswith(b"\xff\xd8"):
        return _jpeg_size(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp_size(data)
    if data[:4] in _TIFF:
        return _tiff_size(data, _TIFF[data[:4]])
    raise ImageFileError("not a JPEG, PNG, TIFF or WebP picture, or damaged")


def _jpeg_size(data: bytes) -> tuple[int, int]:
    place = 2
    while True:
        while data[place] == 0xFF:
            place += 1
        marker = data[place]
        if data[place - 1] != 0xFF:
            raise ImageFileError("damaged: no marker where JPEG has one")
        if marker in _FRAME_HEADERS:
            height, width = struct.unpack_from(">HH", data, place + 4)
            return width, height
        (length,) = (0,) if marker in _WITHOUT_LENGTH else struct.unpack_from(">H", data, place + 1)
        place += 1 + length


def _webp_size(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[place : place + 3], "little") for place in (24, 27))
        return width + 1, height + 1
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise ImageFileError("damaged: a WebP file without a picture")


def _tiff_size(data: bytes, order: str) -> tuple[int, int]:
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    (length,) = struct.unpack_from(f"{order}H", data, start)
    found = {}
    for entry in range(start + 2, start + 2 + 12 * length, 12):
        tag, kind, count = struct.unpack_from(f"{order}HHI", data, entry)
        if tag in (_WIDTH, _HEIGHT) and kind in _TIFF_NUMBERS and count == 1:
            (found[tag],) = struct.unpack_from(order + _TIFF_NUMBERS[kind], data, entry + 8)
    if len(found) != 2:
        raise ImageFileError("damaged: a TIFF file without a size")
    return found[_WIDTH], found[_HEIGHT]
