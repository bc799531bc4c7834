"""Convolutions in 8 bits on a CPU: bytes times signed bytes, by oneDNN.

An activation is `step * (byte - zero)`, and `step` and `zero` are fixed: where the values that a
convolution takes lie was measured once (`calibration.py`). Weights have a step for each output.

oneDNN takes about a tenth longer where `zero` is not 0. So it is told that it is: what that adds to
every output is a constant, and is taken from the bias. Then padding must be bytes of `zero`, not of
0, and the input brings it.
"""

from __future__ import annotations

from typing import TypeGuard

import torch
from torch import Tensor, nn

from .. import ops
from ..model import Ranges
from .between import Between
from .convolutions import MergedUpBlock, one_by_one

_NARROWEST = 16  # channels: with fewer, a convolution waits for memory, and rounding costs most
_LEAST = 1e-12  # of a step


def runs_in_int8(module: nn.Module) -> TypeGuard[nn.Conv2d | nn.ConvTranspose2d]:
    """Whether a module is a convolution that is worth it: transposed ones are those of `merged`."""
    return (
        isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
        and module.groups == 1
        and min(module.in_channels, module.out_channels) >= _NARROWEST
        and module.kernel_size != (1, 1)  # passes over its input cost as much as they save
    )


def levels(low: float, high: float) -> tuple[float, int]:
    """The step between bytes, and the byte of zero, for values from `low` to `high`."""
    step = max((max(high, 0.0) - min(low, 0.0)) / 255, _LEAST)
    return step, round(-min(low, 0.0) / step)


# These keep their tensors in plain attributes: they stay fp32 whatever the network's format is.


class Activated(nn.Module):
    """What follows a convolution, in one pass."""

    def __init__(self, between: Between, channels: int):
        super().__init__()
        self._slope = between.slope
        self._scale, self._shift = between.scale_and_shift(channels)

    def forward(self, x: Tensor) -> Tensor:
        """[N,C,H,W] to the same."""
        return ops.bias_act(x, None, None, self._slope, self._scale, self._shift)


class Quantized(nn.Module):
    """What stands before a convolution in 8 bits, in one pass."""

    def __init__(self, between: Between, channels: int, step: float, zero: int, border: int):
        super().__init__()
        scale, shift = between.scale_and_shift(channels)
        self._slope, self._scale, self._shift = between.slope, scale / step, shift / step + zero
        self._border, self._zero = border, zero

    def forward(self, x: Tensor) -> Tensor:
        """[N,C,H,W] to bytes, larger by the border."""
        return ops.quantize(x, self._slope, self._scale, self._shift, self._border, self._zero)


class Int8Convolution(nn.Module):
    """A convolution of bytes.

    Args:
        convolution: with fp32 weights.
        step: of its input.
        zero: the byte of zero in its input; unless 0, the input brings its padding.

    Attributes:
        relu: whether a ReLU follows within.
        dtype: of its result.
        step: of its result, if that is bytes.
    """

    def __init__(self, convolution: nn.Conv2d, step: float, zero: int):
        super().__init__()
        weight = convolution.weight.detach().float()
        axes = 1, 2, 3
        largest = torch.maximum(weight.amax(axes), -weight.amin(axes))
        scales = (largest / 127).clamp_min(_LEAST)
        whole = (weight / scales[:, None, None, None]).round_().clamp_(-127, 127)
        padding = [0, 0] if zero else list(convolution.padding)
        self._geometry = list(convolution.stride), padding, list(convolution.dilation), 1
        self._input_step, self._scales = step, scales
        self._zeros = torch.zeros(len(scales), dtype=torch.int32)
        bias = torch.zeros(len(scales)) if convolution.bias is None else convolution.bias.detach()
        self._bias = bias.float() - step * zero * whole.sum(axes) * scales
        self._weight = torch.ops.onednn.qconv_prepack(
            whole.to(torch.int8), scales, step, 0, *self._geometry, None
        )
        self.relu, self.dtype, self.step = False, torch.bfloat16, 1.0

    def forward(self, x: Tensor, to: Tensor | None = None) -> Tensor:
        """[N,I,H,W] bytes to [N,O,h,w], channels-last.

        Args:
            x: the bytes.
            to: [N,O,h,w] in `dtype`, to which the result is added, before the ReLU. In place.
        """
        convolve = torch.ops.onednn.qconv2d_pointwise
        weights = self._weight, self._scales, self._zeros
        result = self.step, 0, self.dtype
        activation: tuple[str, list[float], str] = "relu" if self.relu else "none", [], ""
        if to is None:
            return convolve(
                x, self._input_step, 0, *weights, self._bias, *self._geometry, *result, *activation
            )
        return convolve.binary(
            x,
            self._input_step,
            0,
            *weights,
            to,
            self._bias,
            *self._geometry,
            *result,
            1.0,
            0,
            "sum",
            1.0,
            *activation,
        )


class Int8Upsampling(nn.Module):
    """What `merged` makes of upsampling and a convolution, of bytes.

    Of 4x4 products only 2x2 are of one input pixel. Which ones depends on whether a row is even or
    odd, and so for a column: four convolutions with kernels of 2x2, computed as one.

    Args:
        convolution: with fp32 weights.
        step, zero: as for `Int8Convolution`.
    """

    def __init__(self, convolution: nn.ConvTranspose2d, step: float, zero: int):
        super().__init__()
        inputs, outputs = convolution.weight.shape[:2]
        taps = ((3, 1), (2, 0))  # in an even row the upper and the lower one, and in an odd one
        kernel = convolution.weight.detach()[:, :, taps][..., taps]  # [I,O,2,2,2,2]
        with torch.device("meta"):
            four = nn.Conv2d(inputs, 4 * outputs, 2, padding=1, bias=convolution.bias is not None)
        weight = kernel.permute(2, 4, 1, 0, 3, 5).reshape(four.weight.shape)
        four.weight = nn.Parameter(weight, requires_grad=False)
        if convolution.bias is not None:
            four.bias = nn.Parameter(convolution.bias.detach().repeat(4), requires_grad=False)
        self.four = Int8Convolution(four, step, zero)

    def forward(self, x: Tensor) -> Tensor:
        """[N,I,h,w] bytes to [N,O,2h,2w], channels-last."""
        four = self.four(x)
        height, width = four.shape[2] - 1, four.shape[3] - 1
        size = len(four), four.shape[1] // 4, 2 * height, 2 * width
        result = torch.empty(size, dtype=four.dtype, memory_format=torch.channels_last)
        for number, part in enumerate(four.chunk(4, dim=1)):
            row, column = divmod(number, 2)
            result[:, :, row::2, column::2] = part[:, :, row:, column:][:, :, :height, :width]
        return result


class Int8UpBlock(nn.Module):
    """A `MergedUpBlock` of which all convolutions are in 8 bits; one adds to the other."""

    def __init__(self, block: MergedUpBlock):
        super().__init__()
        self.conv1, self.up, self.conv2 = block.conv1, block.up, block.conv2
        assert isinstance(block.skip, nn.Sequential)
        self.quantized, skip = block.skip
        assert isinstance(skip, Int8Convolution)
        skip.relu = True
        self.skip = skip

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """As `UpBlock`."""
        return self.conv2(self.skip(self.quantized(skip), self.up(self.conv1(x))))


def convolve_in_int8(network: nn.Module, ranges: Ranges, prefix: str = "") -> None:
    """Run the convolutions of known ranges in 8 bits. In place.

    Args:
        network: with fp32 weights.
        ranges: of the convolutions in it.
        prefix: what their names begin with.
    """
    for name, child in one_by_one(network):
        full = prefix + name
        if isinstance(child, nn.Sequential):
            setattr(network, name, nn.Sequential(*_rewritten(child, ranges, full + ".")))
        elif full in ranges and runs_in_int8(child):
            alone = _convolved([], Between(), child, *levels(*ranges[full]))
            setattr(network, name, nn.Sequential(*alone))
        else:
            convolve_in_int8(child, ranges, full + ".")
            if isinstance(child, MergedUpBlock) and isinstance(child.skip, nn.Sequential):
                setattr(network, name, Int8UpBlock(child))


def _rewritten(sequence: nn.Sequential, ranges: Ranges, prefix: str) -> list[nn.Module]:
    done: list[nn.Module] = []
    between = Between()
    for name, module in sequence.named_children():
        if between.take(module):
            continue
        if prefix + name in ranges and runs_in_int8(module):
            done += _convolved(done, between, module, *levels(*ranges[prefix + name]))
        else:
            convolve_in_int8(module, ranges, f"{prefix}{name}.")
            done += [*_left(done, between), module]
        between = Between()
    return done + _left(done, between)


def _convolved(
    before: list[nn.Module],
    between: Between,
    convolution: nn.Conv2d | nn.ConvTranspose2d,
    step: float,
    zero: int,
) -> list[nn.Module]:
    """A convolution in 8 bits, with what brings it its bytes."""
    int8: nn.Module
    if isinstance(convolution, nn.ConvTranspose2d):
        int8 = Int8Upsampling(convolution, step, zero)
    else:
        int8 = Int8Convolution(convolution, step, zero)
    last = before[-1] if before else None
    if isinstance(last, Int8Convolution):
        if between.is_relu and not zero:
            last.relu, last.dtype, last.step = True, torch.uint8, step
            return [int8]
        last.dtype = torch.float32  # bf16 would round as much as the bytes do
    border = int(convolution.padding[0]) if zero else 0
    return [Quantized(between, convolution.in_channels, step, zero, border), int8]


def _left(before: list[nn.Module], between: Between) -> list[nn.Module]:
    """What stands between a convolution and something else than one in 8 bits."""
    last = before[-1] if before else None
    if not isinstance(last, Int8Convolution) or not between.modules:
        return between.modules
    if between.is_relu:
        last.relu = True
        return []
    return [Activated(between, len(last._scales))]
