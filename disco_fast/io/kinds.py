"""Kinds of picture files: told by their first bytes, looked for by their names."""

from __future__ import annotations

JPEG_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif")
TIFF_SUFFIXES = (".tif", ".tiff")
SUFFIXES = (*JPEG_SUFFIXES, ".png", *TIFF_SUFFIXES, ".webp", ".gif", ".avif")
"""The names, in lower case, that pictures are written under."""

READ_SUFFIXES = (
    *SUFFIXES,
    *(".apng", ".bmp", ".dib", ".jp2", ".j2k", ".pbm", ".pgm", ".ppm", ".pnm"),
    *(".heic", ".heif", ".jxl", ".tga", ".pcx"),
)
"""The names, in lower case, that pictures are looked for under."""

_BEGINNINGS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "BigTIFF",
    b"MM\0+": "BigTIFF",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"BM": "BMP",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\0\0\0\x0cJXL \r\n\x87\n": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
    **{b"P%d%c" % (number, space): "PNM" for number in range(1, 7) for space in b" \t\r\n#"},
    **{b"\x0a%c\x01" % version: "PCX" for version in (0, 2, 3, 4, 5)},
}
_TGA_END = b"TRUEVISION-XFILE.\0"


def kind_of(data: bytes) -> str | None:
    """What kind of picture file begins so, or None if it is none that is known.

    Args:
        data: the file, or its first 64 bytes.
    """
    for beginning, kind in _BEGINNINGS.items():
        if data.startswith(beginning):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[4:8] == b"ftyp":
        brands = data[8 : min(int.from_bytes(data[:4], "big"), 64)]
        if b"avif" in brands or b"avis" in brands:
            return "AVIF"
        if any(brand in brands for brand in (b"heic", b"heix", b"heim", b"heis", b"mif1")):
            return "HEIC"
    if data[:4] == b"\x28\0\0\0" and data[12:14] == b"\1\0":  # a BMP without its first bytes
        return "DIB"
    return "TGA" if data.endswith(_TGA_END) else None
