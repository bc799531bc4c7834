"""Normalisations that a convolution's weights can take over for good. Exact but for rounding."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils import fuse_conv_bn_eval, remove_spectral_norm

from ..model.efficientnet import Standardize


def fold_spectral_norm(network: nn.Module) -> None:
    """Divide every spectrally normalised weight by its norm once and for all. In place."""
    for module in network.modules():
        if hasattr(module, "weight_orig"):
            remove_spectral_norm(module)


@torch.no_grad()
def fold_standardization(network: nn.Module) -> None:
    """Have the convolution after a `Standardize` do its work too. In place."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Sequential) and isinstance(child[0], Standardize):
                standard, convolution = child[0], child[1]
                assert isinstance(convolution, nn.Conv2d)
                assert convolution.bias is not None
                weight = convolution.weight / standard.deviation[:, None, None]
                bias = convolution.bias - weight[..., 0, 0] @ standard.mean
                # New ones, for the old ones are still those of the network that was given.
                convolution.weight = nn.Parameter(weight, requires_grad=False)
                convolution.bias = nn.Parameter(bias, requires_grad=False)
                setattr(parent, name, convolution)


def fold_batch_norm(network: nn.Module) -> None:
    """Fold every batch norm that follows a convolution at once into it. In place.

    These are SPixNet's. Those of the backbone and of RefineNet stand between an activation and a
    convolution with zero padding: the padding is zero after the shift, so it cannot be folded
    forward, and the activation is in the way backward.
    """
    for parent in network.modules():
        if isinstance(parent, nn.Sequential):
            for i in reversed(range(len(parent) - 1)):
                first, second = parent[i], parent[i + 1]
                if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                    parent[i] = fuse_conv_bn_eval(first, second)
                    del parent[i + 1]
