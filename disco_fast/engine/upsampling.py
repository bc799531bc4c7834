"""Nearest upsampling and the 3x3 convolution after it, as one transposed convolution.

Every input pixel becomes 2x2 equal ones, and those are convolved: together a transposed convolution
of stride 2 whose 4x4 kernel is the 3x3 one convolved with 2x2 ones. It multiplies 16 times per
input pixel where the two steps multiply 36 times, and is exact but for rounding, zero padding
included.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..model.refinenet import UpBlock


def transposed_kernel(weight: Tensor) -> Tensor:
    """A convolution's weight [O,I,3,3] as that of the transposed convolution, [I,O,4,4]."""
    outputs, inputs = weight.shape[:2]
    planes = weight.detach().double().reshape(outputs * inputs, 1, 3, 3)
    ones = planes.new_ones(1, 1, 2, 2)
    spread = F.conv_transpose2d(planes.flip(2, 3), ones)
    return spread.view(outputs, inputs, 4, 4).transpose(0, 1).to(weight.dtype).contiguous()


def merged(weight: Tensor, bias: Tensor | None) -> nn.ConvTranspose2d:
    """Upsampling and convolution with these weights, as one module."""
    kernel = transposed_kernel(weight)
    inputs, outputs = kernel.shape[:2]
    with torch.device("meta"):
        module = nn.ConvTranspose2d(inputs, outputs, 4, 2, padding=1, bias=bias is not None)
    module.weight = nn.Parameter(kernel, requires_grad=False)
    if bias is not None:
        module.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return module


class MergedUpBlock(nn.Module):
    """RefineNet's up block: the upsampled half of its concatenation goes through `merged`."""

    def __init__(self, block: UpBlock):
        super().__init__()
        weight = block.combine.weight
        half = weight.shape[1] // 2
        self.conv1, self.conv2 = block.conv1, block.conv2
        self.up = merged(weight[:, :half], block.combine.bias)
        with torch.device("meta"):
            self.skip = nn.Conv2d(half, weight.shape[0], 3, padding=1, bias=False)
        skip = weight[:, half:].detach().clone()
        self.skip.weight = nn.Parameter(skip, requires_grad=False)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """As `UpBlock`."""
        return self.conv2(F.relu(self.up(self.conv1(x)) + self.skip(skip)))


def merge_upsampling(network: nn.Module) -> None:
    """Merge every upsampling with the convolution after it. In place."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, UpBlock):
                setattr(parent, name, MergedUpBlock(child))
            elif isinstance(child, nn.Sequential) and isinstance(child[0], nn.Upsample):
                convolution = child.get_submodule("1")
                assert isinstance(convolution, nn.Conv2d)
                setattr(parent, name, merged(convolution.weight, convolution.bias))
