"""A convolution's weights in the order that oneDNN multiplies them in, and its activation in it.

PyTorch reorders them in every call, and passes over the result once more for the activation. Exact
but for bf16, which is rounded once less.
"""

from __future__ import annotations

import platform

import torch
from torch import Tensor, nn

from .precision import InFormat

Convolution = nn.Conv2d | nn.ConvTranspose2d


class PackedConvolution(nn.Module):
    """A convolution whose result is channels-last, and the activation after it.

    Args:
        convolution: on the CPU, fp32 or bf16.
        activation: ReLU, ReLU6, leaky ReLU or None.
    """

    def __init__(self, convolution: Convolution, activation: nn.Module | None = None):
        super().__init__()
        self._transposed = isinstance(convolution, nn.ConvTranspose2d)
        padding, stride, dilation = (
            list(convolution.padding),
            list(convolution.stride),
            list(convolution.dilation),
        )
        extra = [list(convolution.output_padding)] if self._transposed else []
        self._geometry = (padding, *extra, stride, dilation, convolution.groups)
        self._activation = _description(activation)
        reorder = (
            torch.ops.mkldnn._reorder_convolution_transpose_weight
            if self._transposed
            else torch.ops.mkldnn._reorder_convolution_weight
        )
        packed = reorder(convolution.weight.detach(), *self._geometry)
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.bias = convolution.bias

    def forward(self, x: Tensor) -> Tensor:
        """[N,I,H,W] to [N,O,h,w], in one dtype."""
        convolve = (
            torch.ops.mkldnn._convolution_transpose_pointwise
            if self._transposed
            else torch.ops.mkldnn._convolution_pointwise
        )
        return convolve(x, self.weight, self.bias, *self._geometry, *self._activation)


def _description(activation: nn.Module | None) -> tuple[str, list[float], str]:
    """An activation as oneDNN's name, numbers and algorithm."""
    if activation is None:
        return "none", [], ""
    if isinstance(activation, nn.LeakyReLU):
        return "leaky_relu", [activation.negative_slope], ""
    if isinstance(activation, nn.ReLU6):
        return "hardtanh", [0.0, 6.0], ""
    return "relu", [], ""


def pack_convolutions(network: nn.Module) -> None:
    """Pack the convolutions that run channels-last on an x86 CPU; others are left alone. In place.

    oneDNN packs for channels-last only.
    """
    if platform.machine() not in ("x86_64", "AMD64") or not torch.backends.mkldnn.is_available():
        return
    for module in network.modules():
        if isinstance(module, InFormat) and module.layout == torch.channels_last:
            _pack(module)


def _pack(network: nn.Module) -> None:
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Convolution) and _packable(child.weight):
                activation = _take_activation(parent, name)
                if activation is not None or not _pointwise(child):
                    setattr(parent, name, PackedConvolution(child, activation))


def _pointwise(convolution: Convolution) -> bool:
    """Whether it is 1x1: oneDNN orders its weights by the size of the picture.

    Packed for another size they are ordered anew in every call, 11 ms for 1152 to 320 channels
    where the convolution takes 0.2 ms. With no activation to take over, packing gains less.
    """
    return convolution.weight.shape[2:] == (1, 1)


def _packable(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and (
        weight.dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def _take_activation(parent: nn.Module, name: str) -> nn.Module | None:
    """The activation that follows a convolution at once; nothing is left in its place."""
    children = list(parent.named_children())
    following = [child for child, _ in children].index(name) + 1
    if not isinstance(parent, nn.Sequential) or following == len(children):
        return None
    place, activation = children[following]
    if not isinstance(activation, nn.ReLU | nn.ReLU6 | nn.LeakyReLU):
        return None
    setattr(parent, place, nn.Identity())
    return activation
