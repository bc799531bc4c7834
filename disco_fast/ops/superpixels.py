"""SP-Pooling and SP-Diffusion, their gradients, and the area of superpixels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .. import reference
from .checks import check_features, check_floating, check_grid, refuse
from .schemas import define

define(reference.associate, "(Tensor logits, Tensor? bias=None) -> Tensor")
define(
    reference.sp_pool,
    "(Tensor features, Tensor association, int cell_size) -> (Tensor, Tensor)",
)
define(
    reference.sp_pool_with_size,
    "(Tensor features, Tensor association, int cell_size) -> (Tensor, Tensor, Tensor)",
)
define(
    reference.sp_aggregate,
    "(Tensor features, Tensor association, int cell_size) -> (Tensor, Tensor)",
)
define(
    reference.sp_diffuse,
    "(Tensor tokens, Tensor association, int cell_size, Tensor? lead=None, int lead_channels=1)"
    " -> Tensor",
)
define(
    reference.sp_correlate,
    "(Tensor features, Tensor tokens, Tensor? offset, int cell_size) -> Tensor",
)
define(
    reference.superpixel_size,
    "(Tensor association, int cell_size) -> Tensor",
)


def associate(logits: Tensor, bias: Tensor | None = None) -> Tensor:
    """The association map of SPixNet's logits; see `reference.associate`. No gradient.

    On CPU tensors the specification computes it: torch's softmax there is one pass, too.

    Args:
        logits: [N,C,H,W], C at least 9, fp64, fp32, fp16 or bf16; channels-last is read in place.
        bias: [9], fp64 for fp64 and otherwise fp32; or None.

    Returns:
        [N,9,H,W] planar, fp64 for fp64 and otherwise fp32.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """
    others = {} if bias is None else {"bias": bias}
    check_floating("associate", logits=logits, **others)
    if logits.dim() != 4 or logits.shape[1] < 9 or 0 in logits.shape:
        refuse("associate", "logits [N,C,H,W], C at least 9, none of them 0", tuple(logits.shape))
    wide = reference.wide_dtype(logits.dtype)
    if bias is not None and (tuple(bias.shape) != (9,) or bias.dtype != wide):
        refuse("associate", f"bias [9] in {wide}", (tuple(bias.shape), bias.dtype))
    return torch.ops.disco_fast.associate(logits.detach(), None if bias is None else bias.detach())


@torch.library.register_fake("disco_fast::associate")
def _(logits: Tensor, bias: Tensor | None = None) -> Tensor:
    images, _, rows, columns = logits.shape
    return logits.new_empty((images, 9, rows, columns), dtype=reference.wide_dtype(logits.dtype))


def _check_pooled(op: str, features: Tensor, association: Tensor, cell_size: int) -> None:
    check_floating(op, features=features, association=association)
    check_grid(op, association, cell_size)
    check_features(op, features, association, narrow=True)


def sp_pool(features: Tensor, association: Tensor, cell_size: int) -> tuple[Tensor, Tensor]:
    """SP-Pooling (equation 1); see `reference.sp_pool`. Differentiable.

    Args:
        features: [N,C,H,W], fp64, fp32, fp16 or bf16, any strides; planar and channels-last are
            read in place.
        association: [N,9,H,W], same dtype, or fp32 with features in 16 bits; any strides.
        cell_size: side of a cell in pixels; H and W are multiples of it.

    Returns:
        (pooled [N,C,h,w], weight [N,1,h,w]), both fp64 for fp64 and otherwise fp32.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """
    _check_pooled("sp_pool", features, association, cell_size)
    return torch.ops.disco_fast.sp_pool(features, association, cell_size)


def sp_pool_with_size(
    features: Tensor, association: Tensor, cell_size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """`sp_pool` and `superpixel_size` in one pass over the association; differentiable as they are.

    Returns:
        (pooled [N,C,h,w], weight [N,1,h,w], size [N,1,h,w]).

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """
    _check_pooled("sp_pool_with_size", features, association, cell_size)
    return torch.ops.disco_fast.sp_pool_with_size(features, association, cell_size)


def sp_diffuse(
    tokens: Tensor,
    association: Tensor,
    cell_size: int,
    lead: Tensor | None = None,
    lead_channels: int = 1,
) -> Tensor:
    """SP-Diffusion (equation 2); see `reference.sp_diffuse`. Differentiable.

    Args:
        tokens: [N,C,h,w], any floating dtype (taken to fp32, or to fp64 with a fp64 association),
            any strides.
        association: [N,9,H,W], fp64, fp32, fp16 or bf16, planar or channels-last.
        cell_size: side of a cell in pixels.
        lead: [N,1,H,W] in the dtype of the association, put in front of the features, or None.
        lead_channels: L, at least 1: the lead and the zeros between it and the features.

    Returns:
        features [N,C,H,W], or [N,L+C,H,W] with a lead, in the dtype and layout of the association.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """
    check_floating("sp_diffuse", tokens=tokens, association=association)
    grid = check_grid("sp_diffuse", association, cell_size)
    shape = tuple(tokens.shape)
    n = association.shape[0]
    if len(shape) != 4 or shape[0] != n or shape[2:] != grid or shape[1] == 0:
        refuse("sp_diffuse", f"tokens [N,C,h,w] with N={n}, (h,w)={grid}", shape)
    if lead is not None:
        check_floating("sp_diffuse", association=association, lead=lead)
        check_features("sp_diffuse", lead, association, channels=1, name="lead")
    if lead_channels < 1:
        refuse("sp_diffuse", "lead_channels at least 1", lead_channels)
    tokens = tokens.to(reference.wide_dtype(association.dtype))
    return torch.ops.disco_fast.sp_diffuse(tokens, association, cell_size, lead, lead_channels)


def superpixel_size(association: Tensor, cell_size: int) -> Tensor:
    """Area won by each superpixel, [N,1,h,w]; see `reference.superpixel_size`. No gradient.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """
    check_floating("superpixel_size", association=association)
    check_grid("superpixel_size", association, cell_size)
    return torch.ops.disco_fast.superpixel_size(association.detach(), cell_size)


def _pooled_fake(features: Tensor, association: Tensor, cell_size: int) -> tuple[Tensor, Tensor]:
    n, channels, height, width = features.shape
    grid, dtype = (height // cell_size, width // cell_size), reference.wide_dtype(features.dtype)
    pooled = features.new_empty(n, channels, *grid, dtype=dtype)
    return pooled, pooled.new_empty(n, 1, *grid)


torch.library.register_fake("disco_fast::sp_pool", _pooled_fake)
torch.library.register_fake("disco_fast::sp_aggregate", _pooled_fake)


@torch.library.register_fake("disco_fast::sp_pool_with_size")
def _(features: Tensor, association: Tensor, cell_size: int) -> tuple[Tensor, Tensor, Tensor]:
    pooled, weight = _pooled_fake(features, association, cell_size)
    return pooled, weight, torch.empty_like(weight)


@torch.library.register_fake("disco_fast::sp_diffuse")
def _(
    tokens: Tensor,
    association: Tensor,
    cell_size: int,
    lead: Tensor | None = None,
    lead_channels: int = 1,
) -> Tensor:
    channels = tokens.shape[1] + (0 if lead is None else lead_channels)
    return torch.empty(
        (tokens.shape[0], channels, *association.shape[-2:]),
        dtype=association.dtype,
        device=tokens.device,
        memory_format=reference.layout_of(association),
    )


@torch.library.register_fake("disco_fast::sp_correlate")
def _(features: Tensor, tokens: Tensor, offset: Tensor | None, cell_size: int) -> Tensor:
    return features.new_empty(features.shape[0], 9, *features.shape[-2:])


@torch.library.register_fake("disco_fast::superpixel_size")
def _(association: Tensor, cell_size: int) -> Tensor:
    n, _, height, width = association.shape
    grid, dtype = (height // cell_size, width // cell_size), reference.wide_dtype(association.dtype)
    return association.new_empty(n, 1, *grid, dtype=dtype)


def _keep_pool(ctx, inputs, output) -> None:
    features, association, ctx.cell_size = inputs
    pooled, weight, *size = output
    ctx.mark_non_differentiable(*size)
    ctx.save_for_backward(features, association, pooled, weight)


@once_differentiable
def _pool_backward(ctx, grad_pooled, grad_weight, grad_size=None):
    """With q = 1/(w + eps)/S^2: dF = diffuse(g q), dA = <F, g q> + dw / S^2 - <g, pooled> q."""
    features, association, pooled, weight = ctx.saved_tensors
    size = ctx.cell_size
    q = 1 / ((weight + reference.EPSILON) * size**2)
    scaled = grad_pooled * q
    grad_features = grad_association = None
    if ctx.needs_input_grad[0]:
        grad_features = torch.ops.disco_fast.sp_diffuse(scaled, association, size)
        grad_features = grad_features.to(features.dtype)
    if ctx.needs_input_grad[1]:
        offset = grad_weight / size**2 - (grad_pooled * pooled).sum(1, keepdim=True) * q
        wide = features.to(association.dtype)
        grad_association = torch.ops.disco_fast.sp_correlate(wide, scaled, offset, size)
    return grad_features, grad_association, None


def _keep_diffuse(ctx, inputs, output) -> None:
    tokens, association, ctx.cell_size, lead, lead_channels = inputs
    ctx.lead_channels = 0 if lead is None else lead_channels
    ctx.save_for_backward(tokens, association)


@once_differentiable
def _diffuse_backward(ctx, grad):
    """SP-Diffusion is linear in both: dT = S^2 aggregate(g), dA = <g, T>. A lead passes through."""
    tokens, association = ctx.saved_tensors
    size = ctx.cell_size
    grad_tokens = grad_association = grad_lead = None
    if ctx.lead_channels:
        grad_lead, grad = grad[:, :1], grad[:, ctx.lead_channels :]
    if ctx.needs_input_grad[0]:
        grad_tokens = torch.ops.disco_fast.sp_aggregate(grad, association, size)[0] * size**2
    if ctx.needs_input_grad[1]:
        grad_association = torch.ops.disco_fast.sp_correlate(grad, tokens, None, size)
    return grad_tokens, grad_association, None, grad_lead, None


for _pool in ("sp_pool", "sp_pool_with_size"):
    torch.library.register_autograd(
        f"disco_fast::{_pool}", _pool_backward, setup_context=_keep_pool
    )
torch.library.register_autograd(
    "disco_fast::sp_diffuse", _diffuse_backward, setup_context=_keep_diffuse
)
