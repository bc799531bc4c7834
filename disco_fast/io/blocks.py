"""Comments in JPEG and PNG files, and resolutions in PNG, which libvips does not carry rightly."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

from .color_profiles import of_numbers

Comments: TypeAlias = "tuple[tuple[str, str], ...]"
"""Free text, each with a keyword."""

COMMENT = "Comment"
"""The keyword of a text that has none."""

LONGEST_SEGMENT = 65_533
"""Bytes that a segment of a JPEG holds."""

_XMP_KEY = "XML:com.adobe.xmp"
_METER = 0.0254  # of an inch
_LONGEST_TEXT = 2**20
_SIGNATURE = 8  # bytes that a PNG begins with; its first chunk has 25


class Segment(NamedTuple):
    """A segment of a JPEG file: its marker, and where its content begins and ends."""

    marker: int
    start: int
    end: int


def jpeg_segments(data: bytes) -> list[Segment]:
    """The segments of a JPEG file before its samples."""
    found, place = [], 2
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != 0xDA:
        if data[place + 1] == 0xFF:  # filling
            place += 1
            continue
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        found.append(Segment(data[place + 1], place + 4, end))
        place = end
    return found


def jpeg_comments(data: bytes) -> Comments:
    """The comments of a JPEG file."""
    contents = [data[s.start : s.end] for s in jpeg_segments(data) if s.marker == 0xFE]
    texts = [_text(content.rstrip(b"\0")) for content in contents]
    return tuple((COMMENT, text) for text in texts if text)


def with_jpeg_comments(data: bytes, comments: Comments) -> bytes:
    """The JPEG file with comments behind the segments that it begins with."""
    made = b""
    for key, text in comments:
        content = (text if key == COMMENT else f"{key}: {text}").encode()[:LONGEST_SEGMENT]
        made += b"\xff\xfe" + struct.pack(">H", len(content) + 2) + content
    leading = [s.end for s in jpeg_segments(data) if 0xE0 <= s.marker <= 0xEF]
    place = max(leading, default=2)
    return data[:place] + made + data[place:]


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content.decode("latin-1")


def png_comments(data: bytes) -> Comments:
    """The texts of a PNG file, but for those that hold other metadata."""
    found = []
    for name, content in _png_chunks(data):
        if name in (b"tEXt", b"zTXt", b"iTXt"):
            try:
                key, text = _png_text(name, content)
            except (ValueError, IndexError, zlib.error):  # the picture may be sound
                continue
            if not key.startswith(("Raw profile", _XMP_KEY)):
                found.append((key, text))
    return tuple(found)


def _png_text(name: bytes, content: bytes) -> tuple[str, str]:
    key, _, rest = content.partition(b"\0")
    compressed = name == b"zTXt"
    if name == b"iTXt":
        compressed = rest[0] == 1
        rest = rest[2:].split(b"\0", 2)[2]
    elif compressed:
        rest = rest[1:]
    if compressed:
        rest = zlib.decompressobj().decompress(rest, _LONGEST_TEXT)
    return key.decode("latin-1"), rest.decode("utf-8" if name == b"iTXt" else "latin-1")


def png_resolution(data: bytes) -> tuple[float, float] | None:
    """Dots an inch that a PNG file says, if it says them."""
    for name, content in _png_chunks(data):
        if name == b"pHYs" and len(content) == 9 and content[8] == 1:
            across, down = struct.unpack(">II", content[:8])
            return (across * _METER, down * _METER) if across and down else None
    return None


def png_profile(data: bytes) -> bytes | None:
    """The color profile that a PNG file says in numbers, if it has no better word on colors."""
    found: dict[bytes, bytes] = {}
    for name, content in _png_chunks(data):
        if name in (b"iCCP", b"sRGB", b"cICP"):
            return None
        found.setdefault(name, content)
    gamma, places = found.get(b"gAMA", b""), found.get(b"cHRM", b"")
    if len(gamma) != 4 or not any(gamma):
        return None
    exponent = 100_000 / int.from_bytes(gamma, "big")
    gray = data[_SIGNATURE + 17] in (0, 4)  # color types of PNG
    numbers = struct.unpack(">8I", places) if len(places) == 32 else None
    return of_numbers(exponent, numbers and [n / 100_000 for n in numbers], gray)


def with_png_texts(
    data: bytes, comments: Comments, xmp: bytes | None, resolution_is_known: bool
) -> bytes:
    """The PNG file of libvips with texts, and without a resolution that libvips made up."""
    made = _chunk(b"iTXt", _XMP_KEY.encode() + bytes(5) + xmp) if xmp else b""
    for key, text in comments:
        name = (key.encode("latin-1", "ignore") or COMMENT.encode())[:79]
        try:
            made += _chunk(b"tEXt", name + b"\0" + text.encode("latin-1"))
        except UnicodeEncodeError:
            made += _chunk(b"iTXt", name + bytes(5) + text.encode())
    place = data.find(b"pHYs", 0, data.find(b"IDAT")) - 4
    if place >= 0 and not resolution_is_known:
        data = data[:place] + data[place + 21 :]
    place = _SIGNATURE + 25
    return data[:place] + made + data[place:]


def gif_is_cut(data: bytes) -> bool:
    """Whether a GIF file ends within a frame; its decoder would give what is there of it."""

    def behind_table(flags: int, place: int) -> int:
        return place + (3 << (flags & 7) + 1 if flags & 0x80 else 0)

    try:
        place = behind_table(data[10], 13)
        while place < len(data) and data[place] in (0x21, 0x2C):
            if data[place] == 0x21:  # an extension: its label
                place += 2
            else:  # a frame: its table of colors, and the size of its codes
                place = behind_table(data[place + 9], place + 10) + 1
            while data[place]:  # blocks, each with its length; one of none ends them
                place += 1 + data[place]
            place += 1
    except IndexError:
        return True
    return False


def _chunk(name: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + checksum


def _png_chunks(data: bytes) -> Iterable[tuple[bytes, bytes]]:
    place = _SIGNATURE
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        name = data[place + 4 : place + 8]
        yield name, data[place + 8 : place + 8 + length] if name != b"IDAT" else b""
        place += 12 + length
