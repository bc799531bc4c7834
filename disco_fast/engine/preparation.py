"""The rewrites that make a network do less for the same result, by name and in order."""

from __future__ import annotations

from collections.abc import Callable, Collection

from ..model import DISCO
from .folding import fold_batch_norm, fold_spectral_norm
from .tokens import (
    leave_guided_logits_out,
    look_colors_up,
    project_anchors_only,
    remember_positions,
)
from .upsampling import merge_upsampling

# Spectral norm comes first: the others read weights.
REWRITES: dict[str, Callable[[DISCO], None]] = {
    "spectral norm": fold_spectral_norm,
    "batch norm": fold_batch_norm,
    "upsampling": merge_upsampling,
    "anchor projection": project_anchors_only,
    "color look-up": look_colors_up,
    "guided logits": leave_guided_logits_out,
    "positions": remember_positions,
}


def prepare(network: DISCO, without: Collection[str] = ()) -> None:
    """Rewrite a network in eval mode, in place.

    Args:
        network: on the device it will run on.
        without: names of rewrites to leave out; without "spectral norm" also those that change
            convolutions.

    Raises:
        ValueError: a name is unknown.
    """
    if unknown := set(without) - REWRITES.keys():
        raise ValueError(
            f"without: expected names out of {', '.join(REWRITES)}, got {', '.join(unknown)}"
        )
    for name, rewrite in REWRITES.items():
        if name not in without:
            rewrite(network)
