"""Tensors of different devices are refused before a kernel reads another device's address."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch
from torch._C import DispatchKey

from disco_fast import ops, reference
from disco_fast.color import bin_centers

_LABELS = torch.zeros(2, 5, dtype=torch.int64)
_MAP, _FEATURES, _TOKENS = (
    torch.ones(1, 9, 16, 16),
    torch.ones(1, 2, 16, 16),
    torch.ones(1, 2, 2, 2),
)

# Every op of several tensors, and arguments of the CPU.
CALLS: dict[str, tuple[Any, ...]] = {
    "sp_pool": (_FEATURES, _MAP, 8),
    "sp_pool_with_size": (_FEATURES, _MAP, 8),
    "sp_aggregate": (_FEATURES, _MAP, 8),
    "sp_diffuse": (_TOKENS, _MAP, 8, torch.ones(1, 1, 16, 16)),
    "sp_correlate": (_FEATURES, _TOKENS, torch.ones(1, 1, 2, 2), 8),
    "kmeans": (torch.ones(2, 5, 3), _LABELS[:, :2], 20, 1e-4),
    "select_anchors": (_LABELS, torch.ones(2, 5), 3),
    "anchor_bins": (torch.ones(2, 5, 313), _LABELS, bin_centers("cpu"), 1),
    "choose_anchors": (
        *(_LABELS, torch.ones(2, 5), torch.ones(2, 5, 313), bin_centers("cpu")),
        *(3, 1),
    ),
    "encoder": (
        *(torch.ones(1, 4, reference.ENCODER_DIM), torch.ones(1, 4, reference.ENCODER_DIM)),
        torch.ones(1, reference.ENCODER_PARAMETERS),
    ),
    "bias_act": (
        *(torch.ones(1, 3, 4, 4), torch.ones(3), torch.ones(1, 3, 4, 4), 0.1),
        *(torch.ones(3), torch.ones(3), torch.ones(1, 2, 4, 4)),
    ),
    "convolve": (
        *(torch.ones(1, 8, 4, 4).half(), torch.ones(8, 8, 3, 3).half(), torch.ones(8)),
        *(torch.ones(1, 8, 4, 4).half(), 0.1, torch.ones(8), torch.ones(8)),
    ),
    "associate": (torch.ones(1, 9, 4, 4), torch.ones(9)),
    "quantize": (torch.ones(1, 3, 4, 4), 0.1, torch.ones(3), torch.ones(3), 1, 0),
    "lab_to_rgb": (torch.ones(1, 1, 4, 4), torch.ones(1, 2, 2, 2), False),
}
GPU_ONLY = {"associate", "convolve"}  # the specification computes it on a CPU
ONE_TENSOR = {"superpixel_size", "kmeans_init", "rgb_to_l"}


def mixed(arguments: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """The arguments with each tensor in turn on another device."""
    return [
        (*arguments[:i], argument.to("meta"), *arguments[i + 1 :])
        for i, argument in enumerate(arguments)
        if isinstance(argument, torch.Tensor)
    ]


def test_every_op_is_here():
    assert {*CALLS, *ONE_TENSOR} == {*ops.SCHEMAS}


@pytest.mark.parametrize("name", [name for name in CALLS if hasattr(ops, name)])
def test_the_wrappers_name_the_tensor(name: str):
    for arguments in mixed(CALLS[name]):
        with pytest.raises(ValueError, match=rf"{name}: expected \w+ on (cpu|meta) like"):
            getattr(ops, name)(*arguments)


@pytest.mark.parametrize("name", [name for name in CALLS if name not in GPU_ONLY])
def test_the_tensor_layer_refuses_them(native: ModuleType, name: str):
    op = getattr(torch.ops.disco_fast, name).default
    op._op_dk(DispatchKey.CPU, *CALLS[name])
    for arguments in mixed(CALLS[name]):
        with pytest.raises(RuntimeError, match=f"{name}: all tensors must be on one device"):
            op._op_dk(DispatchKey.CPU, *arguments)
