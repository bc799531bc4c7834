"""Mutated picture files, in a process of its own: python tests/fuzz_pictures.py COUNT SEED FILE.

Every mutation is refused by `ImageFileError` or decoded, within 5 s and 1 GB beyond what the
process had; and what is decoded is the same whatever memory held before, so nothing of it is
memory that no decoder filled. A crash or a hang ends the process; FILE has what it was.
"""

from __future__ import annotations

import ctypes
import faulthandler
import io
import random
import resource
import signal
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from pillow_heif import register_heif_opener

from disco_fast.io.images import ImageFileError, Pages, Picture, decode_pages, encode_pages
from disco_fast.io.libvips import pyvips

SECONDS, MEMORY = 5, 2**30
_PERTURB = -6  # of glibc's mallopt: what new memory is filled with


def seeds() -> list[bytes]:
    """Small files of all kinds, with all that a file can hold."""
    y, x = np.mgrid[:48, :64]
    gray = np.rint(127 + 90 * np.sin(x / 7) * np.cos(y / 5)).astype(np.uint8)
    rgb = np.stack([gray, gray[::-1], gray[:, ::-1]], axis=2)
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 4), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = "a description", 6
    exif.get_ifd(0x8825)[1] = "N"
    profile = (
        pyvips.Image.black(1, 1, bands=3).copy(interpretation="srgb").pngsave_buffer(profile="p3")
    )
    icc = Image.open(io.BytesIO(profile)).info["icc_profile"]

    def pillow(pixels: np.ndarray, form: str, mode: str | None = None, **options: object) -> bytes:
        picture = Image.fromarray(pixels)
        file = io.BytesIO()
        (picture.convert(mode) if mode else picture).save(file, form, **options)
        return file.getvalue()

    def vips(pixels: np.ndarray, suffix: str, **options: object) -> bytes:
        return pyvips.Image.new_from_array(pixels).write_to_buffer(suffix, **options)

    deep = rgb.astype(np.uint16) * 257
    several = [Image.fromarray(rgb[::-1]), Image.fromarray(noise[..., :3])]
    pages = Pages(tuple(Picture(p) for p in (gray[..., None], rgb, deep)))
    register_heif_opener()
    return [
        pillow(rgb, "HEIF", exif=exif),
        pillow(rgb, "JPEG", exif=exif, icc_profile=icc, comment="a comment"),
        pillow(gray, "JPEG", progressive=True),
        pillow(rgb, "JPEG", "CMYK"),
        pillow(noise, "PNG", exif=exif, icc_profile=icc),
        pillow(gray, "PNG", "P", transparency=3),
        vips(deep, ".png", interlace=True),
        *[vips(rgb, ".tif", compression=c) for c in ("none", "lzw", "deflate", "jpeg", "packbits")],
        vips(deep, ".tif", tile=True, tile_width=16, tile_height=16, compression="deflate"),
        vips(rgb, ".tif", bigtiff=True, pyramid=True, tile=True),
        pillow(gray, "TIFF", "1", compression="group4"),
        pillow(rgb, "TIFF", "CMYK"),
        encode_pages(pages, ".tif"),
        pillow(noise, "WEBP", exif=exif, icc_profile=icc),
        pillow(noise, "WEBP", lossless=True),
        pillow(rgb, "WEBP", save_all=True, append_images=several, duration=[10, 20, 30]),
        pillow(rgb, "PNG", save_all=True, append_images=several, duration=[10, 20, 30]),
        pillow(gray, "GIF"),
        pillow(rgb, "GIF", save_all=True, append_images=several, duration=[10, 20, 30]),
        pillow(rgb, "AVIF", exif=exif),
        pillow(rgb, "BMP"),
        pillow(rgb, "PPM"),
        pillow(rgb, "JPEG2000"),
    ]


def mutated(data: bytes, source: random.Random) -> bytes:
    """The file with a few changes, most of them where it says what it holds."""
    made = bytearray(data)
    for _ in range(source.choice((1, 1, 2, 4, 16))):
        if len(made) < 8:
            break
        reach = source.choice((64, 512, len(made), len(made)))
        place = source.randrange(min(reach, len(made)))
        length = source.choice((1, 1, 2, 4, 8, 64))
        kind = source.randrange(6)
        if kind == 0:
            made[place] ^= 1 << source.randrange(8)
        elif kind == 1:
            made[place : place + length] = source.randbytes(length)
        elif kind == 2:
            made[place : place + length] = source.choice((b"\0", b"\xff", b"\x7f")) * length
        elif kind == 3:
            del made[place : place + length]
        elif kind == 4:
            other = source.randrange(len(made))
            made[place:place] = made[other : other + length]
        else:
            del made[source.randrange(len(made) // 2, len(made)) :]
    return bytes(made)


def decoded(data: bytes, filling: int) -> Pages | None:
    """The pictures, or None if they are refused; new memory is filled with a byte."""
    ctypes.CDLL(None).mallopt(_PERTURB, filling)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        return decode_pages(data)
    except ImageFileError:
        return None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def same(one: Pages, other: Pages) -> bool:
    """Whether two decodings gave the same samples."""
    pairs = zip(one.pictures, other.pictures, strict=True)
    return all(
        np.array_equal(a.pixels, b.pixels)
        and ((a.alpha is None and b.alpha is None) or np.array_equal(a.alpha, b.alpha))
        for a, b in pairs
    )


def main(count: int, seed: int) -> None:
    """Try mutations; exit with an error at the first that is not as promised."""
    faulthandler.enable()
    source, files = random.Random(seed), seeds()
    for data in files:
        assert decoded(data, 0) is not None
    pages_now = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages_now * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    kept = 0
    for number in range(count):
        data = mutated(files[number % len(files)], source)
        Path(sys.argv[3]).write_bytes(data)  # what it was, should the process end here
        first = decoded(data, 0x55)
        if first is not None:
            kept += 1
            second = decoded(data, 0xAA)
            assert second is not None
            assert same(first, second), "memory that nothing filled"
    print(f"{count} mutations, {kept} decoded, {count - kept} refused")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
