"""A page of a TIFF file as a file of its own, of strips whose samples are decoded whole or not.

libvips paints a tile black that it cannot decode, and the libtiff of its wheel lacks some codecs. A
strip that cannot be decoded is an error, so tiles become strips of their own width, one below the
other, and are put into their places afterwards. Samples of odd sizes are decoded as bytes first.
"""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .._extras import MissingExtraError, need
from . import tiff_tags
from .tiff_tags import Directory, Entry, TagsError, number, shorts

WIDTH, HEIGHT, PHOTOMETRIC = 256, 257, 262
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, CIELAB, ICCLAB = 0, 1, 2, 8, 9

_BITS, _COMPRESSION, _SAMPLES, _ROWS, _PLANES = 258, 259, 277, 278, 284
_STRIPS, _STRIP_SIZES, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_SIZES = 273, 279, 322, 323, 324, 325
_SUBFILE, _OLD_SUBFILE, _BELOW, _EXTRA_SAMPLES, _FORMAT = 254, 255, 330, 338, 339
_REDUCED, _MASK, _OLD_REDUCED = 1, 4, 2
# Tags that say how samples are stored; others only give libtiff reasons to warn.
_DECISIVE = (
    *(WIDTH, HEIGHT, _BITS, _COMPRESSION, PHOTOMETRIC, 266, _SAMPLES, _ROWS, _PLANES, 292, 293),
    *(317, 320, 332, _EXTRA_SAMPLES, _FORMAT, 347, 529, 530, 531, 532, 34675),
)
_OF_ANY = (HEIGHT, _COMPRESSION, 266)  # of them, those that do not depend on what samples mean
_YCBCR = 6  # which libvips would give as if it were RGB
_COLORS = (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, 3, 5, _YCBCR, CIELAB, ICCLAB)
_NONE, _JPEG, _DEFLATE, _LZMA, _ZSTD = 1, 7, 8, 34925, 50000
_OF_BYTES = (_NONE, 5, _DEFLATE, 32773, 32946, _LZMA, _ZSTD)  # whatever samples they make up
_ONLY_WARN = (2, 3, 4, _JPEG, 32771, 32773)  # codecs whose damage libtiff calls no error
_READ = (*_OF_BYTES, *_ONLY_WARN, 50001)
_NAMES = {
    6: "JPEG as it was before 1995",
    **{33003: "JPEG 2000", 33005: "JPEG 2000", 34661: "JBIG", 34676: "SGI Log", 34677: "SGI Log"},
    **{34712: "JPEG 2000", 34887: "LERC", 34933: "PNG", 34934: "JPEG XR", 50002: "JPEG XL"},
}
_SMALL = 2**24  # pixels that tiles may have, whatever the picture has
_MOST_TIMES, _MOST_MORE = 8, 2**16  # bytes that a codec may make of a strip, at its worst


class Page(NamedTuple):
    """A page that libvips decodes.

    Attributes:
        data: a TIFF file of this page alone.
        strict: whether a warning is an error.
        finished: puts the samples (H, W, C) that libvips gives in order; None: they are.
    """

    data: bytes
    strict: bool
    finished: Callable[[np.ndarray], np.ndarray] | None = None


class _Grid(NamedTuple):
    """Strips, or tiles: the size of each, and how many there are across and down."""

    width: int
    height: int
    across: int
    down: int


def full_pictures(data: bytes) -> list[Directory]:
    """The pages of a file, without previews and masks; the largest if there is nothing else.

    Args:
        data: the file.

    Raises:
        TagsError: its directories are damaged, or there are none.
    """
    pages = tiff_tags.read(data)
    full = [page for page in pages if not _is_extra(page)]
    if not full:  # a preview in front, with the picture below it
        below = [sub for page in pages for sub in tiff_tags.below(data, page, _BELOW)]
        full = [page for page in below if not _is_extra(page)]
    return full or sorted(pages, key=lambda page: int(np.prod(size(page))))[-1:]


def _is_extra(page: Directory) -> bool:
    old = number(page, _OLD_SUBFILE, 0) == _OLD_REDUCED
    return old or bool(number(page, _SUBFILE, 0) & (_REDUCED | _MASK))


def size(page: Directory) -> tuple[int, int]:
    """(width, height) of a page."""
    return number(page, WIDTH, 0), number(page, HEIGHT, 0)


def alone(data: bytes, page: Directory, changes: Directory) -> Page:
    """A page as a file of its own.

    Args:
        data: the whole file.
        page: its directory.
        changes: by tag, what libvips is to be told instead.

    Raises:
        TagsError: the page is damaged, or stored in a way that is not read.
    """
    compression, colors = number(page, _COMPRESSION, _NONE), number(page, PHOTOMETRIC, 0)
    if compression not in _READ:
        name = _NAMES.get(compression, "an unknown method")
        raise TagsError(f"samples compressed by {name} ({compression}) are not read")
    if colors not in _COLORS:
        raise TagsError(f"colors of kind {colors} are not read: save it as gray or RGB")
    if colors == _YCBCR and compression != _JPEG:
        raise TagsError("YCbCr outside of JPEG is not read: save it as RGB")
    strict = compression in _ONLY_WARN
    tiled = _TILES in page
    places, sizes = (_TILES, _TILE_SIZES) if tiled else (_STRIPS, _STRIP_SIZES)
    if tiled and sizes not in page:
        raise TagsError("the sizes of its tiles are missing")
    if places not in page or sizes not in page:
        return Page(tiff_tags.alone(data, page | changes), strict)
    grid = _grid(page, tiled)
    unpacked = _unpacking(page, grid.width) if compression in _OF_BYTES else None
    kept = _OF_ANY if unpacked else _DECISIVE
    changed = {tag: page[tag] for tag in kept if tag in page} | changes
    changed |= {WIDTH: _long(grid.width), _ROWS: _long(grid.height)}
    if tiled:
        changed[HEIGHT] = _long(grid.height * grid.across * grid.down)
    if unpacked:
        changed |= _as_bytes(page, grid.width)
    strips = _strips(data, page, grid, places, sizes)
    if compression in (_LZMA, _ZSTD):
        most = _row(page, grid.width) * grid.height
        strips = [_deflated(strip, compression, most) for strip in strips]
        changed[_COMPRESSION] = shorts(_DEFLATE)
    made = tiff_tags.of_strips(data, changed, strips)

    def finished(samples: np.ndarray) -> np.ndarray:
        samples = unpacked(samples) if unpacked else samples
        return _laid_out(samples, grid, *size(page)) if tiled else samples

    return Page(made, strict, finished if tiled or unpacked else None)


def _long(value: int) -> Entry:
    if value >= 2**32:
        raise TagsError("its size is damaged")
    return Entry(tiff_tags.LONG, value.to_bytes(4, "little"))


def _grid(page: Directory, tiled: bool) -> _Grid:
    width, height = size(page)
    if tiled:
        across, down = number(page, _TILE_WIDTH, 0), number(page, _TILE_HEIGHT, 0)
    else:
        across, down = width, min(number(page, _ROWS, height), height)
    if not (width and height and across and down):
        raise TagsError("its size is damaged")
    grid = _Grid(across, down, -(-width // across), -(-height // down))
    if tiled and across * down * grid.across * grid.down > max(_SMALL, 4 * width * height):
        raise TagsError(f"tiles of {across} x {down} pixels are too large for the picture")
    return grid


def _strips(data: bytes, page: Directory, grid: _Grid, places: int, sizes: int) -> list[bytes]:
    """What is stored of every strip or tile."""
    separate = number(page, _PLANES, 1) == 2
    count = grid.across * grid.down * (number(page, _SAMPLES, 1) if separate else 1)
    starts, lengths = _numbers(page, places), _numbers(page, sizes)
    if min(len(starts), len(lengths)) < count:
        raise TagsError(f"{count} strips or tiles are expected, {len(starts)} are there")
    most = _MOST_TIMES * _row(page, grid.width) * grid.height + _MOST_MORE
    found, seen, total = [], set[tuple[int, int]](), 0
    for start, length in zip(starts[:count], lengths[:count], strict=True):
        strip = data[start : start + min(length, most)]
        total += 0 if (start, length) in seen else len(strip)
        seen.add((start, length))
        if start < 8 or not strip:
            raise TagsError("a strip or tile is missing")
        if total > 2 * len(data):
            raise TagsError("strips or tiles overlap")
        found.append(strip)
    return found


def _numbers(page: Directory, tag: int) -> tuple[int, ...]:
    entry = page[tag]
    return entry.numbers if isinstance(entry, Entry) else ()


def _deflated(strip: bytes, compression: int, most: int) -> bytes:
    """A strip by a codec that libtiff has, to which it is not compressed but wrapped."""
    try:
        if compression == _LZMA:
            samples = lzma.LZMADecompressor().decompress(strip, most)
        else:
            samples = _zstd(strip, most)
    except lzma.LZMAError as error:
        raise TagsError("a strip or tile of LZMA is damaged") from error
    return zlib.compress(samples, 0)


def _zstd(strip: bytes, most: int) -> bytes:
    try:
        zstandard = need("formats", "zstandard")
    except MissingExtraError as error:
        raise TagsError(f"its samples are compressed by ZSTD (50000): {error}") from error
    try:
        return zstandard.ZstdDecompressor().stream_reader(strip).read(most)
    except zstandard.ZstdError as error:
        raise TagsError("a strip or tile of ZSTD is damaged") from error


def _laid_out(samples: np.ndarray, grid: _Grid, width: int, height: int) -> np.ndarray:
    """Tiles that are one below the other in their places."""
    tiles = samples.reshape(grid.down, grid.across, grid.height, grid.width, -1).swapaxes(1, 2)
    whole = tiles.reshape(grid.down * grid.height, grid.across * grid.width, -1)
    return np.ascontiguousarray(whole[:height, :width])


# ---- samples of 3, 5, 6, 7 and 9 to 15 bits -----------------------------------------------------


def _bits(page: Directory) -> tuple[int, ...]:
    return (_numbers(page, _BITS) if _BITS in page else ()) or (1,)


def _row(page: Directory, width: int) -> int:
    """Bytes of a row of so many pixels, all their samples together."""
    return -(-width * number(page, _SAMPLES, 1) * max(_bits(page)) // 8)


def _unpacking(page: Directory, width: int) -> Callable[[np.ndarray], np.ndarray] | None:
    """What makes samples of the bytes of rows, where libvips knows them not."""
    bits, count = _bits(page)[0], number(page, _SAMPLES, 1)
    colors = number(page, PHOTOMETRIC, 0)
    usual = bits in (4, 8) or not 2 < bits < 16 or len(set(_bits(page))) > 1
    if usual or colors not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB) or number(page, _PLANES, 1) != 1:
        return None
    scale = (65535 if bits > 8 else 255) / (2**bits - 1)

    def unpacked(rows: np.ndarray) -> np.ndarray:
        height = len(rows)
        found = np.empty((height, width, count), np.uint16 if bits > 8 else np.uint8)
        for row, stored in zip(found, rows, strict=True):
            each = np.unpackbits(stored.ravel(), count=width * count * bits).reshape(-1, bits)
            values = each @ (1 << np.arange(bits - 1, -1, -1))
            row[:] = np.rint(values * scale).reshape(width, count)
        return np.iinfo(found.dtype).max - found if colors == WHITE_IS_ZERO else found

    return unpacked


def _as_bytes(page: Directory, width: int) -> Directory:
    """What to tell libvips so that it gives rows as they are stored."""
    plain = {_BITS: 8, _SAMPLES: 1, PHOTOMETRIC: BLACK_IS_ZERO}
    changed: Directory = {tag: shorts(value) for tag, value in plain.items()}
    return changed | {WIDTH: _long(_row(page, width))}
