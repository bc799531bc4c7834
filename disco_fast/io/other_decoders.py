"""Formats that libvips, as its wheel is built, does not decode.

BMP, PNM and JPEG 2000 by OpenCV; HEIC, JPEG XL, TGA and PCX by Pillow and its plugins.
"""

from __future__ import annotations

import io
import re
import struct
from types import ModuleType

import numpy as np

from .._extras import MissingExtraError, need
from .bounds import DECODING, TooLargeError, check_pixels
from .metadata import Kept, of_blocks
from .opencv import opencv
from .picture import ImageFileError

_GAP, _NUMBER = rb"(?:\s|#[^\n]*\n)+", rb"(\d{1,9})"
_PNM = re.compile(rb"P([1-6])" + 2 * (_GAP + _NUMBER) + rb"(?:" + _GAP + _NUMBER + rb")?\s")
_CODESTREAM, _COUNT_AT, _DEPTH_AT = b"\xff\x4f\xff\x51", 40, 42
_PLUGINS = {
    "HEIC": "pillow_heif",
    "JPEG XL": "pillow_jxl",
    "TGA": "PIL",
    "PCX": "PIL",
    "DIB": "PIL",
}
_DAMAGED = "not a picture in a known format, or damaged, or cut short"


def decode(data: bytes, kind: str, megapixels: float) -> tuple[np.ndarray, bytes | None, Kept]:
    """Samples (H, W, C) in the order RGB, the color profile if any, and what else the file says.

    Args:
        data: the file.
        kind: of `kind_of`.
        megapixels: the most that the picture may have.

    Raises:
        ImageFileError: it is not sound, or what decodes it is not installed.
        TooLargeError: see `check_pixels`.
    """
    if kind in _PLUGINS:
        return _by_pillow(data, kind, megapixels)
    try:
        size = {"BMP": _bmp_size, "PNM": _pnm_size, "JPEG 2000": _jpeg2000_size}[kind](data)
    except struct.error:
        raise ImageFileError(f"{_DAMAGED} ({kind})") from None
    check_pixels([size], len(data), megapixels)
    with DECODING.taken(size[0] * size[1]):
        samples = _by_opencv(data, kind, size)
        return _full_range(samples, _most(data, kind, samples)), None, Kept()


def _by_opencv(data: bytes, kind: str, size: tuple[int, int]) -> np.ndarray:
    try:
        cv2 = opencv(f"reading {kind}")
    except ImportError as error:
        raise ImageFileError(str(error)) from error
    logging = cv2.utils.logging
    before = logging.setLogLevel(logging.LOG_LEVEL_SILENT)  # it is reported once, by name
    try:
        samples = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ImageFileError(f"{_DAMAGED} ({kind}: {error.err})") from error
    finally:
        logging.setLogLevel(before)
    if samples is None or samples.shape[1::-1] != size:
        raise ImageFileError(f"{_DAMAGED} ({kind})")
    if samples.dtype not in (np.uint8, np.uint16):
        raise ImageFileError(f"its samples are {samples.dtype}; only 8 and 16 bits are read")
    if samples.ndim == 2:
        return np.ascontiguousarray(samples[..., None])
    order = [2, 1, 0, 3] if samples.shape[2] == 4 else [2, 1, 0]
    return np.ascontiguousarray(samples[..., order])


def _most(data: bytes, kind: str, samples: np.ndarray) -> int:
    """What white is among the samples that OpenCV gives, which it does not scale."""
    usual = int(np.iinfo(samples.dtype).max)
    if kind == "JPEG 2000":
        bits = (data[_codestream(data) + _DEPTH_AT] & 0x7F) + 1
        return usual if bits <= 8 else 2**bits - 1
    head = _PNM.match(data[:4096]) if kind == "PNM" else None
    if head is None or head[4] is None or head[1] in b"14" or (usual == 255 and head[1] in b"23"):
        return usual  # OpenCV has scaled text of 8 bits
    return min(max(int(head[4]), 1), usual)


def _full_range(samples: np.ndarray, most: int) -> np.ndarray:
    usual = np.iinfo(samples.dtype).max
    if most == usual:
        return samples
    return np.rint(samples.clip(0, most) * (usual / most)).astype(samples.dtype)


def _bmp_size(data: bytes) -> tuple[int, int]:
    (length,) = struct.unpack_from("<I", data, 14)
    if length == 12:
        return struct.unpack_from("<HH", data, 18)
    width, height, _, bits, coding = struct.unpack_from("<iiHHI", data, 18)
    (start,) = struct.unpack_from("<I", data, 10)
    rows = (abs(width) * bits + 31) // 32 * 4 * abs(height)
    if coding in (0, 3) and len(data) < start + rows:  # OpenCV would not say so
        raise ImageFileError(f"{_DAMAGED} (BMP)")
    return abs(width), abs(height)


def _pnm_size(data: bytes) -> tuple[int, int]:
    head = _PNM.match(data[:4096])
    if head is None:
        raise ImageFileError(f"{_DAMAGED} (PNM)")
    return int(head[2]), int(head[3])


def _jpeg2000_size(data: bytes) -> tuple[int, int]:
    """Of the samples themselves: what a box around them says may differ."""
    if not data.rstrip(b"\0").endswith(b"\xff\xd9"):
        raise ImageFileError(f"{_DAMAGED} (JPEG 2000)")
    start = _codestream(data)
    right, bottom, left, top = struct.unpack_from(">IIII", data, start + 8)
    (count,) = struct.unpack_from(">H", data, start + _COUNT_AT)
    if count == 2:  # OpenCV would call it damaged
        raise ImageFileError("gray with alpha in JPEG 2000 is not read: save it as PNG")
    return right - left, bottom - top


def _codestream(data: bytes) -> int:
    """Where the codestream of a JPEG 2000 begins."""
    place = 0
    while not data.startswith(_CODESTREAM, place):
        length, name = struct.unpack_from(">I4s", data, place)
        head = 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, place + 8)
            head = 16
        place += head if name == b"jp2c" else max(length, 8)
    return place


def _by_pillow(data: bytes, kind: str, megapixels: float) -> tuple[np.ndarray, bytes | None, Kept]:
    plugin = _plugin(kind, _PLUGINS[kind])
    if kind == "JPEG XL":  # which its plugin decodes at once
        check_pixels([_jpeg_xl_size(data)], len(data), megapixels)
    try:
        if kind == "HEIC":
            picture = plugin.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False)
            if len(picture) > 1:
                raise ImageFileError(f"it holds {len(picture)} images: save them one by one")
        else:
            from PIL import Image

            picture = Image.open(io.BytesIO(data))
        check_pixels([picture.size], len(data), megapixels)
        with DECODING.taken(picture.size[0] * picture.size[1]):
            if picture.mode in ("1", "P", "CMYK", "YCbCr", "LAB"):
                picture = picture.convert("RGBA" if "transparency" in picture.info else "RGB")
            samples = np.array(picture)
    except (ImageFileError, TooLargeError):
        raise
    except Exception as error:  # of as many kinds as there are plugins
        raise ImageFileError(f"{_DAMAGED} ({kind}: {error})") from error
    if samples.dtype not in (np.uint8, np.uint16):
        raise ImageFileError(f"its samples are {samples.dtype}; only 8 and 16 bits are read")
    info = picture.info
    kept = of_blocks(info.get("exif"), info.get("xmp"))
    return samples.reshape(*samples.shape[:2], -1), info.get("icc_profile"), kept


def frames(
    data: bytes, kind: str, megapixels: float
) -> tuple[list[np.ndarray], tuple[int, ...], int]:
    """The frames of an animation, (H, W, 3 or 4) uint8, their milliseconds, and its loops.

    Args:
        data: the file.
        kind: "PNG" or "AVIF".
        megapixels: the most that all frames may have.

    Raises:
        ImageFileError: it is not sound, or what decodes it is not installed.
        TooLargeError: see `check_pixels`.
    """
    images, frames, times = _plugin(kind, "PIL.Image"), [], []
    try:
        picture = images.open(io.BytesIO(data), formats=[kind])
        count = getattr(picture, "n_frames", 1)
        check_pixels([picture.size] * count, len(data), megapixels)
        with DECODING.taken(picture.size[0] * picture.size[1] * count):
            for number in range(count):
                picture.seek(number)
                mode = "RGBA" if picture.has_transparency_data else "RGB"
                frames.append(np.array(picture.convert(mode)))
                times.append(round(picture.info.get("duration", 0)))
    except TooLargeError:
        raise
    except Exception as error:  # of many kinds
        raise ImageFileError(f"{_DAMAGED} (animated {kind}: {error})") from error
    bands = min(frame.shape[2] for frame in frames)
    return [frame[..., :bands] for frame in frames], tuple(times), picture.info.get("loop", 0)


def _jpeg_xl_size(data: bytes) -> tuple[int, int]:
    """By the size header of the codestream: fields of bits, the lowest first."""
    bits = int.from_bytes(_jpeg_xl_codestream(data)[2:18].ljust(16, b"\0"), "little")

    def field(count: int) -> int:
        nonlocal bits
        value, bits = bits & ((1 << count) - 1), bits >> count
        return value

    def side() -> int:
        return (field(5) + 1) * 8 if small else field((9, 13, 18, 30)[field(2)]) + 1

    small = field(1)
    height, ratio = side(), field(3)
    if not ratio:
        return side(), height
    across, down = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio - 1]
    return height * across // down, height


def _jpeg_xl_codestream(data: bytes) -> bytes:
    """The first bytes of it, in a box or not."""
    place = 0
    while not data.startswith(b"\xff\x0a", place):
        try:
            length, name = struct.unpack_from(">I4s", data, place)
        except struct.error:
            raise ImageFileError(f"{_DAMAGED} (JPEG XL)") from None
        if name in (b"jxlc", b"jxlp"):
            place += 16 if length == 1 else 8
            place += 4 if name == b"jxlp" else 0
            break
        place += max(length, 8)
    return data[place : place + 18]


def _plugin(kind: str, name: str) -> ModuleType:
    try:
        return need("formats", name)
    except MissingExtraError as error:
        raise ImageFileError(f"the decoder of {kind} is not installed: {error}") from error
