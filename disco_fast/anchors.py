"""Color anchors as a person sees them: where they are, what they may be, what they are."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from . import ops
from .color import bin_centers, nearest_bins, rgb_to_lab

Point: TypeAlias = tuple[float, float]
RGB: TypeAlias = tuple[int, int, int]
_FORMAT = "disco_fast anchors"
_VERSION = 1
_MOST_CHROMA = 200.0  # of ab; sRGB reaches 134
_LONGEST = 1e9  # pixels of a picture's side; no format has more
_SHOWN = 60  # characters of a wrong value in a message

# What `n_anchors="auto"` chooses. The paper leaves that open (section 6) and takes 8.
FEWEST, MOST = 3, 16
EXPLAINED = 0.85  # share of the variance; photographs then have 8 or 9 on average, near the paper's


class Swatch(NamedTuple):
    """A color that an anchor may get.

    Attributes:
        bin: which of the 313 color bins.
        rgb: how it looks on the anchor's superpixel.
        probability: of the bin, by the color modeler and the vividness.
    """

    bin: int
    rgb: RGB
    probability: float


Color: TypeAlias = str | Sequence[int] | Swatch
"""A color as users give it: "#c03030", (192, 48, 48), or one of an anchor's palette.

Its chroma alone counts, rounded to the nearest of the network's 313 bins: the picture has the
lightness.
"""


@dataclass(frozen=True)
class Anchor:
    """A superpixel whose color is given, and spreads to what is like it (section 4.2).

    Attributes:
        superpixel: its index, row by row of the grid.
        pixel: (x, y), a point within, in pixels of the picture from its top left corner.
        lightness: L of the superpixel, mean, 0-100.
        palette: its ten most probable colors, the most probable first.
        bin: the color in use, one of the 313.
    """

    superpixel: int
    pixel: Point
    lightness: float
    palette: tuple[Swatch, ...]
    bin: int

    @property
    def rgb(self) -> RGB:
        """The color in use, as it looks on the superpixel."""
        return shown(self.lightness, [self.bin])[0]

    @property
    def hex(self) -> str:
        """The same as "#rrggbb"."""
        return "#{:02x}{:02x}{:02x}".format(*self.rgb)

    def recolored(self, color: Color) -> Anchor:
        """This anchor in another color.

        Raises:
            ValueError: not a color.
        """
        return replace(self, bin=bin_of(color))


def bin_of(color: Color) -> int:
    """The color bin nearest to a color.

    Raises:
        ValueError: not a color.
    """
    if isinstance(color, Swatch):
        return color.bin
    pixel = torch.tensor(rgb_of(color)) / 255
    return int(nearest_bins(rgb_to_lab(pixel)[None, 1:])[0])


def rgb_of(color: str | Sequence[int]) -> RGB:
    """Red, green and blue, 0-255, of "#rgb", "#rrggbb" or three numbers.

    Raises:
        ValueError: it is something else.
    """
    wrong = f'color: expected "#rrggbb", or red, green and blue from 0 to 255, got {_short(color)}'
    if isinstance(color, str):
        digits = color.strip().removeprefix("#")
        if not re.fullmatch(r"[0-9a-fA-F]{3}|[0-9a-fA-F]{6}", digits):
            raise ValueError(wrong)
        if len(digits) == 3:
            digits = "".join(2 * digit for digit in digits)
        return int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:], 16)
    try:
        red, green, blue = (int(part) for part in color)
        fits = all(int(p) == p and 0 <= p <= 255 for p in color)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(wrong) from None
    if not fits:
        raise ValueError(wrong)
    return red, green, blue


def shown(lightness: float, bins: Sequence[int] | Tensor) -> list[RGB]:
    """How color bins look at a lightness, 0-100."""
    ab = bin_centers("cpu")[torch.as_tensor(bins)].t()[None, :, None].contiguous()
    rgb = ops.lab_to_rgb(torch.full_like(ab[:, :1], lightness), ab, True)[0, :, 0]
    return [(int(r), int(g), int(b)) for r, g, b in rgb.t()]


def count_anchors(color_tokens: Tensor, seed: int) -> int:
    """Find the fewest anchors, from 3 to 16, that explain 85 % of the color tokens' variance.

    That is the variance of what the network holds to be differently colored: few anchors where all
    is sky and sea, many at a market.

    Args:
        color_tokens: [1,P,64], of one picture.
        seed: of the clusters' first centers.

    Returns:
        K; 16 where no fewer explain as much; P where that is less.
    """
    deviations = color_tokens - color_tokens.mean(dim=1, keepdim=True)
    allowed = (1 - EXPLAINED) * float(deviations.square().sum())
    most = min(MOST, color_tokens.shape[1])
    for count in range(min(FEWEST, most), most):
        if unexplained(color_tokens, count, seed) <= allowed:
            return count
    return most


def unexplained(color_tokens: Tensor, count: int, seed: int) -> float:
    """Sum of squared distances of tokens [1,P,64] from the centers of `count` clusters."""
    first = ops.kmeans_init(color_tokens, count, seed)
    labels, centers, _ = ops.kmeans(color_tokens, first)
    own = centers.gather(1, labels[..., None].expand_as(color_tokens))
    return float((color_tokens - own).square().sum())


def to_json(anchors: Sequence[Anchor], width: int, height: int) -> str:
    """Anchors as text, to be kept or edited.

    Args:
        anchors: which.
        width: of the picture, in pixels.
        height: likewise.
    """
    centers = bin_centers("cpu").tolist()
    entries = [
        {
            "x": round(anchor.pixel[0], 3),
            "y": round(anchor.pixel[1], 3),
            "color": anchor.hex,
            "ab": [int(value) for value in centers[anchor.bin]],
        }
        for anchor in anchors
    ]
    head = {"format": _FORMAT, "version": _VERSION, "width": width, "height": height}
    return json.dumps({**head, "anchors": entries}, indent=2) + "\n"


def from_json(
    text: str, width: int, height: int, most: int | None = None
) -> list[tuple[Point, int]]:
    """Points and color bins of anchors that `to_json` wrote, or a person.

    An entry has "x", "y", and "color" or, what counts where both are there, "ab". Where the text
    has another "width" and "height" than the picture, the points are scaled.

    Args:
        text: the anchors.
        width: of the picture that they are for, in pixels.
        height: likewise.
        most: anchors, as many as the picture has superpixels; None for any number.

    Raises:
        ValueError: not such a text; the message says what of it.
    """
    try:
        read = json.loads(text.removeprefix("\ufeff"))  # Windows' editor begins with that mark
    except RecursionError:
        raise ValueError("anchors: expected a JSON object, not so many levels of it") from None
    except ValueError as error:
        raise ValueError(f"anchors: not JSON ({error})") from None
    if not isinstance(read, dict) or read.get("format", _FORMAT) != _FORMAT:
        raise ValueError(f'anchors: expected a JSON object whose "format" is "{_FORMAT}"')
    if read.get("version", _VERSION) != _VERSION:
        raise ValueError(f"anchors: expected version {_VERSION}, got {_short(read['version'])}")
    entries = read.get("anchors")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError('anchors: expected "anchors", a list of objects')
    if most is not None and len(entries) > most:
        raise ValueError(f"anchors: expected at most {most}, got {len(entries)}")
    across = width / _number(read, "width", "the file", 1, _LONGEST, width)
    down = height / _number(read, "height", "the file", 1, _LONGEST, height)
    points, colors = [], []
    for number, entry in enumerate(entries):
        x, y = (_number(entry, key, f"anchor {number}", 0, _LONGEST) for key in "xy")
        points.append((x * across, y * down))
        colors.append(_color(f"anchor {number}", entry))
    return list(zip(points, _bins(colors), strict=True))


def _color(name: str, entry: dict[str, Any]) -> tuple[float, ...]:
    """The a and b of an entry, or its red, green and blue."""
    if "ab" in entry:
        ab = entry["ab"]
        if not isinstance(ab, list) or len(ab) != 2:
            raise ValueError(f'anchors: {name}: expected two numbers in "ab", got {_short(ab)}')
        named = {"a": ab[0], "b": ab[1]}
        return tuple(_number(named, key, name, -_MOST_CHROMA, _MOST_CHROMA) for key in "ab")
    if "color" not in entry:
        raise ValueError(f'anchors: {name}: expected a "color"')
    try:
        return rgb_of(entry["color"])
    except ValueError as error:
        raise ValueError(f"anchors: {name}: {error}") from None


def _bins(colors: Sequence[tuple[float, ...]]) -> list[int]:
    """The color bins nearest to colors of `_color`, all at once: there may be many."""
    as_rgb = torch.tensor([color if len(color) == 3 else (0, 0, 0) for color in colors])
    ab = rgb_to_lab(as_rgb.reshape(-1, 3) / 255)[:, 1:]
    for row, color in enumerate(colors):
        if len(color) == 2:
            ab[row] = torch.tensor(color)
    return nearest_bins(ab).tolist()


def _short(value: Any) -> str:
    """A value as Python writes it, cut short."""
    try:
        shown = repr(value)
    except ValueError:  # a whole number of thousands of digits
        return "a number that is too large"
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."


def _number(
    entry: dict[str, Any],
    key: str,
    name: str,
    low: float,
    high: float,
    default: float | None = None,
) -> float:
    value = entry.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ValueError(f'anchors: {name}: expected a number for "{key}", got {_short(value)}')
    return float(value)
