"""Pages of TIFF files however they are stored: strips, tiles, planes, bits, codecs; and damage."""

from __future__ import annotations

import lzma
import struct
import zlib

import numpy as np
import pytest
import pyvips

from disco_fast.io import tiff_tags
from disco_fast.io.images import ImageFileError, decode_image, decode_pages
from disco_fast.io.tiff_tags import Directory, Entry, shorts

HEIGHT, WIDTH = 40, 60
Y, X = np.mgrid[:HEIGHT, :WIDTH]
GRAY = np.rint(127 + 100 * np.sin(X / 9) * np.cos(Y / 7)).astype(np.uint8)
RGB = np.stack([GRAY, GRAY[::-1], GRAY[:, ::-1] // 2], axis=2)
NOISE = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
STRIPS, TILES = (273, 279), (324, 325)


def longs(*numbers: int) -> Entry:
    return Entry(4, struct.pack(f"<{len(numbers)}I", *numbers))


def described(bits: int, samples: int, colors: int, compression: int = 1) -> Directory:
    return {
        256: shorts(WIDTH), 257: shorts(HEIGHT), 258: shorts(*[bits] * samples),
        259: shorts(compression), 262: shorts(colors), 277: shorts(samples), 278: shorts(HEIGHT),
    }  # fmt: skip


def file(directory: Directory, stored: list[bytes], tags: tuple[int, int] = STRIPS) -> bytes:
    """A TIFF file of one page."""
    made, starts = b"II*\0\0\0\0\0", []
    for content in stored:
        starts.append(len(made))
        made += content + b"\0" * (-len(content) % 8)
    directory = directory | {tags[0]: longs(*starts), tags[1]: longs(*map(len, stored))}
    layout = tiff_tags._Layout("<", big=False)
    behind = tiff_tags._written(directory, len(made), layout)
    return made[:4] + struct.pack("<I", len(made)) + made[8:] + behind


def tiled(pixels: np.ndarray, across: int, down: int) -> list[bytes]:
    """The tiles of (H, W, C) or (H, W) samples, those at the edges filled up."""
    rest = [(0, -pixels.shape[0] % down), (0, -pixels.shape[1] % across)]
    filled = np.pad(pixels, rest + [(0, 0)] * (pixels.ndim - 2))
    return [
        np.ascontiguousarray(filled[y : y + down, x : x + across]).tobytes()
        for y in range(0, filled.shape[0], down)
        for x in range(0, filled.shape[1], across)
    ]


def saved(pixels: np.ndarray, **options: object) -> bytes:
    return pyvips.Image.new_from_array(pixels).tiffsave_buffer(**options)


# ---- how samples are stored ---------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["none", "lzw", "deflate", "packbits"])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("pixels", [GRAY, RGB, RGB.astype(np.uint16) * 257 + 3], ids=str)
def test_tiles(pixels: np.ndarray, big: bool, compression: str) -> None:
    data = saved(
        pixels, tile=True, tile_width=16, tile_height=32, bigtiff=big, compression=compression
    )
    picture = decode_image(data)
    assert picture.pixels.dtype == pixels.dtype
    assert (picture.pixels.squeeze() == pixels).all()


@pytest.mark.parametrize("tile", [False, True])
def test_webp_within_tiff(tile: bool) -> None:
    data = saved(RGB, compression="webp", lossless=True, tile=tile, tile_width=16, tile_height=32)
    assert (decode_image(data).pixels == RGB).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiles_of_separate_planes(dtype: type) -> None:
    pixels = RGB.astype(dtype) * (257 if dtype == np.uint16 else 1)
    planes = [tile for plane in np.moveaxis(pixels, 2, 0) for tile in tiled(plane, 32, 16)]
    page = described(8 * pixels.itemsize, 3, 2) | {284: shorts(2), 322: shorts(32), 323: shorts(16)}
    assert (decode_image(file(page, planes, TILES)).pixels == pixels).all()


def packed(values: np.ndarray, bits: int) -> bytes:
    """Rows of samples, each padded to whole bytes."""
    flat = values.reshape(values.shape[0], -1)
    each = (flat[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(each.reshape(flat.shape[0], -1).astype(np.uint8), axis=1).tobytes()


@pytest.mark.parametrize("bits", [3, 6, 10, 12, 14])
@pytest.mark.parametrize("colors", [0, 1, 2])
def test_samples_of_odd_sizes(bits: int, colors: int) -> None:
    values = (RGB if colors == 2 else GRAY).astype(np.uint32) * 257 >> (16 - bits)
    most = 65535 if bits > 8 else 255
    expected = np.rint(values * (most / (2**bits - 1)))
    expected = most - expected if colors == 0 else expected
    page = described(bits, 3 if colors == 2 else 1, colors)
    for data in (
        file(page, [packed(values, bits)]),
        file(page | {278: shorts(16)}, [packed(values[y : y + 16], bits) for y in (0, 16, 32)]),
        file(page | {259: shorts(8)}, [zlib.compress(packed(values, bits))]),
    ):
        picture = decode_image(data)
        assert picture.pixels.dtype == (np.uint16 if bits > 8 else np.uint8)
        assert (picture.pixels.squeeze() == expected).all()


def test_odd_sizes_in_tiles() -> None:
    values = GRAY.astype(np.uint32) << 4
    rest = np.pad(values, ((0, 8), (0, 4)))
    tiles = [packed(rest[y : y + 16, x : x + 32], 12) for y in (0, 16, 32) for x in (0, 32)]
    page = described(12, 1, 1) | {322: shorts(32), 323: shorts(16)}
    expected = np.rint(values * (65535 / 4095))
    assert (decode_image(file(page, tiles, TILES)).pixels[..., 0] == expected).all()


@pytest.mark.parametrize(("code", "name"), [(34925, "LZMA"), (50000, "ZSTD")])
@pytest.mark.parametrize("predictor", [1, 2])
def test_codecs_that_libtiff_lacks(code: int, name: str, predictor: int) -> None:
    if name == "ZSTD":
        zstandard = pytest.importorskip("zstandard", reason="it decodes ZSTD; extra [formats]")
        compressed = zstandard.ZstdCompressor().compress
    else:
        compressed = lzma.compress
    before = np.concatenate([np.zeros_like(RGB[:, :1]), RGB[:, :-1]], axis=1)
    samples = RGB - before if predictor == 2 else RGB
    page = described(8, 3, 2, code) | {317: shorts(predictor)}
    stored = compressed(samples.tobytes())
    assert (decode_image(file(page, [stored])).pixels == RGB).all()
    for damaged in (
        stored[: len(stored) // 2],
        b"no such thing" * 9,
        compressed(RGB.tobytes()[:-600]),
    ):
        with pytest.raises(ImageFileError, match="damaged"):
            decode_image(file(page, [damaged]))


def test_icc_lab_has_its_chroma_offset() -> None:
    lab = np.stack([GRAY, np.full_like(GRAY, 128), np.full_like(GRAY, 128)], axis=2)
    shown = decode_image(file(described(8, 3, 9), [lab.tobytes()])).pixels
    signed = decode_image(file(described(8, 3, 8), [(lab ^ [0, 128, 128]).astype("u1").tobytes()]))
    assert (shown == signed.pixels).all()
    assert np.ptp(shown.astype(int), axis=2).max() <= 1  # gray


def test_a_preview_with_the_picture_below_it() -> None:
    whole = file(described(8, 1, 1), [GRAY.tobytes()])
    (place,) = struct.unpack_from("<I", whole, 4)
    small = np.ascontiguousarray(GRAY[::4, ::4])
    page = described(8, 1, 1) | {256: shorts(15), 257: shorts(10), 278: shorts(10),
                                 254: longs(1), 330: longs(place)}  # fmt: skip
    start = len(whole)
    page |= {273: longs(start), 279: longs(small.size)}
    data = whole + small.tobytes() + b"\0" * (-small.size % 8)
    end = len(data)
    data += tiff_tags._written(page, end, tiff_tags._Layout("<", big=False))
    (picture,) = decode_pages(data[:4] + struct.pack("<I", end) + data[8:]).pictures
    assert (picture.pixels[..., 0] == GRAY).all()


# ---- damage, and what is not read ---------------------------------------------------------------


@pytest.mark.parametrize("compression", ["lzw", "deflate", "packbits", "jpeg"])
@pytest.mark.parametrize("tile", [False, True])
def test_damage_within_a_strip_or_tile(compression: str, tile: bool) -> None:
    data = bytearray(saved(NOISE, compression=compression, tile=tile, tile_width=32,
                           tile_height=32, Q=90))  # fmt: skip
    middle = len(data) // 2
    data[middle : middle + 400] = 400 * b"\xfe"
    with pytest.raises(ImageFileError, match="damaged"):
        decode_image(bytes(data))


@pytest.mark.parametrize("squash", ["ccittfax4"])
def test_damaged_fax(squash: str) -> None:
    ink = np.where(NOISE[..., 0] > 127, 255, 0).astype(np.uint8)
    data = bytearray(saved(ink, compression=squash, bitdepth=1))
    middle = len(data) // 2
    data[middle : middle + 60] = bytes(60)
    with pytest.raises(ImageFileError, match="damaged"):
        decode_image(bytes(data))


@pytest.mark.parametrize("tags", [STRIPS, TILES])
@pytest.mark.parametrize("places", [(0, 0), (10**6, 100), (8, 0)])
def test_a_strip_or_tile_that_is_not_there(tags: tuple[int, int], places: tuple[int, int]) -> None:
    tiles = tiled(GRAY, 32, 16)
    size = {322: shorts(32), 323: shorts(16)} if tags == TILES else {278: shorts(16)}
    pieces = tiles if tags == TILES else [GRAY[y : y + 16].tobytes() for y in (0, 16, 32)]
    page = described(8, 1, 1) | size
    data = bytearray(file(page, pieces, tags))
    assert (decode_image(bytes(data)).pixels[..., 0] == GRAY).all()
    directory = tiff_tags.first(bytes(data))
    for tag, value in zip(tags, places, strict=True):
        entry = directory[tag]
        assert isinstance(entry, Entry)
        at = bytes(data).rindex(entry.data)
        struct.pack_into("<I", data, at + 4, value)
    with pytest.raises(ImageFileError, match="damaged"):
        decode_image(bytes(data))


def test_tiles_that_are_alike_may_be_there_once() -> None:
    tile = np.arange(16 * 32, dtype=np.uint8).tobytes()
    page = described(8, 1, 1) | {322: shorts(32), 323: shorts(16)}
    page |= {324: longs(*[8] * 6), 325: longs(*[len(tile)] * 6)}
    end = 8 + len(tile)
    layout = tiff_tags._Layout("<", big=False)
    data = b"II*\0" + struct.pack("<I", end) + tile + tiff_tags._written(page, end, layout)
    one = np.frombuffer(tile, np.uint8).reshape(16, 32)
    assert (decode_image(data).pixels[..., 0] == np.tile(one, (3, 2))[:HEIGHT, :WIDTH]).all()


@pytest.mark.parametrize("bits", [shorts(0), Entry(2, b"8\0"), shorts(17)])
def test_bits_that_no_sample_has(bits: Entry) -> None:
    with pytest.raises(ImageFileError):
        decode_image(file(described(8, 1, 1) | {258: bits}, [GRAY.tobytes()]))


def test_pieces_that_overlap_or_are_too_large() -> None:
    page = described(8, 1, 1) | {278: shorts(1)}
    data = file(page, [GRAY.tobytes()])
    starts = longs(*range(8, 8 + HEIGHT))
    layout = tiff_tags._Layout("<", big=False)
    overlapping = page | {273: starts, 279: longs(*[GRAY.size] * HEIGHT)}
    end = len(data)
    data += tiff_tags._written(overlapping, end, layout)
    with pytest.raises(ImageFileError, match="overlap"):
        decode_image(data[:4] + struct.pack("<I", end) + data[8:])
    huge = described(8, 1, 1) | {322: longs(65536), 323: longs(65536)}
    with pytest.raises(ImageFileError, match="65536 x 65536 pixels are too large"):
        decode_image(file(huge, [b"x"], TILES))


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({259: shorts(34887)}, r"LERC \(34887\) are not read"),
        ({259: shorts(34712)}, r"JPEG 2000 \(34712\) are not read"),
        ({259: shorts(999)}, r"an unknown method \(999\) are not read"),
        ({262: shorts(32803)}, "colors of kind 32803 are not read"),
        ({262: shorts(6)}, "YCbCr outside of JPEG is not read"),
    ],
)
def test_what_is_not_read_is_not_called_damaged(tags: Directory, reason: str) -> None:
    for tiles in (False, True):
        pieces = tiled(GRAY, 32, 16) if tiles else [GRAY.tobytes()]
        size = {322: shorts(32), 323: shorts(16)} if tiles else {}
        page = described(8, 1, 1) | size | tags
        with pytest.raises(ImageFileError, match=reason) as refused:
            decode_image(file(page, pieces, TILES if tiles else STRIPS))
        assert "damaged" not in str(refused.value)
