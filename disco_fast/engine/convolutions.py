"""Convolutions that do less for the same result: folded, merged, and packed for oneDNN.

Exact but for rounding.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval, remove_spectral_norm

from ..model.efficientnet import Standardize
from ..model.refinenet import RefineNet, UpBlock
from .precision import InFormat

Convolution = nn.Conv2d | nn.ConvTranspose2d

# ---- Normalizations that a convolution's weights take over ---------------------------------------


def fold_spectral_norm(network: nn.Module) -> None:
    """Divide every spectrally normalized weight by its norm once and for all. In place."""
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


# ---- Upsampling ----------------------------------------------------------------------------------
#
# Every input pixel becomes 2x2 equal ones, and those are convolved by 3x3: together a transposed
# convolution of stride 2 whose 4x4 kernel is the 3x3 one convolved with 2x2 ones. It multiplies 16
# times per input pixel where the two steps multiply 36 times; zero padding is included.


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


# ---- Padding -------------------------------------------------------------------------------------


def widen_kernels(network: nn.Module) -> None:
    """Have a convolution do the padding before it, which has one more at the end. In place.

    A row and a column of zeros in front of its kernel make the padding symmetric, as a convolution
    can have it, and save a copy of its input.
    """
    for parent in list(network.modules()):
        if isinstance(parent, nn.Sequential):
            for i in reversed(range(len(parent) - 1)):
                pad, convolution = parent[i], parent[i + 1]
                if isinstance(pad, nn.ZeroPad2d) and isinstance(convolution, nn.Conv2d):
                    parent[i] = _widened(convolution, pad.padding)
                    del parent[i + 1]


def _widened(convolution: nn.Conv2d, padding: tuple[int, int, int, int]) -> nn.Conv2d:
    before, after = padding[:2]
    assert padding == (before, after) * 2
    assert after == before + 1
    outputs, inputs = convolution.out_channels, convolution.in_channels
    side = convolution.kernel_size[0] + 1
    with torch.device("meta"):
        wide = nn.Conv2d(
            inputs, outputs, side, convolution.stride[0], after, groups=convolution.groups
        )
    weight = F.pad(convolution.weight.detach(), (1, 0, 1, 0))
    wide.weight = nn.Parameter(weight, requires_grad=False)
    wide.bias = convolution.bias
    return wide


# ---- Leading channel -----------------------------------------------------------------------------


def spread_lead(network: RefineNet, channels: int) -> None:
    """Have RefineNet's input begin with `channels` channels instead of one; others are zeros.

    In place.
    """
    block = network.inConv.inConv
    convolution = block[0]
    assert isinstance(convolution, nn.Conv2d)
    lead, features = convolution.weight.detach().split([1, convolution.in_channels - 1], dim=1)
    with torch.device("meta"):
        wide = nn.Conv2d(channels + features.shape[1], convolution.out_channels, 3, padding=1)
    weight = torch.cat([F.pad(lead, (0, 0, 0, 0, 0, channels - 1)), features], dim=1)
    wide.weight = nn.Parameter(weight, requires_grad=False)
    wide.bias = convolution.bias
    block[0] = wide


# ---- Packing -------------------------------------------------------------------------------------
#
# A convolution's weights in the order that oneDNN multiplies them in, and its activation in it.
# PyTorch reorders them in every call, and passes over the result once more for the activation.
# Exact but for bf16, which is rounded once less.


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
        weight = convolution.weight.detach()
        packed = weight if _ordered_by_size(convolution) else reorder(weight, *self._geometry)
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


def _ordered_by_size(convolution: Convolution) -> bool:
    """Whether oneDNN's order of the weights depends on image, batch and threads.

    It does for 1x1 convolutions, and without AVX-512 for all but transposed ones. Packed for
    another size, weights are ordered anew in every call, which takes 14 ms for 256x256x3x3, and
    up to 25 ms where a 1x1 convolution takes 0.2 ms. Plain ones are ordered in 0.3 ms at most.
    """
    if isinstance(convolution, nn.ConvTranspose2d):
        return False
    wide = torch.backends.cpu.get_cpu_capability() not in ("DEFAULT", "AVX2")
    return convolution.kernel_size == (1, 1) or not wide


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
    for name, child in one_by_one(network):
        if isinstance(child, Convolution) and _packable(child.weight):
            setattr(network, name, PackedConvolution(child, _take_activation(network, name)))
        else:
            _pack(child)


def one_by_one(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The children with their names, for a loop that replaces them.

    A list of them would keep the weights of all that are replaced until the loop ends.
    """
    for name in [name for name, _ in network.named_children()]:
        yield name, network.get_submodule(name)


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
