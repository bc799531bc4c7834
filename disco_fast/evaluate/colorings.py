"""The rows of an evaluation: the same photographs in colors of different origin.

Pictures are [N,3,H,W] uint8 RGB.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from .. import ops
from ..color import AB_SCALE, nearest_bins, normalize_lightness
from ..engine import Engine
from ..io.photographs import Photographs, middle_square, to_lab


class Row(NamedTuple):
    """What a row's pictures are, of how many anchors, and how their colors were read."""

    name: str
    n_anchors: int | None = None
    vividness: float | None = None


GRAY, ORIGINAL = Row("gray"), Row("original")


class Colors(Protocol):
    """Where the colors come from that are evaluated."""

    def rows(self, numbers: Sequence[int], lab: Tensor) -> dict[Row, Tensor]:
        """Pictures on the device of `lab`.

        Args:
            numbers: of the photographs.
            lab: [N,3,H,W] fp32, the photographs themselves.
        """


class FromNetwork:
    """Colors of a network: those that it picks itself, and with anchors of the true colors.

    Args:
        engine: the network.
        anchors: K of each group of rows.
        seed: of the anchors' placement.
        vividness: of each row whose colors the network picks; only that of its checkpoint if none.
    """

    def __init__(
        self, engine: Engine, anchors: Sequence[int], seed: int, vividness: Sequence[float] = ()
    ):
        self._engine, self._anchors, self._seed = engine, anchors, seed
        self._vividness = vividness or (engine.network.readout.vividness,)

    @torch.inference_mode()
    def rows(self, numbers: Sequence[int], lab: Tensor) -> dict[Row, Tensor]:
        """For every K "automatic", at each vividness, and "Ours*" (section 5.1).

        They have the same anchors.
        """
        engine, cell_size = self._engine, self._engine.network.cell_size
        gray, ab = normalize_lightness(lab[:, :1]), lab[:, 1:].contiguous()
        found = {}
        superpixels = engine.superpixels(gray)
        bins_of_truth = true_bins(ab, superpixels.association, cell_size)
        for count in self._anchors:  # the first half is the same for every K
            index = engine.place(superpixels, count, seed=self._seed).index
            colors = {
                Row("automatic", count, vividness): engine.colors(
                    superpixels, index, offset=engine.offset(vividness)
                )[:, 0]
                for vividness in self._vividness
            }
            colors[Row("Ours*", count)] = bins_of_truth.gather(1, index)
            for row, bins in colors.items():
                made = engine.generate(gray, superpixels, index, bins)
                found[row] = painted(lab, AB_SCALE * made)
        return found


class FromFiles:
    """Colors of pictures in files, made by any program.

    Args:
        made: the pictures.
        names: number and file name of each photograph; its picture is the one with its stem.
        size: as for `read`.

    Raises:
        ValueError: a photograph has no picture, or two, or two photographs have one stem.
    """

    def __init__(self, made: Photographs, names: Mapping[int, str], size: int):
        self._made, self._size = made, size
        by_stem = _by_stem({number: made.name(number) for number in range(len(made))})
        self._places = {}
        for stem, numbers in _by_stem(names).items():
            found = by_stem.get(stem, [])
            if len(numbers) != 1 or len(found) != 1:
                raise ValueError(
                    f"pred: expected one picture for each photograph {names[numbers[0]]}, got "
                    f"{len(found) or 'none'} for {len(numbers)}"
                )
            self._places[numbers[0]] = found[0]

    def rows(self, numbers: Sequence[int], lab: Tensor) -> dict[Row, Tensor]:
        """One row, "pred"."""
        made = [read(self._made, self._places[number], self._size) for number in numbers]
        for number, picture in zip(numbers, made, strict=True):
            sizes = tuple(picture.shape[:2]), tuple(lab.shape[2:])
            if sizes[0] != sizes[1]:
                name = self._made.name(self._places[number])
                raise ValueError(f"pred: {name} is of size {sizes[0]}, its photograph {sizes[1]}")
        return {Row("pred"): stacked(made).to(lab.device)}


def _by_stem(names: Mapping[int, str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for number, name in names.items():
        found.setdefault(PurePath(name).stem, []).append(number)
    return found


def read(photographs: Photographs, number: int, size: int, multiple: int = 1) -> np.ndarray:
    """A photograph (H, W, 3): its middle square resized to `size`.

    With size 0 it is as it is, but for its edges, if sides must be multiples of a number.
    """
    pixels = photographs.read(number)
    if size:
        return middle_square(pixels, size)
    height, width = (length // multiple * multiple for length in pixels.shape[:2])
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[top : top + height, left : left + width]


def stacked(pictures: Sequence[np.ndarray]) -> Tensor:
    """(H, W, 3) each, as [N,3,H,W]."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()


def labs(pictures: Sequence[np.ndarray]) -> Tensor:
    """(H, W, 3) uint8 each, as Lab [N,3,H,W] fp32."""
    return stacked([to_lab(picture) for picture in pictures])


def true_bins(ab: Tensor, association: Tensor, cell_size: int) -> Tensor:
    """The color bins of superpixels, [N,P], from chroma [N,2,H,W] in Lab units."""
    pooled = ops.sp_pool(ab, association, cell_size)[0]
    return nearest_bins(pooled.flatten(2).transpose(1, 2))


def painted(lab: Tensor, ab: Tensor) -> Tensor:
    """The lightness of `lab` with other chroma [N,2,H,W], in Lab units."""
    return ops.lab_to_rgb(lab[:, :1].contiguous(), ab.float(), True)
