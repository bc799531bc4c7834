"""What one visitor does with one photograph; nothing here knows of a page."""

from __future__ import annotations

import math
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from .. import ops
from ..analysis import Analysis
from ..anchors import Anchor, Color, Point
from ..colorizer import Colorizer
from ..image_files import (
    ImageFileError,
    Picture,
    read_image,
    to_pixels,
    to_tensor,
    write_image,
)

VARIANTS = 3
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
    megapixels: float = 40.0


class Session:
    """A photograph, its analysis, and its anchors as the visitor has them.

    Args:
        colorizer: the network.
        path: of the upload.
        limits: of uploads.
        vividness: at first; what suits the network if None.

    Attributes:
        anchors: as they are now.
        selected: which of them is, if any.
        result: RGB of the full size, by these anchors.

    Raises:
        SessionError: it is no picture, or too large.
    """

    def __init__(
        self,
        colorizer: Colorizer,
        path: str | Path,
        limits: Limits | None = None,
        vividness: float | None = None,
    ):
        path = Path(path)
        _check(path, limits or Limits())
        try:
            picture = read_image(path)
        except ImageFileError as error:
            reason = str(error).removeprefix(f"{path}: ")
            raise SessionError(f"{path.name}: {reason}") from None
        self._folder = tempfile.TemporaryDirectory(prefix="disco-fast-")
        self._name, self._dtype, self._alpha = path, picture.pixels.dtype, picture.alpha
        image = to_tensor(picture.pixels)
        self._analysis: Analysis = colorizer.analyze(image, vividness=vividness)
        lightness = ops.rgb_to_l(image[None])
        flat = torch.zeros(1, 2, 1, 1, dtype=lightness.dtype)
        self.gray = ops.lab_to_rgb(lightness, flat, True)[0].permute(1, 2, 0).numpy()
        self.selected: int | None = None
        self.anchors: tuple[Anchor, ...] = ()
        self._set(self._analysis.anchors)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the photograph."""
        return self._analysis.size

    @property
    def vividness(self) -> float:
        """Of the network's colours, 0..1."""
        return self._analysis.vividness

    def set_vividness(self, vividness: float) -> None:
        """Another vividness; anchors whose colour the visitor has chosen keep it."""
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
            there = self._analysis.anchor(point)
            place = self.anchors.index(chosen)
            self._set(_with(self.anchors, place, replace(there, bin=chosen.bin)))
            return
        near = [math.dist(anchor.pixel, point) for anchor in self.anchors]
        if near and min(near) <= _REACH * max(self.size):
            self.selected = near.index(min(near))
            return
        self._set((*self.anchors, self._analysis.anchor(point)))
        self.selected = len(self.anchors) - 1

    def recolor(self, color: Color) -> None:
        """Give the selected anchor another colour.

        Raises:
            SessionError: none is selected, or it is no colour.
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
            raise SessionError("The last anchor stays: without one there is no colour.")
        self._set(tuple(anchor for anchor in self.anchors if anchor is not chosen))
        self.selected = None

    def reset(self) -> None:
        """Back to the network's own anchors."""
        self.selected = None
        self._set(self._analysis.anchors)

    def variant(self, number: int) -> None:
        """The network's anchors in the colours of one of `VARIANTS` variants, from 0."""
        self.selected = None
        self._set(self._analysis.variants(VARIANTS)[number])

    def variants(self) -> list[np.ndarray]:
        """All variants, RGB of the full size."""
        return [self._painted(anchors) for anchors in self._analysis.variants(VARIANTS)]

    def save(self) -> tuple[Path, Path]:
        """Write the picture at full size, and its anchors, to files that go when the session goes.

        A JPEG stays a JPEG; anything else becomes a PNG, with its alpha and its 16 bits.

        Returns:
            (picture, anchors as JSON).
        """
        folder = Path(self._folder.name)
        jpeg = self._name.suffix.lower() in (".jpg", ".jpeg") and self._dtype == np.uint8
        picture = folder / f"{self._name.stem}-color{'.jpg' if jpeg else '.png'}"
        pixels = to_pixels(self._analysis.colorize(self.anchors), self._dtype)
        write_image(picture, Picture(pixels, self._alpha))
        anchors = folder / f"{self._name.stem}-anchors.json"
        anchors.write_text(self._analysis.to_json(self.anchors))
        return picture, anchors

    def load(self, text: str) -> None:
        """Take the anchors of a JSON text.

        Raises:
            SessionError: it has none, or they do not fit.
        """
        try:
            anchors = self._analysis.from_json(text)
        except ValueError as error:
            raise SessionError(str(error)) from None
        self.selected = None
        self._set(anchors)

    def _chosen(self) -> Anchor:
        if self.selected is None:
            raise SessionError("Click an anchor first.")
        return self.anchors[self.selected]

    def _set(self, anchors: tuple[Anchor, ...]) -> None:
        try:
            result = self._painted(anchors)
        except ValueError:
            raise SessionError("There is an anchor in that place already.") from None
        self.anchors, self.result = anchors, result

    def _painted(self, anchors: tuple[Anchor, ...]) -> np.ndarray:
        pixels = self._analysis.colorize(anchors).permute(1, 2, 0).numpy()
        return pixels if pixels.dtype == np.uint8 else np.rint(255 * pixels).astype(np.uint8)


def _with(anchors: tuple[Anchor, ...], place: int, anchor: Anchor) -> tuple[Anchor, ...]:
    return (*anchors[:place], anchor, *anchors[place + 1 :])


def _check(path: Path, limits: Limits) -> None:
    """Refuse what is too large before it is decoded."""
    size = path.stat().st_size
    if size > limits.megabytes * 1e6:
        raise SessionError(
            f"{path.name} has {size / 1e6:.0f} MB; at most {limits.megabytes:g} MB, please."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as head:
                count = f"{head.width * head.height / 1e6:.0f}"
                fits = head.width * head.height <= limits.megapixels * 1e6
    except Image.DecompressionBombError:
        count, fits = "far more", False
    except (OSError, ValueError, SyntaxError):  # read_image says what is wrong with it
        return
    if not fits:
        raise SessionError(
            f"{path.name} has {count} megapixels; at most {limits.megapixels:g}, please."
        )
