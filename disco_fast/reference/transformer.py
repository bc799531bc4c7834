"""The transformer encoder over the superpixels of an image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

ENCODER_DIM = 64  # width of a token
HEADS = 8
NORM_EPSILON = 1e-5

# The parameters of an encoder layer in the order in which its row of weights holds them, by the
# names of PyTorch's modules. Matrices are transposed, [inputs, outputs]; csrc/args.h has the same.
ENCODER_LAYER = {
    "self_attn.in_proj_weight": (ENCODER_DIM, 3 * ENCODER_DIM),
    "self_attn.in_proj_bias": (3 * ENCODER_DIM,),
    "self_attn.out_proj.weight": (ENCODER_DIM, ENCODER_DIM),
    "self_attn.out_proj.bias": (ENCODER_DIM,),
    "linear1.weight": (ENCODER_DIM, 4 * ENCODER_DIM),
    "linear1.bias": (4 * ENCODER_DIM,),
    "linear2.weight": (4 * ENCODER_DIM, ENCODER_DIM),
    "linear2.bias": (ENCODER_DIM,),
    "norm1.weight": (ENCODER_DIM,),
    "norm1.bias": (ENCODER_DIM,),
    "norm2.weight": (ENCODER_DIM,),
    "norm2.bias": (ENCODER_DIM,),
}
ENCODER_PARAMETERS = sum(math.prod(shape) for shape in ENCODER_LAYER.values())


def pack_encoder(layers: Sequence[Mapping[str, Tensor]]) -> Tensor:
    """The weights of `encoder`, a row per layer.

    Args:
        layers: parameters of each layer by the names of `ENCODER_LAYER`, as a `state_dict` of
            `model.transformer.EncoderLayer` has them.

    Returns:
        [L, ENCODER_PARAMETERS].
    """
    return torch.stack(
        [torch.cat([layer[name].t().flatten() for name in ENCODER_LAYER]) for layer in layers]
    )


def unpack_layer(row: Tensor) -> dict[str, Tensor]:
    """Views of a layer's parameters in its row of weights, by the names of `ENCODER_LAYER`."""
    parts = row.split([math.prod(shape) for shape in ENCODER_LAYER.values()])
    shapes = ENCODER_LAYER.items()
    return {name: part.view(shape) for part, (name, shape) in zip(parts, shapes, strict=True)}


def encoder(tokens: Tensor, position: Tensor, weights: Tensor) -> Tensor:
    """A transformer encoder over the superpixels of an image (color modeler, color generator).

    Each layer is self-attention of eight heads and a feed-forward block with ReLU, both added to
    their input and followed by a layer norm.

    Args:
        tokens: [N,P,64], floating.
        position: [1,P,64], added to queries and keys of every layer, not to values.
        weights: [L,49984] from `pack_encoder`, L at least 1.

    Returns:
        [N,P,64].
    """
    for row in weights:
        tokens = _encoder_layer(tokens, position, *unpack_layer(row).values())
    return tokens


def _encoder_layer(
    tokens: Tensor,
    position: Tensor,
    in_weight: Tensor,
    in_bias: Tensor,
    out_weight: Tensor,
    out_bias: Tensor,
    hidden_weight: Tensor,
    hidden_bias: Tensor,
    last_weight: Tensor,
    last_bias: Tensor,
    *norms: Tensor,
) -> Tensor:
    located = tokens + position
    inputs = zip(in_weight.chunk(3, dim=1), in_bias.chunk(3), strict=True)
    queries, keys, values = (
        (x @ weight + bias).unflatten(2, (HEADS, -1)).transpose(1, 2)  # [N,8,P,8]
        for x, (weight, bias) in zip((located, located, tokens), inputs, strict=True)
    )
    attended = F.scaled_dot_product_attention(queries, keys, values).transpose(1, 2).flatten(2)

    def normalized(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return F.layer_norm(x, (ENCODER_DIM,), scale, shift, NORM_EPSILON)

    tokens = normalized(tokens + attended @ out_weight + out_bias, *norms[:2])
    hidden = F.relu(tokens @ hidden_weight + hidden_bias)
    return normalized(tokens + hidden @ last_weight + last_bias, *norms[2:])
