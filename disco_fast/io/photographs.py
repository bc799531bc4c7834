"""A collection of color photographs, to train on and to evaluate with: a folder or tar shards."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .images import READ_SUFFIXES, ImageFileError, decode_image, read_bytes
from .opencv import opencv


@dataclass(frozen=True)
class _Place:
    """Where a photograph's bytes are: a whole file, or a part of a tar shard."""

    file: Path
    name: str
    start: int = 0
    length: int = -1  # to the end


class Photographs:
    """The photographs below a path, in a fixed order: by shard or folder, then by name.

    Args:
        path: a picture, a folder of pictures (folders below included, hidden ones not), a tar
            shard (WebDataset layout: pictures among other members of a sample), or a folder of
            such shards. Shards are read in place and not unpacked.

    Raises:
        FileNotFoundError: there is no such path, or no picture in it.
        ImageFileError: a shard is damaged.
    """

    def __init__(self, path: str | os.PathLike[str]):
        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(f"photographs: there is no {path}")
        self._places = sorted(_places(path), key=lambda place: (place.file.parent, place.name))
        if not self._places:
            raise FileNotFoundError(
                f"photographs: no picture ({' '.join(READ_SUFFIXES)}) in {path}"
            )

    def __len__(self) -> int:
        return len(self._places)

    def name(self, index: int) -> str:
        """The photograph's file name, without the folder or shard that it is in."""
        return self._places[index].name

    def read(self, index: int) -> np.ndarray:
        """The photograph, (H, W, 3) uint8 RGB; 16 bits are rounded, transparency is dropped.

        Raises:
            ImageFileError: it cannot be read or decoded.
        """
        place = self._places[index]
        try:
            pixels = decode_image(_bytes(place)).pixels
        except (OSError, ImageFileError) as error:
            raise ImageFileError(f"{place.file}: {place.name}: {error}") from error
        if pixels.dtype == np.uint16:
            pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
        return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


def _bytes(place: _Place) -> bytes:
    if place.length < 0:
        return read_bytes(place.file)
    with open(place.file, "rb") as file:
        file.seek(place.start)
        return file.read(place.length)


def middle_square(pixels: np.ndarray, size: int) -> np.ndarray:
    """The largest square in the middle of a picture (H, W, C), resized to (size, size, C)."""
    side = min(pixels.shape[:2])
    top, left = ((length - side) // 2 for length in pixels.shape[:2])
    return resized(pixels[top : top + side, left : left + side], size)


def resized(square: np.ndarray, size: int) -> np.ndarray:
    """A square picture at another size: by area where it shrinks, by cubic splines where it grows.

    Training and evaluation both see pictures so.
    """
    cv2 = opencv("resizing a photograph")
    method = cv2.INTER_AREA if square.shape[0] > size else cv2.INTER_CUBIC
    return cv2.resize(np.ascontiguousarray(square), (size, size), interpolation=method)


def to_lab(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB as fp32 Lab: L 0-100, a and b in Lab units, white point D65."""
    cv2 = opencv("converting a photograph to Lab")
    return cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)


def _places(path: Path) -> Iterator[_Place]:
    if path.is_dir():
        for parent, folders, names in os.walk(path):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in names:
                if not name.startswith(".") and Path(parent, name).is_file():
                    yield from _places(Path(parent, name))
    elif path.suffix.lower() == ".tar":
        yield from _members(path)
    elif path.suffix.lower() in READ_SUFFIXES:
        yield _Place(path, path.name)


def _members(shard: Path) -> Iterator[_Place]:
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                name = Path(member.name)
                if member.size < 0:
                    raise tarfile.TarError(f"{member.name} has {member.size} bytes")
                if member.isfile() and name.suffix.lower() in READ_SUFFIXES:
                    yield _Place(shard, name.name, member.offset_data, member.size)
    except (OSError, tarfile.TarError) as error:
        raise ImageFileError(f"{shard}: not a complete tar file ({error})") from error
