"""Where the values lie that each convolution takes: what `int8.py` needs to know."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import median

import torch
from torch import Tensor, nn

from ..model import DISCO, Ranges
from .int8 import levels, runs_in_int8
from .prepared import PreparedDISCO

_VALUES = 1 << 15  # of each convolution's input that are looked at, per picture
_SHARES = torch.linspace(0.3, 1.0, 29)  # of the whole range, that are tried
# Of a picture's mean square, that rounding may be. Where a few pictures have spots of values far
# larger than others it is more, up to all. For a compact network with such spots, 8 bits move
# colors by CIEDE2000 3.3 with all convolutions, by 0.60 with a limit of 0.05, by 0.21 with this.
_COARSEST = 0.01
_TINY = 1e-30  # where all values are 0


@torch.inference_mode()
def measure_ranges(network: DISCO, pictures: Iterable[Tensor], n_anchors: int = 8) -> Ranges:
    """The range of each convolution's input with the least mean square error in 8 bits.

    A convolution is left out, and stays in bf16, where 8 bits are too coarse for most pictures.

    Args:
        network: as published.
        pictures: [N,1,H,W] each, as `DISCO.forward` takes them; a few dozen suffice.
        n_anchors: K.

    Raises:
        ValueError: no pictures.
    """
    prepared = PreparedDISCO(network, "fp32", without=("packing",))
    seen: dict[str, list[Tensor]] = defaultdict(list)
    for name, module in prepared.named_modules():
        if runs_in_int8(module) and name.startswith(("repnet", "enhanceNet")):
            _record(module, seen[name.replace(".network", "")])
    for gray in pictures:
        prepared(gray, n_anchors)
    if not any(seen.values()):
        raise ValueError("pictures: expected some, got none")
    ranges = {name: _best(torch.cat(values)) for name, values in seen.items()}
    return {
        name: ends for name, ends in ranges.items() if _coarseness(seen[name], ends) < _COARSEST
    }


def _record(module: nn.Module, into: list[Tensor]) -> None:
    def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        values = inputs[0].flatten()
        every = max(1, len(values) // _VALUES) | 1  # odd: not always the same channels
        into.append(values[::every].clone())

    module.register_forward_pre_hook(keep)


def _best(values: Tensor) -> tuple[float, float]:
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    share = min(_SHARES.tolist(), key=lambda share: _error(values, (low * share, high * share)))
    return low * share, high * share


def _error(values: Tensor, ends: tuple[float, float]) -> float:
    """The mean square of what 8 bits of a range change."""
    step, zero = levels(*ends)
    rounded = (values / step + zero).round().clamp(0, 255)
    return float(((rounded - zero) * step - values).square().mean())


def _coarseness(pictures: Sequence[Tensor], ends: tuple[float, float]) -> float:
    """That error in the median picture, as a share of the mean square of its values."""
    return median(
        _error(values, ends) / max(float(values.square().mean()), _TINY) for values in pictures
    )
