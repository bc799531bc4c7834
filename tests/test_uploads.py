"""Pictures of strangers: their size is known before they are decoded, whatever the bytes are."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from disco_fast.io.images import ImageFileError, Picture, decode_image, encode_image
from disco_fast.io.uploads import decode_upload, pixels

SHAPE = 37, 53
GRAY = np.linspace(0, 255, SHAPE[0] * SHAPE[1]).astype(np.uint8).reshape(*SHAPE, 1)


def files() -> dict[str, bytes]:
    rgb = np.concatenate([GRAY, GRAY[::-1], GRAY[:, ::-1]], 2)
    deep, alpha = rgb.astype(np.uint16) * 257, GRAY[..., 0]
    made = {f"rgb{suffix}": encode_image(Picture(rgb), suffix) for suffix in (".jpg", ".webp")}
    for suffix in (".png", ".tif"):
        made[f"rgb{suffix}"] = encode_image(Picture(rgb), suffix)
        made[f"deep{suffix}"] = encode_image(Picture(deep), suffix)
        made[f"alpha{suffix}"] = encode_image(Picture(rgb, alpha), suffix)
    made["alpha.webp"] = encode_image(Picture(rgb, alpha), ".webp")
    made["gray.jpg"] = encode_image(Picture(GRAY), ".jpg")
    return made


FILES = files()


@pytest.mark.parametrize("name", FILES)
def test_the_head_says_the_size(name: str) -> None:
    assert pixels(FILES[name]) == SHAPE[0] * SHAPE[1]
    assert decode_upload(FILES[name]).pixels.shape[:2] == SHAPE
    with pytest.raises(ImageFileError, match=r"53 x 37 pixels are 0 megapixels; at most 0\.001"):
        decode_upload(FILES[name], 0.001)


def lying_jpeg(width: int, height: int) -> bytes:
    data = bytearray(FILES["rgb.jpg"])
    struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, height, width)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (
            lying_jpeg(32_000, 32_000),
            "32000 x 32000 pixels are 1024 megapixels; at most 40 are read",
        ),
        (b"GIF89a" + struct.pack("<HHB", 30_000, 30_000, 0) + bytes(40), "not a JPEG, PNG"),
        (b"P7\nWIDTH 9000\nHEIGHT 9000\nDEPTH 1\nMAXVAL 255\nENDHDR\n", "not a JPEG, PNG"),
        (b"#?RADIANCE\n\n-Y 1000 +X 30000\n", "not a JPEG, PNG"),
        (
            b"RIFF\x1a\0\0\0WEBPVP8L\x0d\0\0\0\x2f\xff\xff\xff\x0f" + bytes(9),
            "damaged, or cut short",
        ),
        (b"II*\0\x08\0\0\0\x01\0" + bytes(16), "damaged, or cut short"),
        (b"II+\0\x08\0\0\0" + bytes(16), "not a JPEG, PNG"),
        (b"\xff\xd8" + b"\xff" * 1000, "damaged, or cut short"),
        (b"\xff\xd8" + bytes(1000), "not a JPEG, PNG"),
        (b"\x89PNG\r\n\x1a\n", "damaged, or cut short"),
        (b"", "empty"),
    ],
)
def test_what_is_too_large_or_unknown_is_not_decoded(data: bytes, words: str) -> None:
    with pytest.raises(ImageFileError, match=words):
        decode_upload(data)


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_refused_or_has_the_size_that_its_head_says(name: str) -> None:
    """Two readers, one of the head and one of the pixels, must not be played off."""
    draws = np.random.default_rng(0)
    for _ in range(150):
        data = bytearray(FILES[name])
        for place in draws.integers(0, min(len(data), 200), draws.integers(1, 4)):
            data[place] = draws.integers(0, 256)
        try:
            said = pixels(bytes(data), 1)
            found = decode_image(bytes(data)).pixels.shape
        except ImageFileError:
            continue
        assert found[0] * found[1] == said
