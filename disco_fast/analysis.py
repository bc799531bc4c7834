"""What a picture's colors follow from, computed once: to look at, to change, to color by."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

import torch
from torch import Tensor

from . import ops
from .anchors import Anchor, Color, Point, Swatch, bin_of, count_anchors, from_json, shown, to_json
from .color import N_BINS, check_vividness, nearest_bins, rgb_to_lab
from .engine import Engine
from .engine.autocast import without_autocast
from .model import Superpixels
from .options import ColorizeOptions
from .preprocess import Full, resize
from .reference import MAX_VARIANTS, TOP_BINS, neighbour_offsets

GivenAnchor: TypeAlias = Anchor | tuple[Point, Color]
_COLOR = 1.0  # of ab; a picture that nowhere has more is gray
_LIKE = 8  # superpixels of a reference that give an anchor its color


class Analysis:
    """A picture after the network's first half, with anchors placed; see `Colorizer.analyze`.

    Attributes:
        anchors: as the network places and colors them, one for each cluster.
        superpixels: the network's features; not to be changed.
        vividness: how the colors are read from the network's distributions.
    """

    anchors: tuple[Anchor, ...]
    superpixels: Superpixels
    vividness: float

    def __init__(self, engine: Engine, image: Tensor, options: ColorizeOptions):
        self._engine, self._image, self._seed = engine, image.detach(), options.seed
        self._mode = Full(options.working_size, engine.network.stride)
        self._lightness, self._gray = self._mode.read(self._image[None], engine.device)
        self.superpixels = engine.superpixels(self._gray)
        count = self.superpixels.tokens.shape[1]
        self._segments = _segments(self.superpixels.association, engine.network.cell_size)
        self._means = _means(50 + 50 * self._gray[0, 0].cpu(), self._segments, count)
        self._logits = engine.color_logits(self.superpixels)
        tokens = self.superpixels.color_tokens
        n_anchors = options.n_anchors
        if n_anchors == "auto":
            n_anchors = count_anchors(tokens, options.seed)
        placed = engine.place(self.superpixels, min(int(n_anchors), count), seed=options.seed)
        self._labels, self._index = placed.labels[0].cpu(), placed.index
        vividness = options.vividness
        self._read(engine.network.readout.vividness if vividness is None else vividness)

    def _read(self, vividness: float) -> None:
        """Read the anchors' colors."""
        self.vividness, offset = vividness, self._engine.offset(vividness)
        self._probability = (self._logits[0] + offset).softmax(dim=-1).cpu()
        bins = self._engine.colors(self.superpixels, self._index, MAX_VARIANTS, offset)
        self._diverse = bins[0].tolist()
        self.anchors = tuple(
            self._make(superpixel, color)
            for superpixel, color in zip(self._index[0].tolist(), self._diverse[0], strict=True)
        )

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the picture, in which anchors' points are."""
        return self._image.shape[2], self._image.shape[1]

    def at(self, vividness: float) -> Analysis:
        """This analysis at another vividness: the same anchors, in other colors.

        Args:
            vividness: as for `Colorizer.colorize`.

        Raises:
            TypeError, ValueError: it is none.
        """
        check_vividness(vividness)
        other = copy.copy(self)
        other._read(vividness)
        return other

    def own(self, anchor: Anchor) -> Anchor:
        """An anchor in the color that the network gives it, at this vividness."""
        return self._make(anchor.superpixel, None, anchor.pixel)

    def anchor(self, point: Point, color: Color | None = None) -> Anchor:
        """The anchor at a point of the picture.

        Args:
            point: (x, y) in pixels, within the picture.
            color: the network's own if None.

        Raises:
            ValueError: the point is outside the picture, or that is no color.
        """
        place = self._superpixel_at(point)
        return self._make(place, None if color is None else bin_of(color), point)

    @without_autocast
    def colorize(
        self, anchors: Sequence[GivenAnchor] | None = None, *, vividness: float | None = None
    ) -> Tensor:
        """Color the picture by anchors; only what depends on them is computed.

        Args:
            anchors: of this analysis, or ((x, y), color) pairs; the network's own if None.
            vividness: of the network's own; that of this analysis if None.

        Returns:
            RGB like the picture: its type, device and size.

        Raises:
            TypeError, ValueError: none at all, two of them in one superpixel, or one that does not
                fit; or a vividness with anchors, which have their colors.
        """
        if vividness is not None:
            if anchors is not None:
                raise ValueError(f"vividness: expected None with anchors, got {vividness}")
            return self.at(vividness).colorize()
        chosen = self.anchors if anchors is None else self.resolved(anchors)
        device = self._engine.device
        index = torch.tensor([[anchor.superpixel for anchor in chosen]], device=device)
        bins = torch.tensor([[anchor.bin for anchor in chosen]], device=device)
        ab = self._engine.generate(self._gray, self.superpixels, index, bins)
        painted = self._mode.paint(self._lightness, ab, self._image.dtype)[0]
        return painted.to(self._image.device, self._image.dtype)

    def resolved(self, anchors: Sequence[GivenAnchor]) -> tuple[Anchor, ...]:
        """Anchors, each checked and with all there is to know of it.

        Raises:
            ValueError: as `colorize`.
        """
        chosen = tuple(a if isinstance(a, Anchor) else self.anchor(*a) for a in anchors)
        if not chosen:
            raise ValueError("anchors: expected at least one")
        taken: dict[int, Anchor] = {}
        for anchor in chosen:
            if not 0 <= anchor.superpixel < len(self._probability) or not 0 <= anchor.bin < N_BINS:
                raise ValueError(f"anchors: {anchor.pixel} is of another picture")
            if (other := taken.setdefault(anchor.superpixel, anchor)) is not anchor:
                raise ValueError(
                    f"anchors: those at {other.pixel} and {anchor.pixel} are in one superpixel"
                )
        return chosen

    def variants(self, count: int, temperature: float = 1.0) -> list[tuple[Anchor, ...]]:
        """Colors for the anchors, `count` times.

        The first is the anchors' own, the next two are unlike it, as published (section 4.3). Any
        more are drawn from each anchor's distribution at this vividness.

        Args:
            count: how many, at least 1.
            temperature: more than 0; below 1 the drawn ones are nearer to the most probable ones,
                above 1 farther from it.
        """
        sets = [self._recolored(bins) for bins in self._diverse[:count]]
        places = [anchor.superpixel for anchor in self.anchors]
        sharpened = (self._probability[places].double().log() / temperature).softmax(dim=-1)
        draws = torch.Generator().manual_seed(self._seed)
        while len(sets) < count:
            drawn = torch.multinomial(sharpened, 1, generator=draws)[:, 0]
            sets.append(self._recolored(drawn.tolist()))
        return sets

    def anchors_from(self, reference: Analysis) -> tuple[Anchor, ...]:
        """The anchors in the colors of a photograph that shows something like it.

        An anchor gets the mean chroma of those superpixels of the reference whose color tokens
        are most like its own: what the network would color alike.

        Args:
            reference: the analysis of a photograph in color, by the same `Colorizer`.

        Raises:
            ValueError: the reference has no colors.
        """
        colors = reference._chroma()
        if colors is None:
            raise ValueError("reference: expected a picture in color, got a gray one")
        places = [anchor.superpixel for anchor in self.anchors]
        mine = self.superpixels.color_tokens[0, places].float()
        distance = torch.cdist(mine, reference.superpixels.color_tokens[0].float()).cpu()
        like = distance.topk(min(_LIKE, distance.shape[1]), largest=False).indices  # [K,_LIKE]
        return self._recolored(nearest_bins(colors[like].mean(dim=1)).tolist())

    def mask(self, anchor: Anchor) -> Tensor:
        """The pixels of an anchor's superpixel, [H,W] bool."""
        return self._at_full_size(self._segments == anchor.superpixel)

    def cluster(self, anchor: Anchor) -> Tensor:
        """The pixels of the K-Means cluster that an anchor's superpixel belongs to, [H,W] bool."""
        members = self._labels == self._labels[anchor.superpixel]
        return self._at_full_size(members[self._segments])

    def to_json(self, anchors: Sequence[GivenAnchor] | None = None) -> str:
        """Anchors as text; the network's own if None. See `anchors.to_json`."""
        chosen = self.anchors if anchors is None else self.resolved(anchors)
        return to_json(chosen, *self.size)

    def from_json(self, text: str) -> tuple[Anchor, ...]:
        """Anchors from text that `to_json` or a person wrote; see `anchors.from_json`.

        Raises:
            ValueError: not such a text, or an anchor does not fit.
        """
        width, height = self.size
        read = from_json(text, width, height, most=len(self._probability))
        return self.resolved(
            [self._make(self._superpixel_at(point), color, point) for point, color in read]
        )

    def _make(self, superpixel: int, color: int | None, point: Point | None = None) -> Anchor:
        lightness = float(self._means[superpixel])
        probability, bins = self._probability[superpixel].sort(descending=True, stable=True)
        best = bins[:TOP_BINS].tolist()
        rows = zip(best, shown(lightness, best), probability.tolist(), strict=False)
        palette = tuple(Swatch(*row) for row in rows)
        pixel = self._middle(superpixel) if point is None else (float(point[0]), float(point[1]))
        if color is None:
            place = torch.tensor([[superpixel]], device=self._engine.device)
            offset = self._engine.offset(self.vividness)
            color = int(self._engine.colors(self.superpixels, place, 1, offset))
        return Anchor(superpixel, pixel, lightness, palette, color)

    def _recolored(self, bins: Sequence[int]) -> tuple[Anchor, ...]:
        palettes = zip(self.anchors, bins, strict=True)
        return tuple(replace(anchor, bin=number) for anchor, number in palettes)

    def _superpixel_at(self, point: Point) -> int:
        (x, y), (width, height) = point, self.size
        if not (0 <= x < width and 0 <= y < height):
            raise ValueError(f"anchors: expected a point within {width} x {height}, got {point}")
        rows, columns = self._segments.shape
        return int(self._segments[int(y * rows / height), int(x * columns / width)])

    def _middle(self, superpixel: int) -> Point:
        """The superpixel's pixel that is nearest to its center of mass."""
        inside = (self._segments == superpixel).nonzero()
        if not len(inside):  # wins no pixel: the middle of its cell
            cell, columns = self._engine.network.cell_size, self.superpixels.size.shape[3]
            inside = torch.tensor([divmod(superpixel, columns)]) * cell + cell // 2
        away = (inside - inside.float().mean(dim=0)).square().sum(dim=1)
        y, x = (inside[away.argmin()] + 0.5).tolist()
        (rows, columns), (width, height) = self._segments.shape, self.size
        return x * width / columns, y * height / rows

    def _chroma(self) -> Tensor | None:
        """Mean ab of the picture's own colors in every superpixel, [P,2]; None if it is gray."""
        if self._image.shape[0] == 1:
            return None
        pixels = self._image.cpu()
        unit = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels.float().clamp(0, 1)
        rows, columns = self._segments.shape
        small = resize(unit[None], (rows, columns))
        ab = rgb_to_lab(small[0].permute(1, 2, 0)).permute(2, 0, 1)[None, 1:].contiguous()
        if ab.abs().max() < _COLOR:
            return None
        association = self.superpixels.association.float().cpu()
        pooled, _ = ops.sp_pool(ab, association, self._engine.network.cell_size)
        return pooled[0].flatten(1).t()

    def _at_full_size(self, area: Tensor) -> Tensor:
        width, height = self.size
        y = (torch.arange(height) + 0.5) * (area.shape[0] / height)
        x = (torch.arange(width) + 0.5) * (area.shape[1] / width)
        return area[y.long()][:, x.long()]


def _segments(association: Tensor, cell_size: int) -> Tensor:
    """The superpixel that each pixel belongs to most, [H,W] int64, from [1,9,H,W]."""
    weights = association[0].float().cpu()
    height, width = weights.shape[1:]
    rows, columns = height // cell_size, width // cell_size
    best = torch.full((height, width), -1.0)
    segments = torch.zeros(height, width, dtype=torch.int64)
    cell_rows = torch.arange(height)[:, None] // cell_size
    cell_columns = torch.arange(width)[None] // cell_size
    for slot, dy, dx in neighbour_offsets():
        row, column = cell_rows + dy, cell_columns + dx
        exists = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
        wins = exists & (weights[slot] > best)
        best = torch.where(wins, weights[slot], best)
        segments = torch.where(wins, row * columns + column, segments)
    return segments


def _means(pixels: Tensor, segments: Tensor, count: int) -> Tensor:
    """Mean of pixels [H,W] in each segment, [count]; of the whole picture where it is empty."""
    flat, ones = segments.flatten(), torch.ones(pixels.numel())
    total = torch.zeros(count).index_add_(0, flat, pixels.flatten())
    members = torch.zeros(count).index_add_(0, flat, ones)
    return torch.where(members > 0, total / members.clamp(min=1), pixels.mean())
