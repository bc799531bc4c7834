"""What a picture file says besides its samples, and how it goes into a file of another format."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from . import mark, tiff_tags
from .blocks import (
    LONGEST_SEGMENT,
    Comments,
    jpeg_comments,
    png_comments,
    png_resolution,
    with_jpeg_comments,
    with_png_texts,
)
from .kinds import JPEG_SUFFIXES, TIFF_SUFFIXES
from .libvips import pyvips
from .tiff_tags import Directory, Entry, TagsError

Resolution: TypeAlias = tuple[float, float]

_INCH = 25.4  # millimeters
_INCHES, _CENTIMETERS = 2, 3  # units of TIFF and EXIF
_UNKNOWN_DPI = 72.0  # what EXIF says of a picture whose resolution is unknown
# Descriptions among the tags of a TIFF: what was scanned, when, by whom, with what.
_DESCRIPTIVE = (
    *(269, 270, 271, 272, 285, 297, 305, 306, 315, 316, 18246, 33432),
    *range(40091, 40096),
    *(tiff_tags.EXIF, tiff_tags.GPS),
)
_IPTC, _UNDEFINED = 33723, 7
_XMP_NAME = b"http://ns.adobe.com/xap/1.0/\0"
_PHOTOSHOP, _IPTC_RESOURCE = b"Photoshop 3.0\0", b"8BIM\x04\x04\0\0"


@dataclass(frozen=True)
class Kept:
    """What a picture file says besides its samples.

    Attributes:
        exif: the EXIF block, beginning with its order of bytes; its orientation is 1, and it has no
            thumbnail.
        xmp: the XMP packet.
        iptc: the IPTC record.
        comments: free text, each with a keyword.
        resolution: dots an inch, across and down; None: unknown.
    """

    exif: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    comments: Comments = ()
    resolution: Resolution | None = None

    def marked(self) -> Kept:
        """The same, saying also that an algorithm made the colors, and which."""
        return replace(self, xmp=mark.marked(self.xmp))


def of_blocks(exif: bytes | None, xmp: bytes | None, **others: Any) -> Kept:
    """What a file says, from its blocks as they are.

    Args:
        exif: with or without its name in front.
        xmp: the packet.
        others: attributes of `Kept`; without a resolution, that of the EXIF block.
    """
    try:
        directory = tiff_tags.first((exif or b"").removeprefix(b"Exif\0\0"))
    except TagsError:  # damaged: the picture may still be sound
        directory = {}
    if others.get("resolution") is None:
        others["resolution"] = resolution_of(directory)
    return Kept(_block(directory), mark.upright(xmp) if xmp else None, **others)


def of_tiff(directory: Directory, xmp: bytes | None, photoshop: bytes | None) -> Kept:
    """What a page of a TIFF file says.

    Args:
        directory: of the page.
        xmp: its XMP packet.
        photoshop: its resources of Photoshop, which may have the IPTC record.
    """
    kept = {tag: directory[tag] for tag in _DESCRIPTIVE if tag in directory}
    upright = mark.upright(xmp) if xmp else None
    iptc = _tiff_iptc(directory) or iptc_record(photoshop)
    return Kept(_block(kept), upright, iptc, (), resolution_of(directory))


def _tiff_iptc(directory: Directory) -> bytes | None:
    entry = directory.get(_IPTC)
    if not isinstance(entry, Entry):
        return None
    if entry.kind == tiff_tags.LONG and not entry.data.startswith(b"\x1c"):
        return struct.pack(f">{len(entry.numbers)}I", *entry.numbers)  # bytes that are no numbers
    return entry.data


def _block(directory: Directory) -> bytes | None:
    if not directory:
        return None
    changed: Directory = {**directory, tiff_tags.ORIENTATION: tiff_tags.shorts(1)}
    details = changed.get(tiff_tags.EXIF)
    if isinstance(details, dict) and tiff_tags.COLOR_SPACE in details:
        changed[tiff_tags.EXIF] = {**details, tiff_tags.COLOR_SPACE: tiff_tags.shorts(1)}  # sRGB
    return tiff_tags.exif_block(changed)


def resolution_of(directory: Directory) -> Resolution | None:
    """Dots an inch that a directory of TIFF or EXIF says, if it says them."""
    unit = tiff_tags.number(directory, tiff_tags.RESOLUTION_UNIT, _INCHES)
    if unit not in (_INCHES, _CENTIMETERS):
        return None
    sides = []
    for tag in (tiff_tags.X_RESOLUTION, tiff_tags.Y_RESOLUTION):
        entry = directory.get(tag)
        numbers = entry.numbers if isinstance(entry, Entry) else ()
        if len(numbers) != 2 or 0 in numbers:
            return None
        sides.append(numbers[0] / numbers[1] * (_INCH / 10 if unit == _CENTIMETERS else 1))
    return sides[0], sides[1]


def of_image(image: pyvips.Image, kind: str, data: bytes) -> Kept:
    """What libvips found in a file that is no TIFF.

    Args:
        image: as loaded.
        kind: of the file.
        data: the file.
    """
    comments: Comments = ()
    resolution = None
    if kind == "PNG":
        comments, resolution = png_comments(data), png_resolution(data)
    elif kind == "JPEG":
        comments = jpeg_comments(data)
        if image.get_typeof("resolution-unit"):
            resolution = (image.xres * _INCH, image.yres * _INCH)
    return of_blocks(
        field(image, "exif-data"),
        field(image, "xmp-data"),
        iptc=iptc_record(field(image, "iptc-data")),
        comments=comments,
        resolution=resolution,
    )


def field(image: pyvips.Image, name: str) -> bytes | None:
    """A block of bytes that libvips found, if it did."""
    return image.get(name) if image.get_typeof(name) else None


def iptc_record(block: bytes | None) -> bytes | None:
    """The IPTC record in a block: itself, or one of the resources of Photoshop."""
    if block is None or not block.startswith((_PHOTOSHOP, b"8BIM")):
        return block
    place, block = 0, block.removeprefix(_PHOTOSHOP)
    while block[place : place + 4] == b"8BIM" and place + 12 <= len(block):
        name = place + 6
        size_at = name + (block[name] + 2) // 2 * 2
        start = size_at + 4
        size = int.from_bytes(block[size_at:start], "big")
        if block[place + 4 : place + 6] == _IPTC_RESOURCE[4:6]:
            return block[start : start + size]
        place = start + size + size % 2
    return None


def put(image: pyvips.Image, kept: Kept, suffix: str) -> pyvips.Image:
    """The picture with all that libvips writes into a file of a suffix.

    Args:
        image: the picture.
        kept: what is known of it.
        suffix: of the file.
    """
    across, down = kept.resolution or (_UNKNOWN_DPI, _UNKNOWN_DPI)
    made = image.copy(xres=across / _INCH, yres=down / _INCH)
    made.set_type(pyvips.GValue.gstr_type, "resolution-unit", "in")
    xmp = _short(kept.xmp) if suffix in JPEG_SUFFIXES else kept.xmp
    if xmp and suffix != ".png":  # where libvips compresses it, and few look for it
        made.set_type(pyvips.GValue.blob_type, "xmp-data", xmp)
    if kept.iptc and suffix not in TIFF_SUFFIXES and len(kept.iptc) + 40 < LONGEST_SEGMENT:
        size = struct.pack(">I", len(kept.iptc))
        block = _PHOTOSHOP + _IPTC_RESOURCE + size + kept.iptc + b"\0" * (len(kept.iptc) % 2)
        made.set_type(pyvips.GValue.blob_type, "iptc-data", block)
    if suffix not in TIFF_SUFFIXES:
        if kept.exif:
            _put_exif(made, kept.exif)
        made.set_type(pyvips.GValue.gstr_type, "exif-ifd2-ColorSpace", "1")  # sRGB
    return made


def _short(xmp: bytes | None) -> bytes | None:
    """A packet that a segment of a JPEG holds: of one that is too long, the mark."""
    if xmp is None or len(xmp) + len(_XMP_NAME) <= LONGEST_SEGMENT:
        return xmp
    return mark.marked(None) if mark.SOURCE_TYPE.encode() in xmp else None


def _put_exif(image: pyvips.Image, exif: bytes) -> None:
    """As libvips writes it: tag by tag, which it takes from a file that has the block."""
    segment = b"Exif\0\0" + exif
    if len(segment) > LONGEST_SEGMENT:
        return
    tiny = pyvips.Image.black(1, 1).jpegsave_buffer()
    head = b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment
    carrier = pyvips.Image.jpegload_buffer(tiny[:2] + head + tiny[2:])
    for name in carrier.get_fields():
        if name.startswith("exif-"):
            image.set_type(carrier.get_typeof(name), name, carrier.get(name))


def finish_jpeg(data: bytes, kept: Kept) -> bytes:
    """A JPEG file as libvips wrote it, with what it does not write.

    Args:
        data: the file.
        kept: what is known of the picture.
    """
    if kept.resolution is None and data[6:11] == b"JFIF\0":  # pixels are square is all it says
        data = data[:13] + b"\0\0\1\0\1" + data[18:]
    return with_jpeg_comments(data, kept.comments)


def finish_png(data: bytes, kept: Kept) -> bytes:
    """The same for a PNG file."""
    return with_png_texts(data, kept.comments, kept.xmp, kept.resolution is not None)


def finish_tiff(files: list[bytes], pages: list[Kept]) -> bytes:
    """A TIFF file of pages as libvips wrote them, with the tags that it does not write.

    Args:
        files: one for each page.
        pages: what is known of each.
    """
    return tiff_tags.assembled(files, [_tags(kept) for kept in pages])


def _tags(kept: Kept) -> Directory:
    tags = tiff_tags.first(kept.exif) if kept.exif else {}
    tags = {tag: tags[tag] for tag in _DESCRIPTIVE if tag in tags}
    if kept.comments and tiff_tags.DESCRIPTION not in tags:
        text = "\n".join(text for _, text in kept.comments)
        tags[tiff_tags.DESCRIPTION] = Entry(2, text.encode() + b"\0")
    if kept.iptc:
        tags[_IPTC] = Entry(_UNDEFINED, kept.iptc)
    # libvips rounds what it writes; and an unknown resolution is no resolution.
    sides = kept.resolution or (1.0, 1.0)
    for tag, dots in zip((tiff_tags.X_RESOLUTION, tiff_tags.Y_RESOLUTION), sides, strict=True):
        parts = struct.pack("<II", min(round(dots * 1000), 2**32 - 1), 1000)
        tags[tag] = Entry(tiff_tags.RATIONAL, parts)
    tags[tiff_tags.RESOLUTION_UNIT] = tiff_tags.shorts(_INCHES if kept.resolution else 1)
    return tags
