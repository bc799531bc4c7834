"""The transformer encoder over the superpixels of an image."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from .. import reference
from .checks import check_floating, refuse
from .schemas import define

define(
    reference.encoder,
    "(Tensor tokens, Tensor position, Tensor weights) -> Tensor",
)


def encoder(tokens: Tensor, position: Tensor, weights: Tensor) -> Tensor:
    """A transformer encoder over the superpixels of each image; see `reference.encoder`.

    All layers at once, on a GPU in one launch. An image's result is bit-identical in any batch. No
    gradient.

    Args:
        tokens: [N,P,64] fp32.
        position: [1,P,64] fp32, added to queries and keys of every layer.
        weights: [L,49984] fp32, L at least 1, from `reference.pack_encoder`.

    Returns:
        [N,P,64] fp32.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """
    check_floating("encoder", tokens=tokens, position=position, weights=weights)
    for name, tensor in (("tokens", tokens), ("position", position), ("weights", weights)):
        if tensor.dtype != torch.float32:
            refuse("encoder", f"{name} in fp32", tensor.dtype)
    shape = tuple(tokens.shape)
    if len(shape) != 3 or shape[2] != reference.ENCODER_DIM or min(shape) == 0:
        refuse("encoder", f"tokens [N,P,{reference.ENCODER_DIM}], N and P at least 1", shape)
    if tuple(position.shape) != (1, *shape[1:]):
        refuse("encoder", f"position [1,{shape[1]},{reference.ENCODER_DIM}]", tuple(position.shape))
    rows = tuple(weights.shape)
    if len(rows) != 2 or rows[0] == 0 or rows[1] != reference.ENCODER_PARAMETERS:
        refuse("encoder", f"weights [L,{reference.ENCODER_PARAMETERS}], L at least 1", rows)
    return torch.ops.disco_fast.encoder(tokens.detach(), position.detach(), weights.detach())


@torch.library.register_fake("disco_fast::encoder")
def _(tokens: Tensor, position: Tensor, weights: Tensor) -> Tensor:
    return tokens.new_empty(tokens.shape)


@register_flop_formula(torch.ops.disco_fast.encoder)
def _encoder_flops(
    tokens: torch.Size, position: torch.Size, weights: torch.Size, **_: object
) -> int:
    """What PyTorch's counter finds in the layers one by one: matrix products."""
    images, count, width = tokens
    products = sum(
        math.prod(shape) for shape in reference.ENCODER_LAYER.values() if len(shape) == 2
    )
    return 2 * images * count * weights[0] * (products + 2 * count * width)
