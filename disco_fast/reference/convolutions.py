"""What follows a convolution."""

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
) -> Tensor:
    """What follows a convolution: bias, residual, (leaky) ReLU, a batch norm's scale and shift.

    Args:
        x: [N,C,H,W], fp64, fp32, fp16 or bf16.
        bias: [C] added first, fp64 for fp64 and otherwise fp32; or None.
        residual: like x, added before the activation; or None.
        slope: what negative values are multiplied by: 0 is a ReLU, 1 no activation.
        scale: [C] like the bias, that the activated values are multiplied by; or None.
        shift: [C] like the bias, added last; or None.

    Returns:
        Shape, dtype and layout of x. Computed in fp64 for fp64, otherwise in fp32, rounded once.
    """
    value = x.to(wide_dtype(x.dtype))
    for term in (bias if bias is None else bias[:, None, None], residual):
        value = value if term is None else value + term
    value = F.relu(value) if slope == 0 else torch.where(value < 0, value * slope, value)
    value = value if scale is None else value * scale[:, None, None]
    value = value if shift is None else value + shift[:, None, None]
    return torch.empty_like(x, memory_format=layout_of(x)).copy_(value)
