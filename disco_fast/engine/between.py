"""What stands between two convolutions, as numbers: what one pass over a result needs to know."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Between:
    """An activation, a batch norm, both in this order, or nothing."""

    def __init__(self) -> None:
        self.modules: list[nn.Module] = []

    def take(self, module: nn.Module) -> bool:
        """Whether the module is one more of it."""
        activation = isinstance(module, nn.ReLU | nn.LeakyReLU) and not self.modules
        norm = isinstance(module, nn.BatchNorm2d) and not self.has_norm
        if activation or norm:
            self.modules.append(module)
        return activation or norm

    @property
    def is_relu(self) -> bool:
        """Whether it is a ReLU and nothing else."""
        return len(self.modules) == 1 and isinstance(self.modules[0], nn.ReLU)

    @property
    def has_norm(self) -> bool:
        """Whether it ends in a batch norm."""
        return bool(self.modules) and isinstance(self.modules[-1], nn.BatchNorm2d)

    @property
    def slope(self) -> float:
        """What negative values are multiplied by; 1 without an activation."""
        first = self.modules[0] if self.modules else None
        if isinstance(first, nn.LeakyReLU):
            return first.negative_slope
        return 0.0 if isinstance(first, nn.ReLU) else 1.0

    def scale_and_shift(self, channels: int) -> tuple[Tensor, Tensor]:
        """Of the batch norm, [C] fp32 each."""
        norm = self.modules[-1] if self.modules else None
        if not isinstance(norm, nn.BatchNorm2d):
            return torch.ones(channels), torch.zeros(channels)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight.double() * (norm.running_var.double() + norm.eps).rsqrt()
        shift = norm.bias.double() - norm.running_mean.double() * scale
        return scale.detach().float(), shift.detach().float()
