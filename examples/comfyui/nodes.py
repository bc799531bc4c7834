"""Nodes: a network, colors that are asked for, and pictures in color."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from disco_fast import Colorizer
from disco_fast.analysis import Analysis
from disco_fast.anchors import Anchor, Point, rgb_of
from disco_fast.colorizer import usable_device

NETWORK, ANCHORS = "DISCO_FAST_NETWORK", "DISCO_FAST_ANCHORS"
CATEGORY = "image/color"


class Hint(NamedTuple):
    """A color that is asked for: at points of a picture, (x, y) in pixels, or under a mask.

    Attributes:
        color: "#rrggbb".
        points: where.
        masks: likewise, [1 or B,h,w] 0-1, resized to the picture; None without.
    """

    color: str
    points: tuple[Point, ...]
    masks: Tensor | None


class Load:
    """A network, kept until its settings change."""

    CATEGORY, FUNCTION = CATEGORY, "load"
    RETURN_TYPES, RETURN_NAMES = (NETWORK,), ("network",)
    DESCRIPTION = "Loads a DISCO network: the one of the package, or a checkpoint."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """As ComfyUI asks for them."""
        checkpoint = {"default": "", "tooltip": "a file; empty: the network of the package"}
        return {
            "required": {
                "checkpoint": ("STRING", checkpoint),
                "device": (["auto", "cuda", "cpu"], {"default": "auto"}),
                "precision": (["auto", "fp32", "bf16", "fp16", "int8"], {"default": "auto"}),
            }
        }

    @classmethod
    def VALIDATE_INPUTS(cls, checkpoint: str = "", device: str = "auto") -> bool | str:  # noqa: N802
        """True, or what is wrong, before anything runs."""
        if checkpoint and not Path(checkpoint).is_file():
            return f"checkpoint: there is no file {checkpoint!r}"
        return _checked(usable_device, None if device == "auto" else device)

    def load(self, checkpoint: str, device: str, precision: str) -> tuple[Colorizer]:
        """The network."""
        where = None if device == "auto" else device
        return (Colorizer(checkpoint or None, where, precision),)


class Anchors:
    """A color for what is under a mask, at points, or both; several such nodes make a chain."""

    CATEGORY, FUNCTION = CATEGORY, "add"
    RETURN_TYPES, RETURN_NAMES = (ANCHORS,), ("anchors",)
    DESCRIPTION = (
        "Asks for a color at points, or under a mask. It spreads to whatever is like it there."
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """As ComfyUI asks for them."""
        where = 'pixels: a line "x, y" each, or JSON as points editors give it'
        return {
            "required": {
                "color": ("STRING", {"default": "#3050c0", "tooltip": "its lightness is ignored"}),
                "points": ("STRING", {"default": "", "multiline": True, "tooltip": where}),
            },
            "optional": {"mask": ("MASK",), "anchors": (ANCHORS,)},
        }

    @classmethod
    def VALIDATE_INPUTS(cls, color: str = "#fff", points: str = "") -> bool | str:  # noqa: N802
        """True, or what is wrong, before anything runs."""
        return _checked(lambda: (rgb_of(color), _points(points)))

    def add(
        self,
        color: str,
        points: str,
        mask: Tensor | None = None,
        anchors: tuple[Hint, ...] = (),
    ) -> tuple[tuple[Hint, ...]]:
        """The anchors given, and these."""
        hint = Hint(color, _points(points), mask)
        if not hint.points and mask is None:
            raise ValueError("anchors: expected points or a mask, got neither")
        return ((*anchors, hint),)


class Colorize:
    """Pictures in color; all of a batch in one call."""

    CATEGORY, FUNCTION = CATEGORY, "colorize"
    RETURN_TYPES = ("IMAGE",)
    DESCRIPTION = "Colorizes images; of color images only the lightness is used."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """As ComfyUI asks for them."""
        count = {"default": 8, "min": 0, "max": 256, "tooltip": "0: as many as the image needs"}
        seed = {"default": 0, "min": 0, "max": 2**53 - 1, "control_after_generate": True}
        size = {"default": 256, "min": 16, "max": 4096, "step": 16}
        vivid = {"default": -1.0, "min": -1.0, "max": 1.0, "step": 0.05}
        vivid["tooltip"] = (
            "0: the most likely colors, 1: vivid ones, below 0: what suits the network"
        )
        return {
            "required": {
                "network": (NETWORK,),
                "image": ("IMAGE",),
                "n_anchors": ("INT", count),
                "seed": ("INT", seed),
                "working_size": ("INT", size),
                "vividness": ("FLOAT", vivid),
            },
            "optional": {"anchors": (ANCHORS,)},
        }

    def colorize(
        self,
        network: Colorizer,
        image: Tensor,
        n_anchors: int,
        seed: int,
        working_size: int,
        vividness: float,
        anchors: tuple[Hint, ...] = (),
    ) -> tuple[Tensor]:
        """Images [B,H,W,1, 3 or 4] fp32 0-1, in color; a fourth channel stays as it is."""
        settings: dict[str, Any] = {
            "n_anchors": n_anchors or "auto",
            "seed": seed,
            "working_size": working_size,
            "vividness": None if vividness < 0 else vividness,
        }
        pictures = image[..., :3].movedim(-1, 1).clamp(0, 1)  # resampling leaves 0 to 1
        _check(anchors, pictures)
        if anchors:
            analyses = (network.analyze(picture, **settings) for picture in pictures)
            colored = torch.stack(
                [a.colorize(_with(a, anchors, number)) for number, a in enumerate(analyses)]
            )
        else:
            colored = network.colorize(pictures, **settings)
        return (torch.cat([colored.movedim(1, -1), image[..., 3:]], dim=-1),)


def _check(hints: tuple[Hint, ...], pictures: Tensor) -> None:
    """Raise ValueError for what does not fit to pictures [B,C,H,W]."""
    count, _, height, width = pictures.shape
    for hint in hints:
        for x, y in hint.points:
            if not (0 <= x < width and 0 <= y < height):
                raise ValueError(
                    f"points: expected pixels within {width} x {height}, got {x:g}, {y:g}"
                )
        masks = 1 if hint.masks is None else len(hint.masks)
        if masks not in (1, count):
            raise ValueError(f"mask: expected 1, or {count} as of the images, got {masks}")


def _with(analysis: Analysis, hints: tuple[Hint, ...], number: int) -> list[Anchor]:
    """The anchors of picture `number` of a batch: its own, and those asked for in their place."""
    chosen = {anchor.superpixel: anchor for anchor in analysis.anchors}
    for hint in hints:
        places = list(hint.points)
        if hint.masks is not None:
            mask = _fitted(hint.masks, analysis.size, number)
            inside = [a.pixel for a in analysis.anchors if mask[int(a.pixel[1]), int(a.pixel[0])]]
            places += inside or [_middle(mask)]
        for place in places:
            anchor = analysis.anchor(place, hint.color)
            chosen[anchor.superpixel] = anchor
    return list(chosen.values())


def _fitted(masks: Tensor, size: tuple[int, int], number: int) -> Tensor:
    """The mask of picture `number` at the size of the picture, [H,W] bool."""
    mask = masks[number if len(masks) > 1 else 0].float()
    shape = size[1], size[0]
    if tuple(mask.shape) != shape:
        mask = torch.nn.functional.interpolate(mask[None, None], shape, mode="bilinear")[0, 0]
    if not bool((mask >= 0.5).any()):
        raise ValueError("mask: expected some of it to be white, got none")
    return mask >= 0.5


def _middle(mask: Tensor) -> Point:
    """The point of a mask that is nearest to its center of mass."""
    inside = mask.nonzero().float()
    y, x = inside[(inside - inside.mean(dim=0)).square().sum(dim=1).argmin()].tolist()
    return x + 0.5, y + 0.5


def _points(text: str) -> tuple[Point, ...]:
    """Points out of text: lines "x, y", or JSON [{"x": 1, "y": 2}, ...].

    Raises:
        ValueError: it is something else.
    """
    try:
        if text.lstrip().startswith("["):
            pairs = [(entry["x"], entry["y"]) for entry in json.loads(text)]
        else:
            pairs = [line.replace(",", " ").split() for line in text.splitlines() if line.strip()]
        points = tuple((float(x), float(y)) for x, y in pairs)
    except (KeyError, TypeError, ValueError):
        points = ((math.nan, math.nan),)
    if not all(math.isfinite(x) and math.isfinite(y) for x, y in points):
        raise ValueError(f'points: expected lines "x, y" in pixels, got {text[:60]!r}')
    return points


def _checked(check: Any, *arguments: Any) -> bool | str:
    """True, or the sentence of the error that a check raises."""
    try:
        check(*arguments)
    except ValueError as error:
        return str(error)
    return True
