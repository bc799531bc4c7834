"""Checks of arguments that several ops share; each error names the op and the argument."""

from __future__ import annotations

from typing import NoReturn

import torch
from torch import Tensor


def refuse(op: str, expected: str, got: object) -> NoReturn:
    """Raise ValueError with what was expected and what came."""
    raise ValueError(f"{op}: expected {expected}, got {got}")


def check_floating(op: str, **tensors: Tensor) -> None:
    """All are floating tensors on one device."""
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{op}: {name} must be a tensor, got {type(tensor).__name__}")
        if not tensor.is_floating_point():
            refuse(op, f"{name} floating", tensor.dtype)
    check_device(op, **tensors)


def check_device(op: str, **tensors: Tensor) -> None:
    """All are on one device."""
    first_name, first = next(iter(tensors.items()))
    for name, tensor in tensors.items():
        if tensor.device != first.device:
            refuse(op, f"{name} on {first.device} like {first_name}", tensor.device)


def check_grid(op: str, association: Tensor, cell_size: int) -> tuple[int, int]:
    """The association map fits the grid; returns the grid's rows and columns."""
    shape = tuple(association.shape)
    if len(shape) != 4 or shape[1] != 9:
        refuse(op, "association [N,9,H,W]", shape)
    if cell_size < 1:
        refuse(op, "cell_size of at least 1", cell_size)
    if min(shape) == 0 or shape[2] % cell_size or shape[3] % cell_size:
        refuse(op, f"association with H and W positive multiples of cell_size={cell_size}", shape)
    return shape[2] // cell_size, shape[3] // cell_size


def check_features(
    op: str,
    features: Tensor,
    association: Tensor,
    channels: int | None = None,
    name: str = "features",
    narrow: bool = False,
) -> None:
    """The features have the dtype and size of the association, and as many channels as said.

    With `narrow`, 16-bit ones may be beside an association in fp32.
    """
    pair = association.dtype, features.dtype
    mixed = pair in ((torch.float32, torch.bfloat16), (torch.float32, torch.float16))
    if features.dtype != association.dtype and not (narrow and mixed):
        kinds = f"{association.dtype} like the association"
        refuse(op, f"{name} in {kinds}" + " or 16 bits" * narrow, features.dtype)
    shape, other = tuple(features.shape), tuple(association.shape)
    fits = len(shape) == 4 and shape[0] == other[0] and shape[2:] == other[2:]
    if not fits or shape[1] == 0 or channels not in (None, shape[1]):
        wanted = f"{name} [N,{channels or 'C'},H,W] with N,H,W of the association {other}"
        refuse(op, wanted, shape)
