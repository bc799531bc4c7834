"""A convolution and what follows it, and what comes before one in 8 bits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .superpixels import layout_of, wide_dtype


def bias_act(
    x: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    slope: float,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    lead: Tensor | None = None,
) -> Tensor:
    """What follows a convolution: bias, residual, (leaky) ReLU, a batch norm's scale and shift.

    Args:
        x: [N,C,H,W], fp64, fp32, fp16 or bf16.
        bias: [C] added first, fp64 for fp64 and otherwise fp32; or None.
        residual: like x, added before the activation; or None.
        slope: what negative values are multiplied by: 0 is a ReLU, 1 no activation.
        scale: [C] like the bias, that the activated values are multiplied by; or None.
        shift: [C] like the bias, added last; or None.
        lead: [N,L,H,W] in the dtype of x, put in front of the result as it is; or None.

    Returns:
        [N,L+C,H,W], dtype and layout of x. Computed in fp64 for fp64, otherwise in fp32, rounded
        once.
    """
    value = x.to(wide_dtype(x.dtype))
    for term in (bias if bias is None else bias[:, None, None], residual):
        value = value if term is None else value + term
    value = F.relu(value) if slope == 0 else torch.where(value < 0, value * slope, value)
    value = value if scale is None else value * scale[:, None, None]
    value = value if shift is None else value + shift[:, None, None]
    value = value if lead is None else torch.cat([lead.to(value.dtype), value], dim=1)
    layout = layout_of(x)
    out = torch.empty(value.shape, dtype=x.dtype, device=x.device, memory_format=layout)
    return out.copy_(value)


def round_to_tf32(x: Tensor) -> Tensor:
    """fp32 with 10 bits behind the first, the nearest such; halves away from zero.

    Args:
        x: fp32, any shape.
    """
    bits = x.contiguous().view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32)


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    slope: float,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
) -> Tensor:
    """A 3x3 convolution with a border of zeros, and what follows it as in `bias_act`.

    Args:
        x: [N,I,H,W], fp64, fp32, fp16 or bf16; fp32 is rounded to TF32.
        weight: [O,I,3,3] in the dtype of x, and rounded like it.
        bias: [O] added first, fp64 for fp64 and otherwise fp32; or None.
        residual: like the result, added before the activation; or None.
        slope: what negative values are multiplied by: 0 is a ReLU, 1 no activation.
        scale: [O] like the bias, that the activated values are multiplied by; or None.
        shift: [O] like the bias, added last; or None.

    Returns:
        [N,O,H,W] in the dtype of x, channels-last. Computed in fp64 for fp64, otherwise in fp32,
        rounded once.
    """
    wide = wide_dtype(x.dtype)
    if x.dtype == torch.float32:
        x, weight = round_to_tf32(x), round_to_tf32(weight)
    product = F.conv2d(x.to(wide), weight.to(wide), padding=1)
    residual = residual if residual is None else residual.to(wide)
    value = bias_act(product, bias, residual, slope, scale, shift)
    return value.to(x.dtype, memory_format=torch.channels_last)


def quantize(
    x: Tensor, slope: float, scale: Tensor, shift: Tensor, padding: int, zero: int
) -> Tensor:
    """(Leaky) ReLU, scale and shift, rounded to bytes, with a border: a convolution's input.

    Args:
        x: [N,C,H,W], fp32, fp16 or bf16.
        slope: what negative values are multiplied by: 0 is a ReLU, 1 no activation.
        scale: [C] fp32, that the activated values are multiplied by: quantization steps in a unit.
        shift: [C] fp32, added: the byte of zero, and whatever else was added.
        padding: rows and columns of the border on each side.
        zero: its byte.

    Returns:
        [N,C,H+2*padding,W+2*padding] uint8, channels-last. Halves are rounded to even, what lies
        beyond 0..255 becomes the end, NaN 0.
    """
    value = bias_act(x.float(), None, None, slope, scale, shift)
    value = F.pad(value.nan_to_num(0.0).clamp(0, 255).round(), [padding] * 4, value=zero)
    return value.to(torch.uint8, memory_format=torch.channels_last)
