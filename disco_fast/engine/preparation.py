"""The rewrites that make a network do less for the same result, by name and in order."""

from __future__ import annotations

from collections.abc import Callable, Collection

from torch import nn

from ..model import DISCO
from .branches import extract_side_by_side
from .encoders import encode_at_once
from .folding import fold_batch_norm, fold_spectral_norm, fold_standardization
from .packing import pack_convolutions
from .precision import set_formats
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
    "standardization": fold_standardization,
    "upsampling": merge_upsampling,
    "anchor projection": project_anchors_only,
    "color look-up": look_colors_up,
    "guided logits": leave_guided_logits_out,
    "positions": remember_positions,
    "encoders": encode_at_once,
    "branches": extract_side_by_side,
}

# These need every convolution in its final format.
FINISHES: dict[str, Callable[[nn.Module], None]] = {"packing": pack_convolutions}

NAMES = (*REWRITES, *FINISHES)


def prepare(network: DISCO, precision: str, without: Collection[str] = ()) -> None:
    """Rewrite a network in eval mode, in place.

    Args:
        network: on the device it will run on.
        precision: of its convolutions, "fp32", "bf16" or "fp16".
        without: names of rewrites to leave out; without "spectral norm" also those that change
            convolutions.

    Raises:
        ValueError: a name is unknown.
    """
    if unknown := set(without) - set(NAMES):
        raise ValueError(
            f"without: expected names out of {', '.join(NAMES)}, got {', '.join(unknown)}"
        )
    for name, rewrite in REWRITES.items():
        if name not in without:
            rewrite(network)
    set_formats(network, precision)
    for name, finish in FINISHES.items():
        if name not in without:
            finish(network)
