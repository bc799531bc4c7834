"""Settings of a colorization: what they mean, which values fit, and the defaults."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, TypedDict

from .color import check_vividness
from .reference import MAX_VARIANTS

MODES = ("full", "reference")
MOST_VARIANTS = 64
_HOTTEST = 100.0


@dataclass(frozen=True, kw_only=True)
class ColorizeOptions:
    """How images are colorized; every function that colorizes takes these by name.

    The same image and options give the same colors, alone or in a batch, on one machine with one
    number of threads. NumPy's numbers are as good as Python's.

    Attributes:
        n_anchors: color anchors, at least 1; at most one per superpixel is placed. "auto" places
            from 3 to 16 in each image, see `anchors.count_anchors`.
        variants: colorizations of each image, 1..64. The first three are those of the paper, of
            unlike colors; any more are drawn from the anchors' distributions.
        temperature: of that draw, more than 0 and at most 100. Below 1 it favors probable colors,
            above 1 improbable ones.
        seed: of the anchors' placement and of that draw, 64 bits with a sign.
        working_size: colors are predicted on an image of about working_size^2 pixels with the same
            aspect ratio (sides are multiples of 16; beyond 16:1 strips are squeezed), then spread
            to full size; 16..4096. The networks were trained at 256.
        mode: "full" keeps the image's own size and lightness. "reference" does what the official
            script does: stretch to 256x256, take the initial clusters after
            `numpy.random.seed(seed)`, return 256x256.
        vividness: from 0, the most likely colors, to 1, vivid ones; None takes what suits the
            checkpoint. Only in mode "full": "reference" chooses colors as published.

    Raises:
        TypeError, ValueError: naming the option that does not fit.
    """

    n_anchors: int | str = 8
    variants: int = 1
    temperature: float = 1.0
    seed: int = 0
    working_size: int = 256
    mode: str = "full"
    vividness: float | None = None

    def __post_init__(self) -> None:
        if self.n_anchors != "auto":
            self._whole("n_anchors", 1, 2**31)
        self._whole("variants", 1, MOST_VARIANTS)
        self._whole("seed", -(2**63), 2**63 - 1)
        self._whole("working_size", 16, 4096)
        if not isinstance(self.temperature, Real):
            given = type(self.temperature).__name__
            raise TypeError(f"temperature: expected a number, got {given}")
        if not 0 < self.temperature <= _HOTTEST:
            raise ValueError(
                f"temperature: expected more than 0, to {_HOTTEST}, got {self.temperature}"
            )
        object.__setattr__(self, "temperature", float(self.temperature))
        if self.mode not in MODES:
            raise ValueError(f"mode: expected one of {', '.join(MODES)}, got {self.mode!r}")
        if self.mode != "full" and (self.n_anchors == "auto" or self.variants > MAX_VARIANTS):
            raise ValueError(
                f'mode: only "full" finds the number of anchors, or draws more than {MAX_VARIANTS}'
                f" variants, got {self.mode!r}"
            )
        if self.vividness is not None:
            check_vividness(self.vividness)
            object.__setattr__(self, "vividness", float(self.vividness))
            if self.mode != "full":
                raise ValueError(
                    f"vividness: expected None in mode {self.mode!r}, got {self.vividness}"
                )

    def _whole(self, name: str, low: int, high: int) -> None:
        value = getattr(self, name)
        if not isinstance(value, Integral):
            raise TypeError(f"{name}: expected an int, got {type(value).__name__}")
        if not low <= int(value) <= high:
            raise ValueError(f"{name}: expected {low}..{high}, got {value}")
        object.__setattr__(self, name, int(value))

    def only(self, where: str, **values: Any) -> ColorizeOptions:
        """These options, provided that some of them have the only values that are possible.

        Args:
            where: what makes them so, such as "with anchors".
            values: of options, by name.

        Raises:
            ValueError: naming the option that has another value.
        """
        for name, value in values.items():
            if getattr(self, name) != value:
                raise ValueError(f"{name}: expected {value} {where}, got {getattr(self, name)}")
        return self


class AnchorSettings(TypedDict, total=False):
    """`ColorizeOptions` by name, those that decide on anchors and their colors."""

    n_anchors: int | str
    seed: int
    working_size: int
    vividness: float | None


class Settings(AnchorSettings, total=False):
    """`ColorizeOptions` by name."""

    variants: int
    temperature: float
    mode: str
