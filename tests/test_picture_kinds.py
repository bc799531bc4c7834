"""Kinds of picture files that people have: color, what a file says, pages, refusals, bounds."""

from __future__ import annotations

import io
import os
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import pyvips
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from disco_fast.io import mark as image_mark
from disco_fast.io import tiff_tags
from disco_fast.io.bounds import Budget
from disco_fast.io.images import (
    SUFFIXES,
    ImageFileError,
    Pages,
    Picture,
    decode_image,
    decode_pages,
    encode_image,
    encode_pages,
)

HEIGHT, WIDTH = 40, 60
Y, X = np.mgrid[:HEIGHT, :WIDTH]
GRAY = np.rint(127 + 100 * np.sin(X / 9) * np.cos(Y / 7)).astype(np.uint8)
RGB = np.stack([GRAY, GRAY[::-1], GRAY[:, ::-1] // 2], axis=2)
XMP = (
    b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
    b'rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" dc:format="a scan" '
    b'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
    b'<?xpacket end="w"?>'
)
IPTC = b"\x1c\x02\x78\x00\x05hello"


def lightness(samples: np.ndarray) -> float:
    """Mean L* of sRGB samples, by its definition."""
    unit = samples.astype(float).reshape(-1, samples.shape[-1]) / np.iinfo(samples.dtype).max
    linear = np.where(unit <= 0.04045, unit / 12.92, ((unit + 0.055) / 1.055) ** 2.4)
    y = linear.mean(axis=1) if unit.shape[1] == 1 else linear @ [0.2126, 0.7152, 0.0722]
    return float(np.where(y > 0.008856, 116 * np.cbrt(y) - 16, 903.3 * y).mean())


def pillow(pixels: np.ndarray, form: str, mode: str | None = None, **options) -> bytes:
    picture, file = Image.fromarray(pixels), io.BytesIO()
    (picture.convert(mode) if mode else picture).save(file, form, **options)
    return file.getvalue()


def profile(gamma: float, space: bytes = b"GRAY") -> bytes:
    """A color profile of a plain gamma; of RGB, with primaries wider than those of sRGB."""
    curve = b"curv\0\0\0\0" + struct.pack(">IHxx", 1, round(gamma * 256))
    tags = {b"wtpt": _xyz(0.9642, 1, 0.8249)}
    if space == b"GRAY":
        tags[b"kTRC"] = curve
    else:  # Adobe RGB (1998), adapted to D50
        tags |= {b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
        tags[b"rXYZ"] = _xyz(0.60974, 0.31111, 0.01947)
        tags[b"gXYZ"] = _xyz(0.20528, 0.62567, 0.06087)
        tags[b"bXYZ"] = _xyz(0.14919, 0.06322, 0.74457)
    tags[b"desc"] = b"desc\0\0\0\0" + struct.pack(">I", 2) + b"t\0" + bytes(78)
    tags[b"cprt"] = b"text\0\0\0\0-\0\0\0"
    place, table, content = 128 + 4 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        table += struct.pack(">4sII", name, place + len(content), len(data))
        content += data + b"\0" * (-len(data) % 4)
    head = struct.pack(">4x4sI4s4s4s", b"lcms", 0x02100000, b"mntr", space, b"XYZ ")
    head += struct.pack(">6H4s4s28x", 2026, 1, 1, 0, 0, 0, b"acsp", b"APPL")
    head += struct.pack(">3i", *(round(v * 65536) for v in (0.9642, 1, 0.8249)))
    body = head[4:].ljust(124, b"\0") + struct.pack(">I", len(tags)) + table + content
    return struct.pack(">I", len(body) + 4) + body


def _xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))


# ---- color -------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [1.0, 1.8, 2.6])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF"])
def test_gray_is_as_light_as_its_profile_says(form: str, gamma: float) -> None:
    picture = decode_image(pillow(GRAY, form, icc_profile=profile(gamma)))
    linear = (GRAY / 255.0) ** gamma
    y = np.where(linear > 0.008856, 116 * np.cbrt(linear) - 16, 903.3 * linear)
    assert picture.pixels.shape == (HEIGHT, WIDTH, 1)
    assert lightness(picture.pixels) == pytest.approx(y.mean(), abs=0.5)
    assert gamma == 2.6 or abs(lightness(picture.pixels) - lightness(GRAY[..., None])) > 3


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
def test_rgb_is_what_a_color_managed_viewer_shows(form: str) -> None:
    wide = profile(2.19921875, b"RGB ")
    lossless = {"AVIF": {"quality": 100, "subsampling": "4:4:4"}, "JPEG": {"quality": 98}}
    data = pillow(RGB, form, icc_profile=wide, **lossless.get(form, {}))
    shown = ImageCms.profileToProfile(
        Image.open(io.BytesIO(data)).convert("RGB"),
        ImageCms.ImageCmsProfile(io.BytesIO(wide)),
        ImageCms.createProfile("sRGB"),
    )
    picture = decode_image(data)
    assert np.abs(picture.pixels - np.asarray(shown, int)).mean() < 1.5
    assert np.abs(picture.pixels - RGB.astype(int)).mean() > 4


def test_a_profile_of_srgb_changes_no_sample() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert (decode_image(pillow(RGB, "PNG", icc_profile=srgb)).pixels == RGB).all()
    assert (decode_image(pillow(GRAY, "PNG", icc_profile=srgb)).pixels[..., 0] == GRAY).all()
    assert (decode_image(pillow(RGB, "PNG", icc_profile=b"nonsense" * 20)).pixels == RGB).all()


def test_sixteen_bits_stay_sixteen_through_a_profile() -> None:
    deep = pyvips.Image.new_from_array(GRAY.astype(np.uint16) * 257)
    deep.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile(1.0))
    picture = decode_image(deep.tiffsave_buffer())
    assert picture.pixels.dtype == np.uint16
    assert len(np.unique(picture.pixels)) == len(np.unique(GRAY))
    assert np.unique(picture.pixels % 257).size > 10  # no rounding to 8 bits on the way


def png(pixels: np.ndarray, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG file with more chunks behind its head."""
    data, more = pillow(pixels, "PNG"), b""
    for name, content in chunks:
        check = zlib.crc32(name + content)
        more += struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)
    return data[:33] + more + data[33:]


def chunk(name: bytes, *numbers: float) -> tuple[bytes, bytes]:
    return name, struct.pack(f">{len(numbers)}I", *(round(n * 100_000) for n in numbers))


PRIMARIES = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)


@pytest.mark.parametrize("exponent", [1.0, 1.8, 2.6])
def test_gray_png_is_as_light_as_its_gamma_says(exponent: float) -> None:
    linear = (GRAY / 255.0) ** exponent
    y = np.where(linear > 0.008856, 116 * np.cbrt(linear) - 16, 903.3 * linear)
    for data in (png(GRAY, chunk(b"gAMA", 1 / exponent)),
                 png(np.dstack([GRAY] * 3), chunk(b"gAMA", 1 / exponent))):  # fmt: skip
        assert lightness(decode_image(data).pixels) == pytest.approx(y.mean(), abs=0.5)


def test_png_with_primaries_of_its_own() -> None:
    wide = chunk(b"cHRM", 0.3127, 0.329, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
    by_chunks = decode_image(png(RGB, chunk(b"gAMA", 1 / 2.19921875), wide)).pixels
    by_profile = decode_image(pillow(RGB, "PNG", icc_profile=profile(2.19921875, b"RGB "))).pixels
    assert np.abs(by_chunks.astype(int) - by_profile).max() <= 1
    assert np.abs(by_chunks.astype(int) - RGB).mean() > 4


@pytest.mark.parametrize(
    "chunks",
    [
        [chunk(b"gAMA", 0.45455)],
        [chunk(b"gAMA", 0.45455), chunk(b"cHRM", *PRIMARIES)],
        [chunk(b"gAMA", 1.0), (b"sRGB", b"\0")],
        [chunk(b"gAMA", 0.0), chunk(b"cHRM", *PRIMARIES)],
        [chunk(b"gAMA", 1.0), chunk(b"cHRM", *[0.0] * 8)],
        [chunk(b"cHRM", *PRIMARIES)],
        [(b"gAMA", b"\1")],
    ],
)
def test_numbers_in_a_png_that_mean_srgb_or_nothing(chunks) -> None:
    assert (decode_image(png(RGB, *chunks)).pixels == RGB).all()


@pytest.mark.parametrize("suffix", [s for s in SUFFIXES if s != ".gif"])
def test_results_say_that_they_are_srgb(suffix: str) -> None:
    written = Image.open(io.BytesIO(encode_image(Picture(RGB), suffix)))
    found = ImageCms.ImageCmsProfile(io.BytesIO(written.info["icc_profile"]))
    shown = ImageCms.profileToProfile(
        Image.fromarray(RGB), found, ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    assert np.abs(np.asarray(shown, int) - RGB).max() <= 2


def test_cmyk_and_lab() -> None:
    rgb = Image.fromarray(RGB)
    cmyk = rgb.convert("CMYK")
    for form in ("TIFF", "JPEG"):
        data = _saved(cmyk, form)
        assert lightness(decode_image(data).pixels) == pytest.approx(lightness(RGB), abs=1)
    to_lab = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB", 6504), "RGB", "LAB"
    )
    lab = _saved(ImageCms.applyTransform(rgb, to_lab), "TIFF")
    assert lightness(decode_image(lab).pixels) == pytest.approx(lightness(RGB), abs=1)


def _saved(picture: Image.Image, form: str, **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


@pytest.mark.parametrize("inverted", [False, True])
def test_cmyk_jpeg_without_a_marker_is_taken_the_way_that_paper_could_bear(inverted) -> None:
    with_paper = np.concatenate([RGB, np.full_like(RGB, 190)])
    cmyk = np.asarray(Image.fromarray(with_paper).convert("CMYK"))
    # Pillow writes samples inverted, with the marker; without it they mean what they are.
    data = _saved(Image.fromarray(cmyk if inverted else 255 - cmyk, "CMYK"), "JPEG")
    place = data.index(b"\xff\xee")
    data = data[:place] + data[place + 2 + int.from_bytes(data[place + 2 : place + 4], "big") :]
    assert b"Adobe" not in data
    assert lightness(decode_image(data).pixels) == pytest.approx(lightness(with_paper), abs=1)


# ---- what a file says ---------------------------------------------------------------------------


def described(form: str) -> bytes:
    """A picture with all that a format holds; it lies on its side."""
    exif = Image.Exif()
    exif[0x010E], exif[0x013B], exif[0x8298] = "market day", "a studio", "(c) archive"
    exif[0x0132], exif[0x0112], exif[0x0131] = "1931:05:01 10:00:00", 6, "scanner"
    exif.get_ifd(0x8769)[0x9003] = "1931:05:01 10:00:00"
    exif.get_ifd(0x8825).update({1: "N", 2: (47.0, 22.0, 8.0)})
    options = {"exif": exif.tobytes(), "dpi": (600, 600), "xmp": XMP}
    if form == "JPEG":
        photoshop = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(IPTC)) + IPTC
        segment = b"Photoshop 3.0\0" + photoshop
        data = pillow(GRAY, form, comment="found in a box", **options)
        return data[:2] + b"\xff\xed" + struct.pack(">H", len(segment) + 2) + segment + data[2:]
    if form == "TIFF":
        tags = tiff_tags.first(exif.tobytes().removeprefix(b"Exif\0\0"))
        tags |= {700: tiff_tags.Entry(1, XMP), 33723: tiff_tags.Entry(7, IPTC)}
        return tiff_tags.assembled([pillow(GRAY, form, dpi=(600, 600))], [tags])
    if form == "PNG":
        del options["xmp"]
        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", XMP.decode())
    return pillow(GRAY, form, **options)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".avif"])
def test_what_a_file_says_survives(form: str, suffix: str) -> None:
    picture = decode_image(described(form))
    assert picture.pixels.shape[:2] == (WIDTH, HEIGHT)  # turned upright
    data = encode_image(Picture(picture.pixels, None, picture.kept.marked()), suffix)
    written = Image.open(io.BytesIO(data))
    exif = written.getexif()
    assert [exif[tag] for tag in (0x010E, 0x013B, 0x8298, 0x0132, 0x0131)] == [
        "market day", "a studio", "(c) archive", "1931:05:01 10:00:00", "scanner",
    ]  # fmt: skip
    assert exif.get_ifd(0x8769)[0x9003] == "1931:05:01 10:00:00"
    assert exif.get_ifd(0x8825)[1] == "N"
    assert exif.get(0x0112, 1) == 1
    again = decode_image(data)
    assert again.pixels.shape[:2] == (WIDTH, HEIGHT)
    if form != "WEBP":  # has no place for it but EXIF, where it is not
        assert again.kept.resolution == pytest.approx((600, 600), abs=0.1)
    assert b'dc:format="a scan"' in again.kept.xmp
    assert b'tiff:Orientation="1"' in again.kept.xmp
    assert image_mark.SOURCE_TYPE.encode() in again.kept.xmp
    if form in ("JPEG", "TIFF") and suffix in (".jpg", ".tif"):
        assert again.kept.iptc == IPTC
    if form == "JPEG" and suffix in (".jpg", ".png"):
        assert again.kept.comments == (("Comment", "found in a box"),)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_an_unknown_resolution_stays_unknown(suffix: str) -> None:
    written = Image.open(io.BytesIO(encode_image(Picture(RGB), suffix)))
    assert "dpi" not in written.info or suffix != ".png"
    assert decode_image(encode_image(Picture(RGB), suffix)).kept.resolution in (None, (72, 72))
    if suffix == ".tif":
        assert written.tag_v2[296] == 1  # no unit


def test_a_gray_thumbnail_does_not_survive() -> None:
    small = pillow(GRAY[::4, ::4], "JPEG")
    block = bytearray(tiff_tags.exif_block({271: tiff_tags.Entry(2, b"maker\0")}))
    second = len(block)
    struct.pack_into("<I", block, 8 + 2 + 12, second)  # the next directory: of the thumbnail
    block += struct.pack("<HHHIIHHIII", 2, 513, 4, 1, second + 30, 514, 4, 1, len(small), 0) + small
    data = pillow(GRAY, "JPEG", exif=b"Exif\0\0" + bytes(block))
    assert data.count(b"\xff\xd8\xff") == 2
    picture = decode_image(data)
    written = encode_image(picture, ".jpg")
    assert written.count(b"\xff\xd8\xff") == 1
    assert Image.open(io.BytesIO(written)).getexif()[271] == "maker"


def test_the_mark_is_there_once_and_keeps_the_rest() -> None:
    once = image_mark.marked(XMP)
    assert image_mark.marked(once).count(image_mark.SOURCE_TYPE.encode()) == 1
    assert b'dc:format="a scan"' in image_mark.marked(once)
    for damaged in (None, b"", b"no packet", XMP[:200], b"\xff\xfe\x00"):
        assert image_mark.marked(damaged).count(image_mark.SOURCE_TYPE.encode()) == 1
    other = XMP.replace(
        b"dc:format=",
        b'xmlns:e="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" e:DigitalSourceType="x" dc:format=',
    )
    assert b'DigitalSourceType="x"' not in image_mark.marked(other)
    assert b"a scan" in image_mark.marked(XMP.decode().encode("utf-16"))


def test_a_packet_that_a_jpeg_cannot_hold_leaves_its_mark() -> None:
    long = XMP.replace(b"a scan", b"long " * 20_000)
    kept = decode_image(pillow(GRAY, "WEBP", xmp=long)).kept
    written = decode_image(encode_image(Picture(RGB, None, kept.marked()), ".jpg")).kept
    assert image_mark.SOURCE_TYPE.encode() in written.xmp
    assert encode_image(Picture(RGB, None, kept.marked()), ".png").count(b"iTXt") == 1
    assert decode_image(encode_image(Picture(RGB, None, kept), ".jpg")).kept.xmp is None


# ---- kinds --------------------------------------------------------------------------------------


def tiff(pixels: np.ndarray, tags: dict[int, int] | None = None, **options) -> bytes:
    """A TIFF of libvips, some of whose tags say something else."""
    image = pyvips.Image.new_from_array(np.ascontiguousarray(pixels))
    changed = {tag: tiff_tags.shorts(number) for tag, number in (tags or {}).items()}
    return tiff_tags.assembled([image.tiffsave_buffer(**options)], [changed])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    "options",
    [
        {"compression": "lzw"},
        {"compression": "deflate", "predictor": "horizontal"},
        {"compression": "packbits"},
        {"tile": True, "tile_width": 16, "tile_height": 16},
        {"bigtiff": True},
        {"bigtiff": True, "tile": True, "compression": "deflate"},
    ],
)
def test_tiffs(dtype: type, options: dict) -> None:
    pixels = RGB.astype(dtype) * (257 if dtype == np.uint16 else 1)
    picture = decode_image(tiff(pixels, **options))
    assert picture.pixels.dtype == dtype
    assert (picture.pixels == pixels).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_with_separate_planes(dtype: type) -> None:
    pixels = RGB.astype(dtype) * (257 if dtype == np.uint16 else 1)
    planes = [np.ascontiguousarray(pixels[..., c]).tobytes() for c in range(3)]
    starts = np.cumsum([0] + [len(plane) for plane in planes[:-1]]) + 8
    bits, one = 8 * pixels.itemsize, tiff_tags.shorts(1)
    directory = {
        256: tiff_tags.shorts(WIDTH), 257: tiff_tags.shorts(HEIGHT),
        258: tiff_tags.shorts(bits, bits, bits), 259: one, 262: tiff_tags.shorts(2),
        273: tiff_tags.Entry(4, struct.pack("<3I", *starts)), 277: tiff_tags.shorts(3),
        278: tiff_tags.shorts(HEIGHT), 284: tiff_tags.shorts(2),
        279: tiff_tags.Entry(4, struct.pack("<3I", *map(len, planes))),
    }  # fmt: skip
    # The directory stands in front of the samples in a block of its own; it moves behind them.
    layout = tiff_tags._Layout("<", big=False)
    place = 8 + sum(map(len, planes))
    data = b"II*\0" + struct.pack("<I", place) + b"".join(planes)
    data += tiff_tags._written(directory, place, layout)
    assert (decode_image(data).pixels == pixels).all()


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("white_is_zero", [False, True])
def test_gray_of_few_bits(bits: int, white_is_zero: bool) -> None:
    levels = GRAY >> (8 - bits)
    image = pyvips.Image.new_from_array(levels * np.uint8(255 // (2**bits - 1)))
    data = image.tiffsave_buffer(bitdepth=bits, miniswhite=white_is_zero)
    shown = decode_image(data).pixels[..., 0]
    assert (shown == levels * (255 // (2**bits - 1))).all()


def test_sixteen_bits_whose_white_is_zero() -> None:
    deep = GRAY.astype(np.uint16) * 257
    picture = decode_image(tiff(deep, {262: 0}))
    assert picture.pixels.dtype == np.uint16
    assert (picture.pixels[..., 0] == 65535 - deep).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_gray_tiff_with_alpha(dtype: type) -> None:
    scale = 257 if dtype == np.uint16 else 1
    pair = np.stack([GRAY, GRAY[::-1]], axis=2).astype(dtype) * scale
    image = pyvips.Image.new_from_array(pair)
    names = {np.uint8: "b-w", np.uint16: "grey16"}
    picture = decode_image(image.copy(interpretation=names[dtype]).tiffsave_buffer())
    assert (picture.pixels[..., 0] == pair[..., 0]).all()
    assert (picture.alpha == pair[..., 1]).all()


def test_colors_that_are_multiplied_by_their_alpha_are_divided_by_it() -> None:
    alpha = np.maximum(GRAY, 60)[..., None]
    multiplied = np.rint(RGB * (alpha / 255.0)).astype(np.uint8)
    data = tiff(np.concatenate([multiplied, alpha], axis=2), {338: 1})
    picture = decode_image(data)
    assert (picture.alpha == alpha[..., 0]).all()
    assert np.abs(picture.pixels.astype(int) - RGB).max() <= 3


def test_every_page_of_a_tiff_of_all_sizes_and_depths() -> None:
    deep = RGB[:20].astype(np.uint16) * 257
    pages = Pages((Picture(GRAY[..., None]), Picture(RGB[:, :30].copy()), Picture(deep)))
    again = decode_pages(encode_pages(pages, ".tif"))
    assert again.times is None
    assert len(again.pictures) == 3
    for one, other in zip(pages.pictures, again.pictures, strict=True):
        assert one.pixels.dtype == other.pixels.dtype
        assert (one.pixels == other.pixels).all()
    assert (decode_image(encode_pages(pages, ".tif")).pixels == pages.pictures[0].pixels).all()
    for suffix in (".png", ".jpg", ".webp", ".gif", ".avif"):
        with pytest.raises(ImageFileError, match=f"{suffix} holds one picture, not 3"):
            encode_pages(pages, suffix)


def test_previews_and_masks_in_a_tiff_are_no_pages() -> None:
    small, whole = Picture(GRAY[::4, ::4, None].copy()), Picture(GRAY[..., None])
    files = [encode_image(picture, ".tif") for picture in (small, whole, small)]
    reduced, mask = tiff_tags.Entry(4, b"\1\0\0\0"), tiff_tags.Entry(4, b"\4\0\0\0")
    data = tiff_tags.assembled(files, [{254: reduced}, {}, {254: mask}])
    (picture,) = decode_pages(data).pictures
    assert (picture.pixels[..., 0] == GRAY).all()


@pytest.mark.parametrize(("form", "suffix"), [("GIF", ".gif"), ("WEBP", ".webp")])
def test_every_frame_of_an_animation(form: str, suffix: str) -> None:
    frames = [Image.fromarray(np.roll(RGB, 7 * n, axis=1)) for n in range(3)]
    times = [100, 250, 70]
    data = pillow(RGB, form, save_all=True, append_images=frames[1:], duration=times, loop=2)
    pages = decode_pages(data)
    assert pages.times == (100, 250, 70)
    for picture, frame in zip(pages.pictures, frames, strict=True):
        assert np.abs(picture.pixels.astype(int) - np.asarray(frame)).mean() < 6
    again = decode_pages(encode_pages(pages, suffix))
    assert (again.times, again.loops) == (pages.times, pages.loops)
    assert len(again.pictures) == 3
    with pytest.raises(ImageFileError, match=r"choose .* \.webp \.gif"):
        encode_pages(pages, ".png")


def test_every_frame_of_an_animated_png() -> None:
    frames = [Image.fromarray(np.roll(RGB, 7 * n, axis=1)) for n in range(3)]
    options = {"save_all": True, "append_images": frames[1:], "duration": [100, 250, 70], "loop": 2}
    data = pillow(RGB, "PNG", **options)
    pages = decode_pages(data)
    assert (pages.times, pages.loops) == ((100, 250, 70), 2)
    for picture, frame in zip(pages.pictures, frames, strict=True):
        assert (picture.pixels == np.asarray(frame)).all()
    with pytest.raises(ImageFileError, match="3 times up to"):
        decode_pages(data, 2.5 * HEIGHT * WIDTH / 1e6)
    assert (decode_image(data).pixels == RGB).all()


def test_every_frame_of_an_animated_avif() -> None:
    frames = [Image.fromarray(np.roll(RGB, 7 * n, axis=1)) for n in range(3)]
    pages = decode_pages(
        pillow(RGB, "AVIF", save_all=True, append_images=frames[1:], duration=80, quality=95)
    )
    assert pages.times == (80, 80, 80)
    for picture, frame in zip(pages.pictures, frames, strict=True):
        assert np.abs(picture.pixels.astype(int) - np.asarray(frame)).mean() < 6


@pytest.mark.parametrize("form", ["BMP", "DIB", "PPM", "JPEG2000", "TGA", "PCX"])
def test_formats_that_libvips_lacks(form: str) -> None:
    options = {"irreversible": False} if form == "JPEG2000" else {}
    data = pillow(RGB, form, **options)
    assert (decode_image(data).pixels == RGB).all()
    for share in (0.3, 0.6, 0.9):
        if form not in ("TGA", "PCX", "DIB"):
            with pytest.raises(ImageFileError, match="cut short"):
                decode_image(data[: int(len(data) * share)])


@pytest.mark.parametrize("most", [100, 255, 4095, 65535])
@pytest.mark.parametrize("kind", [2, 3, 5, 6])
def test_white_of_a_pnm_is_what_it_says(kind: int, most: int) -> None:
    levels = np.array([0, most // 4, most // 2, most, most, 1])
    head = b"P%d\n# a comment\n%d 1\n%d\n" % (kind, 6 if kind in (2, 5) else 2, most)
    text = " ".join(map(str, levels)).encode() + b"\n"
    raw = levels.astype(">u2" if most > 255 else "u1").tobytes()
    shown = decode_image(head + (text if kind < 4 else raw)).pixels
    full = 65535 if most > 255 else 255
    assert shown.dtype == (np.uint16 if most > 255 else np.uint8)
    assert np.abs(shown.ravel() - levels * (full / most)).max() <= 1


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_white_of_a_jpeg_2000_is_what_it_says(bits: int) -> None:
    deep = np.full((64, 64), 2**bits - 1, np.uint16 if bits > 8 else np.uint8)
    deep[0] = 0
    # OpenCV writes 16 bits and not 12; the head says how many of them are used, about which middle.
    stored = deep + np.uint16(2**15 - 2**11) if bits == 12 else deep
    encoded = cv2.imencode(".jp2", stored, [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000])[1]
    data = bytearray(encoded)
    if bits == 12:
        data[data.index(b"\xff\x51") + 40] = bits - 1
    shown = decode_image(bytes(data)).pixels
    assert (shown[1:] == np.iinfo(deep.dtype).max).all()
    assert (shown[0] == 0).all()


def test_gray_with_alpha_in_jpeg_2000_is_not_called_damaged() -> None:
    with pytest.raises(ImageFileError, match="gray with alpha in JPEG 2000 is not read"):
        decode_image(pillow(np.dstack([GRAY, GRAY]), "JPEG2000"))


def test_heic() -> None:
    heif = pytest.importorskip("pillow_heif", reason="HEIC is read by it; see the extra [formats]")
    file = io.BytesIO()
    heif.from_pillow(Image.fromarray(RGB)).save(file, quality=-1, chroma=444)
    assert np.abs(decode_image(file.getvalue()).pixels - RGB.astype(int)).max() <= 3


def test_heic_of_several_images_is_refused_by_name() -> None:
    heif = pytest.importorskip("pillow_heif", reason="HEIC is read by it; see the extra [formats]")
    file, images = io.BytesIO(), heif.from_pillow(Image.fromarray(RGB))
    images.add_from_pillow(Image.fromarray(RGB[::-1]))
    images.save(file)
    with pytest.raises(ImageFileError, match="it holds 2 images: save them one by one"):
        decode_image(file.getvalue())


@pytest.mark.parametrize("shape", [(300, 500), (400, 640), (48, 64), (17, 9000), (64, 64)])
@pytest.mark.parametrize("boxed", [False, True])
def test_jpeg_xl(shape: tuple[int, int], boxed: bool) -> None:
    pytest.importorskip("pillow_jxl", reason="it reads JPEG XL; see the extra [formats]")
    pixels = np.zeros((*shape, 3), np.uint8)
    pixels[5:] = 90
    options = {"exif": b"Exif\0\0II*\0" + bytes(8)} if boxed else {}
    data = pillow(pixels, "JXL", lossless=True, **options)
    assert data.startswith(b"\xff\x0a") != boxed
    assert (decode_image(data).pixels == pixels).all()
    height, width = shape
    with pytest.raises(ImageFileError, match=f"{width} x {height} pixels are .* megapixels"):
        decode_image(data, 1e-4)


def test_a_decoder_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)
    with pytest.raises(ImageFileError, match=r"pip install 'disco_fast\[formats\]'"):
        decode_image(b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(100))


# ---- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF", "JPEG", "AVIF", "JPEG2000", "BMP"])
@pytest.mark.parametrize("several", [False, True])
def test_what_is_cut_short_is_refused(form: str, share: float, several: bool) -> None:
    options: dict = {}
    if several and form not in ("JPEG", "AVIF", "PNG", "JPEG2000", "BMP"):
        options = {"save_all": True, "append_images": [Image.fromarray(RGB[::-1])]}
    data = pillow(RGB, form, **options)
    with pytest.raises(ImageFileError, match="cut short"):
        decode_pages(data[: int(len(data) * share)])


def test_a_damaged_strip_and_an_unknown_compression_are_refused() -> None:
    data = bytearray(tiff(RGB, compression="lzw"))
    data[200:600] = bytes(400)
    with pytest.raises(ImageFileError, match="damaged"):
        decode_image(bytes(data))
    with pytest.raises(ImageFileError, match="34712"):  # JPEG 2000 within TIFF
        decode_image(tiff(RGB, {259: 34712}))


def test_a_jpeg_that_lacks_only_its_end_is_whole() -> None:
    data = pillow(RGB, "JPEG")
    whole = decode_image(data).pixels
    assert (decode_image(data[:-2]).pixels == whole).all()
    assert (decode_image(data + b"rubbish behind it").pixels == whole).all()
    assert (decode_image(data[:-2] + b"\0" * 8 + data[-2:]).pixels == whole).all()
    with pytest.raises(ImageFileError, match="cut short"):
        decode_image(data[:-40])


def test_directories_that_never_end_are_refused() -> None:
    data = bytearray(tiff(GRAY))
    (first,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, first)
    struct.pack_into("<I", data, first + 2 + 12 * count, first)
    with pytest.raises(ImageFileError, match="no end"):
        decode_pages(bytes(data))


# ---- bounds -------------------------------------------------------------------------------------


def claiming(width: int, height: int) -> bytes:
    """A small JPEG that says it is large."""
    data = bytearray(pillow(GRAY, "JPEG"))
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (claiming(32_000, 32_000), "1024 megapixels; at most 250 are read"),
        (claiming(12_000, 12_000), "cannot hold"),
        (b"GIF89a" + struct.pack("<HH", 30_000, 30_000) + b"\0\0\0,\0\0\0\0"
         + struct.pack("<HH", 30_000, 30_000) + b"\0\2\2L\1\0;", "900 megapixels|cut short"),
        (b"P5 30000 30000 255\n" + bytes(50), "900 megapixels"),
        (b"BM" + struct.pack("<IHHIIiiHHI24x", 60, 0, 0, 54, 40, 30_000, 30_000, 1, 24, 1),
         "900 megapixels"),
        (pillow(GRAY, "JPEG2000").replace(struct.pack(">II", WIDTH, HEIGHT),
         struct.pack(">II", 60_000, 60_000)), "3600 megapixels"),
        (tiff(GRAY, {256: 60_000, 257: 60_000}), "3600 megapixels"),
    ],
)  # fmt: skip
def test_what_claims_to_be_large_is_refused_before_it_is_decoded(data: bytes, reason: str) -> None:
    with pytest.raises(ImageFileError, match=reason):
        decode_image(data)


def test_the_bound_is_the_callers_and_counts_all_pages() -> None:
    pages = Pages((Picture(GRAY[..., None]), Picture(GRAY[..., None])))
    data = encode_pages(pages, ".tif")
    one = HEIGHT * WIDTH / 1e6
    assert len(decode_pages(data, 2 * one).pictures) == 2
    decode_image(data, one)
    with pytest.raises(ImageFileError, match="2 times up to"):
        decode_pages(data, 1.9 * one)
    with pytest.raises(ImageFileError, match="megapixels"):
        decode_image(data, 0.9 * one)


def test_many_threads_decode_at_once_and_each_gets_its_own() -> None:
    pictures = [np.roll(RGB, 3 * n, axis=1) for n in range(12)]
    forms = ("PNG", "TIFF", "GIF", "WEBP")
    options = {"WEBP": {"lossless": True}}
    files = [pillow(p, form, **options.get(form, {})) for p in pictures for form in forms]
    alone = [decode_image(data).pixels for data in files]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            together = pool.map(decode_image, files)
            for one, other in zip(alone, together, strict=True):
                assert np.array_equal(one, other.pixels)


def test_a_budget_is_shared_and_never_blocks_what_is_alone() -> None:
    budget, order = Budget(10), []
    first_in, let_go = threading.Event(), threading.Event()

    def first() -> None:
        with budget.taken(100):
            first_in.set()
            let_go.wait(30)
            order.append("first")

    def second() -> None:
        with budget.taken(1):
            order.append("second")

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    assert first_in.wait(30)
    threads[1].start()
    let_go.set()
    for thread in threads:
        thread.join(30)
    assert order == ["first", "second"]


# ---- in a container, and under attack -----------------------------------------------------------


DESKTOP = ("libGL.so", "libX11.so", "libxcb.so", "libgthread-2.0.so")


def colorizing(folder: Path) -> list[str]:
    """A command that makes and colorizes pictures, and then says which libraries it has loaded."""
    (folder / "in").mkdir()
    for form, name in (("JPEG", "a.jpg"), ("PNG", "b.png"), ("TIFF", "c.tif"), ("BMP", "d.bmp")):
        (folder / "in" / name).write_bytes(pillow(RGB, form))
    arguments = ["colorize", str(folder / "in"), "-o", str(folder / "out"), "--working-size", "32",
                 "--reference", str(folder / "in" / "b.png")]  # fmt: skip
    code = (
        f"import sys; sys.path.insert(0, {str(folder)!r})\n"
        f"from disco_fast.cli import main\nstatus = main({arguments!r})\n"
        f"loaded = open('/proc/self/maps').read() if sys.platform == 'linux' else ''\n"
        f"print([name for name in {DESKTOP!r} if name in loaded])\nraise SystemExit(status)"
    )
    return [sys.executable, "-c", code]


def check_without_opencv(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, cwd=tempfile.gettempdir())
    assert (done.returncode, done.stdout) == (1, "[]\n"), done.stderr
    assert "3 of 4 pictures done, 1 failed" in done.stderr
    assert "d.bmp: reading BMP needs OpenCV" in done.stderr
    assert "libgl1" in done.stderr
    assert "opencv-python-headless" in done.stderr


def test_from_file_to_file_without_opencv(tmp_path: Path) -> None:
    """As in a slim container, where its import fails for want of libGL."""
    (tmp_path / "cv2.py").write_text("raise ImportError('libGL.so.1: cannot open shared object')")
    check_without_opencv(colorizing(tmp_path))


@pytest.mark.skipif(shutil.which("unshare") is None, reason="name spaces are those of Linux")
def test_from_file_to_file_where_the_libraries_of_a_desktop_are_hidden(tmp_path: Path) -> None:
    """The same with the libraries truly out of reach, in a name space of its own."""
    own = ["unshare", "--map-root-user", "--mount"]
    listed = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=False)
    paths = [line.split(" => ")[1] for line in listed.stdout.splitlines() if " => " in line]
    there = {os.path.realpath(p) for p in paths if os.path.basename(p).startswith(DESKTOP)}
    hide = " && ".join(f"mount --bind /dev/null {shlex.quote(path)}" for path in there) or "true"
    hidden = [*own, "sh", "-c", f'{hide} && exec "$@"', "sh"]
    if subprocess.run([*hidden, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system gives no name spaces")
    if not subprocess.run([*hidden, sys.executable, "-c", "import cv2"], capture_output=True,
                          check=False).returncode:  # fmt: skip
        pytest.skip("this OpenCV needs none of these libraries")
    check_without_opencv([*hidden, *colorizing(tmp_path)])


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are those of Linux")
def test_mutated_files_never_crash_nor_hang_nor_show_memory(tmp_path: Path) -> None:
    script = Path(__file__).with_name("fuzz_pictures.py")
    count, last = os.environ.get("DISCO_FAST_MUTATIONS", "500"), tmp_path / "last.bin"
    done = subprocess.run(
        [sys.executable, script, count, "1", last],
        capture_output=True,
        text=True,
        cwd=tempfile.gettempdir(),
        timeout=60 + float(count),
    )
    found = last.read_bytes().hex() if done.returncode else ""
    assert done.returncode == 0, f"{done.stderr}\nby {found}"
    assert done.stdout.startswith(f"{count} mutations, ")


def test_opencv_reads_pictures_written_here() -> None:
    data = np.frombuffer(encode_image(Picture(RGB), ".png"), np.uint8)
    assert (cv2.imdecode(data, cv2.IMREAD_COLOR_RGB) == RGB).all()
