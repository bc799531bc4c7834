"""What one visitor does with one photograph; nothing here knows of a page."""

from __future__ import annotations

import math
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from .. import ops
from ..analysis import Analysis
from ..anchors import Anchor, Color, Point
from ..colorizer import Colorizer
from ..console import printable
from ..io.images import ImageFileError, Picture, to_pixels, to_tensor, write_image
from ..io.uploads import MEGAPIXELS, decode_upload
from .drawing import shown

VARIANTS = 3
_FEATURES = 20_000_000  # bytes of an analysis at its working size, about
_ANCHORS_FILE = 100_000  # bytes; 256 anchors have 30,000
_REACH = 0.025  # of the picture's longer side: as near to an anchor means that anchor


class SessionError(ValueError):
    """What a visitor asked for cannot be done; the message is for them."""


class Limits(NamedTuple):
    """What a visitor may upload.

    Attributes:
        megabytes: of a file, 10^6 bytes.
        megapixels: of a picture, 10^6.
    """

    megabytes: float = 50.0
    megapixels: float = MEGAPIXELS


class Kept(NamedTuple):
    """What is left of a session that was put away.

    Attributes:
        path: of the upload.
        anchors: as they were.
        selected: which was.
        vividness: of the network's colors.
    """

    path: Path
    anchors: tuple[Anchor, ...]
    selected: int | None
    vividness: float


class Session:
    """A photograph, its analysis, and its anchors as the visitor has them.

    Args:
        colorizer: the network.
        path: of the upload.
        limits: of uploads.
        kept: of an earlier session with the same upload, to go on with.

    Attributes:
        anchors: as they are now.
        selected: which of them is, if any.
        gray: RGB without colors, at the size of the page.
        color: RGB by these anchors, at the size of the page.
        bytes: that the session has in memory, about.

    Raises:
        SessionError: it is no picture, or too large.
    """

    def __init__(
        self,
        colorizer: Colorizer,
        path: str | Path,
        limits: Limits | None = None,
        kept: Kept | None = None,
    ):
        path = Path(path)
        picture = _opened(path, limits or Limits())
        self._folder = tempfile.TemporaryDirectory(prefix="disco-fast-")
        self._path, self._dtype, self._alpha = path, picture.pixels.dtype, picture.alpha
        self._kept = picture.kept.marked()
        image = to_tensor(picture.pixels)
        vividness = None if kept is None else kept.vividness
        self._analysis: Analysis = colorizer.analyze(image, vividness=vividness)
        lightness = ops.rgb_to_l(image[None])
        flat = torch.zeros(1, 2, 1, 1, dtype=lightness.dtype)
        self.gray = shown(ops.lab_to_rgb(lightness, flat, True)[0].permute(1, 2, 0).numpy())
        alpha = 0 if picture.alpha is None else picture.alpha.nbytes
        self.bytes = image.nbytes + lightness.nbytes + alpha + self.gray.nbytes * 2 + _FEATURES
        self.selected = None if kept is None else kept.selected
        self.anchors: tuple[Anchor, ...] = ()
        self._set(self._analysis.anchors if kept is None else kept.anchors)

    def kept(self) -> Kept:
        """What it takes to go on with it later."""
        return Kept(self._path, self.anchors, self.selected, self.vividness)

    @property
    def result(self) -> np.ndarray:
        """RGB of the full size, by the anchors as they are now; computed anew."""
        return self._painted(self.anchors)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the photograph."""
        return self._analysis.size

    @property
    def vividness(self) -> float:
        """Of the network's colors, 0..1."""
        return self._analysis.vividness

    def set_vividness(self, vividness: float) -> None:
        """Another vividness; anchors whose color the visitor has chosen keep it."""
        before, now = self._analysis, self._analysis.at(vividness)
        self._analysis = now
        self._set(
            tuple(
                now.own(anchor)
                if before.own(anchor).bin == anchor.bin
                else replace(now.own(anchor), bin=anchor.bin)
                for anchor in self.anchors
            )
        )

    def click(self, point: Point, move: bool = False) -> None:
        """Select the anchor at a point, or add one there; or move the selected one there.

        Raises:
            SessionError: another anchor is in that superpixel, or none is selected to be moved.
        """
        if move:
            chosen = self._chosen()
            there = self._at(point)
            place = self.anchors.index(chosen)
            self._set(_with(self.anchors, place, replace(there, bin=chosen.bin)))
            return
        near = [math.dist(anchor.pixel, point) for anchor in self.anchors]
        if near and min(near) <= _REACH * max(self.size):
            self.selected = near.index(min(near))
            return
        self._set((*self.anchors, self._at(point)))
        self.selected = len(self.anchors) - 1

    def recolor(self, color: Color) -> None:
        """Give the selected anchor another color.

        Raises:
            SessionError: none is selected, or it is no color.
        """
        chosen = self._chosen()
        try:
            changed = chosen.recolored(color)
        except ValueError as error:
            raise SessionError(str(error)) from None
        self._set(_with(self.anchors, self.anchors.index(chosen), changed))

    def remove(self) -> None:
        """Remove the selected anchor.

        Raises:
            SessionError: none is selected, or it is the last one.
        """
        chosen = self._chosen()
        if len(self.anchors) == 1:
            raise SessionError("The last anchor stays: without one there is no color.")
        self._set(tuple(anchor for anchor in self.anchors if anchor is not chosen))
        self.selected = None

    def reset(self) -> None:
        """Back to the network's own anchors."""
        self.selected = None
        self._set(self._analysis.anchors)

    def variant(self, number: int) -> None:
        """The network's anchors in the colors of one of `VARIANTS` variants, from 0.

        Raises:
            SessionError: there is no such variant.
        """
        if number not in range(VARIANTS):
            raise SessionError(f"There are variants 0 to {VARIANTS - 1}.")
        self.selected = None
        self._set(self._analysis.variants(VARIANTS)[number])

    def variants(self) -> list[np.ndarray]:
        """All variants, RGB at the size of the page."""
        return [shown(self._painted(anchors)) for anchors in self._analysis.variants(VARIANTS)]

    def save(self) -> tuple[Path, Path]:
        """Write the picture at full size, and its anchors, to files that go when the session goes.

        A JPEG stays a JPEG; anything else becomes a PNG, with its alpha and its 16 bits. So does
        what only its name calls a JPEG.

        Returns:
            (picture, anchors as JSON).
        """
        folder = Path(self._folder.name)
        named = self._path.suffix.lower() in (".jpg", ".jpeg")
        jpeg = named and self._dtype == np.uint8 and self._alpha is None
        picture = folder / f"{self._path.stem}-color{'.jpg' if jpeg else '.png'}"
        pixels = to_pixels(self._analysis.colorize(self.anchors), self._dtype)
        write_image(picture, Picture(pixels, self._alpha, self._kept))
        anchors = folder / f"{self._path.stem}-anchors.json"
        anchors.write_text(self._analysis.to_json(self.anchors))
        return picture, anchors

    def load(self, path: str | Path) -> None:
        """Take the anchors of a JSON file.

        Raises:
            SessionError: it has none, or they do not fit.
        """
        path = Path(path)
        try:
            if path.stat().st_size > _ANCHORS_FILE:
                raise SessionError(f"At most {_ANCHORS_FILE / 1000:g} kB of anchors, please.")
            anchors = self._analysis.from_json(path.read_text(encoding="utf-8", errors="replace"))
        except OSError:
            raise SessionError("The file is no longer here: load it again.") from None
        except ValueError as error:
            raise SessionError(str(error)) from None
        self.selected = None
        self._set(anchors)

    def _chosen(self) -> Anchor:
        if self.selected is None:
            raise SessionError("Click an anchor first.")
        return self.anchors[self.selected]

    def _at(self, point: Point) -> Anchor:
        try:
            return self._analysis.anchor(point)
        except ValueError as error:
            raise SessionError(str(error)) from None

    def _set(self, anchors: tuple[Anchor, ...]) -> None:
        try:
            color = shown(self._painted(anchors))
        except ValueError:
            raise SessionError("There is an anchor in that place already.") from None
        self.anchors, self.color = anchors, color

    def _painted(self, anchors: tuple[Anchor, ...]) -> np.ndarray:
        pixels = self._analysis.colorize(anchors).permute(1, 2, 0).numpy()
        return pixels if pixels.dtype == np.uint8 else np.rint(255 * pixels).astype(np.uint8)


def _with(anchors: tuple[Anchor, ...], place: int, anchor: Anchor) -> tuple[Anchor, ...]:
    return (*anchors[:place], anchor, *anchors[place + 1 :])


def _opened(path: Path, limits: Limits) -> Picture:
    """The picture of an upload; what is too large is refused before it is decoded."""
    name = printable(path.name)
    try:
        size = path.stat().st_size
        if size > limits.megabytes * 1e6:
            raise SessionError(
                f"{name} has {size / 1e6:.0f} MB; at most {limits.megabytes:g} MB, please."
            )
        return decode_upload(path.read_bytes(), limits.megapixels)
    except OSError:
        raise SessionError("The photograph is no longer here: drop it again.") from None
    except ImageFileError as error:
        raise SessionError(f"{name}: {error}.") from None
