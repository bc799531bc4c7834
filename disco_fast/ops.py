"""The ops, `torch.ops.disco_fast.*`, behind typed wrappers that check every argument first.

Each schema stands here, once. The specification (`reference.py`) is registered for every device; a
native half that is loaded takes its device over. So an installation without any compiler has the
same ops, and torch.compile, torch.export and autograd see one opaque node either way. (The schemas
stand in Python and not in C++ because that installation has no C++.)
"""

from __future__ import annotations

import math
from typing import NoReturn

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.flop_counter import register_flop_formula

from . import _library, reference
from .reference import (
    ENCODER_DIM,
    ENCODER_LAYER,
    ENCODER_PARAMETERS,
    EPSILON,
    MAX_VARIANTS,
    layout_of,
    wide_dtype,
)

SEEDINGS = ("k-means++", "random")

_SCHEMAS = {
    "sp_pool": "(Tensor features, Tensor association, int cell_size) -> (Tensor, Tensor)",
    "sp_pool_with_size": "(Tensor features, Tensor association, int cell_size)"
    " -> (Tensor, Tensor, Tensor)",
    "sp_aggregate": "(Tensor features, Tensor association, int cell_size) -> (Tensor, Tensor)",
    "sp_diffuse": "(Tensor tokens, Tensor association, int cell_size, Tensor? lead=None) -> Tensor",
    "sp_correlate": "(Tensor features, Tensor tokens, Tensor? offset, int cell_size) -> Tensor",
    "superpixel_size": "(Tensor association, int cell_size) -> Tensor",
    "kmeans": "(Tensor points, Tensor init, int max_iter, float tol) -> (Tensor, Tensor, Tensor)",
    "kmeans_init": "(Tensor points, int n_clusters, int seed, str method) -> Tensor",
    "select_anchors": "(Tensor labels, Tensor sizes, int n_clusters) -> Tensor",
    "anchor_bins": "(Tensor logits, Tensor anchor_index, Tensor bin_centers, int variants,"
    " Tensor? offset=None, float temperature=0.0) -> Tensor",
    "choose_anchors": "(Tensor labels, Tensor sizes, Tensor logits, Tensor bin_centers,"
    " int n_clusters, int variants, Tensor? offset=None, float temperature=0.0)"
    " -> (Tensor, Tensor)",
    "encoder": "(Tensor tokens, Tensor position, Tensor weights) -> Tensor",
    "bias_act": "(Tensor x, Tensor? bias, Tensor? residual, float slope, Tensor? scale=None,"
    " Tensor? shift=None) -> Tensor",
    "rgb_to_l": "(Tensor image) -> Tensor",
    "lab_to_rgb": "(Tensor lightness, Tensor ab, bool to_uint8) -> Tensor",
}

for _name, _schema in _SCHEMAS.items():
    torch.library.define(f"disco_fast::{_name}", _schema)
    torch.library.impl(
        f"disco_fast::{_name}", "CompositeExplicitAutograd", getattr(reference, _name)
    )
torch.library.define("disco_fast::_instruction_set", "() -> str")
_library.halves()


def _refuse(op: str, expected: str, got: object) -> NoReturn:
    raise ValueError(f"{op}: expected {expected}, got {got}")


def _check_floating(op: str, **tensors: Tensor) -> None:
    """All are floating tensors on one device."""
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{op}: {name} must be a tensor, got {type(tensor).__name__}")
        if not tensor.is_floating_point():
            _refuse(op, f"{name} floating", tensor.dtype)
    _check_device(op, **tensors)


def _check_device(op: str, **tensors: Tensor) -> None:
    """All are on one device."""
    first_name, first = next(iter(tensors.items()))
    for name, tensor in tensors.items():
        if tensor.device != first.device:
            _refuse(op, f"{name} on {first.device} like {first_name}", tensor.device)


def _check_grid(op: str, association: Tensor, cell_size: int) -> tuple[int, int]:
    """The association map fits the grid; returns the grid's rows and columns."""
    shape = tuple(association.shape)
    if len(shape) != 4 or shape[1] != 9:
        _refuse(op, "association [N,9,H,W]", shape)
    if cell_size < 1:
        _refuse(op, "cell_size of at least 1", cell_size)
    if min(shape) == 0 or shape[2] % cell_size or shape[3] % cell_size:
        _refuse(op, f"association with H and W positive multiples of cell_size={cell_size}", shape)
    return shape[2] // cell_size, shape[3] // cell_size


def _check_features(
    op: str,
    features: Tensor,
    association: Tensor,
    channels: int | None = None,
    name: str = "features",
) -> None:
    """The features have the dtype and size of the association, and as many channels as said."""
    if features.dtype != association.dtype:
        _refuse(op, f"{name} in {association.dtype} like the association", features.dtype)
    shape, other = tuple(features.shape), tuple(association.shape)
    fits = len(shape) == 4 and shape[0] == other[0] and shape[2:] == other[2:]
    if not fits or shape[1] == 0 or channels not in (None, shape[1]):
        wanted = f"{name} [N,{channels or 'C'},H,W] with N,H,W of the association {other}"
        _refuse(op, wanted, shape)


def _check_pooled(op: str, features: Tensor, association: Tensor, cell_size: int) -> None:
    _check_floating(op, features=features, association=association)
    _check_grid(op, association, cell_size)
    _check_features(op, features, association)


# ---- SP-Pooling and SP-Diffusion -----------------------------------------------------------------


def sp_pool(features: Tensor, association: Tensor, cell_size: int) -> tuple[Tensor, Tensor]:
    """SP-Pooling (equation 1); see `reference.sp_pool`. Differentiable.

    Args:
        features: [N,C,H,W], fp64, fp32, fp16 or bf16, any strides; planar and channels-last are
            read in place.
        association: [N,9,H,W], same dtype, any strides.
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
    tokens: Tensor, association: Tensor, cell_size: int, lead: Tensor | None = None
) -> Tensor:
    """SP-Diffusion (equation 2); see `reference.sp_diffuse`. Differentiable.

    Args:
        tokens: [N,C,h,w], any floating dtype (taken to fp32, or to fp64 with a fp64 association),
            any strides.
        association: [N,9,H,W], fp64, fp32, fp16 or bf16, planar or channels-last.
        cell_size: side of a cell in pixels.
        lead: [N,1,H,W] in the dtype of the association, put in front of the features, or None.

    Returns:
        features [N,C,H,W], or [N,1+C,H,W] with a lead, in the dtype and layout of the association.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """
    _check_floating("sp_diffuse", tokens=tokens, association=association)
    grid = _check_grid("sp_diffuse", association, cell_size)
    shape = tuple(tokens.shape)
    n = association.shape[0]
    if len(shape) != 4 or shape[0] != n or shape[2:] != grid or shape[1] == 0:
        _refuse("sp_diffuse", f"tokens [N,C,h,w] with N={n}, (h,w)={grid}", shape)
    if lead is not None:
        _check_floating("sp_diffuse", association=association, lead=lead)
        _check_features("sp_diffuse", lead, association, channels=1, name="lead")
    tokens = tokens.to(wide_dtype(association.dtype))
    return torch.ops.disco_fast.sp_diffuse(tokens, association, cell_size, lead)


def superpixel_size(association: Tensor, cell_size: int) -> Tensor:
    """Area won by each superpixel, [N,1,h,w]; see `reference.superpixel_size`. No gradient.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """
    _check_floating("superpixel_size", association=association)
    _check_grid("superpixel_size", association, cell_size)
    return torch.ops.disco_fast.superpixel_size(association.detach(), cell_size)


def _pooled_fake(features: Tensor, association: Tensor, cell_size: int) -> tuple[Tensor, Tensor]:
    n, channels, height, width = features.shape
    grid, dtype = (height // cell_size, width // cell_size), wide_dtype(features.dtype)
    pooled = features.new_empty(n, channels, *grid, dtype=dtype)
    return pooled, pooled.new_empty(n, 1, *grid)


torch.library.register_fake("disco_fast::sp_pool", _pooled_fake)
torch.library.register_fake("disco_fast::sp_aggregate", _pooled_fake)


@torch.library.register_fake("disco_fast::sp_pool_with_size")
def _(features: Tensor, association: Tensor, cell_size: int) -> tuple[Tensor, Tensor, Tensor]:
    pooled, weight = _pooled_fake(features, association, cell_size)
    return pooled, weight, torch.empty_like(weight)


@torch.library.register_fake("disco_fast::sp_diffuse")
def _(tokens: Tensor, association: Tensor, cell_size: int, lead: Tensor | None = None) -> Tensor:
    channels = tokens.shape[1] + (lead is not None)
    return torch.empty(
        (tokens.shape[0], channels, *association.shape[-2:]),
        dtype=association.dtype,
        device=tokens.device,
        memory_format=layout_of(association),
    )


@torch.library.register_fake("disco_fast::sp_correlate")
def _(features: Tensor, tokens: Tensor, offset: Tensor | None, cell_size: int) -> Tensor:
    return features.new_empty(features.shape[0], 9, *features.shape[-2:])


@torch.library.register_fake("disco_fast::superpixel_size")
def _(association: Tensor, cell_size: int) -> Tensor:
    n, _, height, width = association.shape
    grid, dtype = (height // cell_size, width // cell_size), wide_dtype(association.dtype)
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
    q = 1 / ((weight + EPSILON) * size**2)
    scaled = grad_pooled * q
    grad_features = grad_association = None
    if ctx.needs_input_grad[0]:
        grad_features = torch.ops.disco_fast.sp_diffuse(scaled, association, size)
    if ctx.needs_input_grad[1]:
        offset = grad_weight / size**2 - (grad_pooled * pooled).sum(1, keepdim=True) * q
        grad_association = torch.ops.disco_fast.sp_correlate(features, scaled, offset, size)
    return grad_features, grad_association, None


def _keep_diffuse(ctx, inputs, output) -> None:
    tokens, association, ctx.cell_size, lead = inputs
    ctx.leads = lead is not None
    ctx.save_for_backward(tokens, association)


@once_differentiable
def _diffuse_backward(ctx, grad):
    """SP-Diffusion is linear in both: dT = S^2 aggregate(g), dA = <g, T>. A lead passes through."""
    tokens, association = ctx.saved_tensors
    size = ctx.cell_size
    grad_tokens = grad_association = grad_lead = None
    if ctx.leads:
        grad_lead, grad = grad[:, :1], grad[:, 1:]
    if ctx.needs_input_grad[0]:
        grad_tokens = torch.ops.disco_fast.sp_aggregate(grad, association, size)[0] * size**2
    if ctx.needs_input_grad[1]:
        grad_association = torch.ops.disco_fast.sp_correlate(grad, tokens, None, size)
    return grad_tokens, grad_association, None, grad_lead


for _pool in ("sp_pool", "sp_pool_with_size"):
    torch.library.register_autograd(
        f"disco_fast::{_pool}", _pool_backward, setup_context=_keep_pool
    )
torch.library.register_autograd(
    "disco_fast::sp_diffuse", _diffuse_backward, setup_context=_keep_diffuse
)


# ---- K-Means and anchors -------------------------------------------------------------------------


def _check_points(op: str, points: Tensor) -> None:
    _check_floating(op, points=points)
    if points.dtype not in (torch.float32, torch.float64):
        _refuse(op, "points in fp32 or fp64", points.dtype)
    shape = tuple(points.shape)
    if len(shape) != 3 or min(shape) == 0:
        _refuse(op, "points [N,P,D], none of them 0", shape)


def kmeans(
    points: Tensor, init: Tensor, max_iter: int = 20, tol: float = 1e-4
) -> tuple[Tensor, Tensor, Tensor]:
    """Batched K-Means, each image by itself and bit-identical in any batch; see `reference.kmeans`.

    Args:
        points: [N,P,D], fp32 or fp64.
        init: [N,K] int64, indices into the P points, K in 1..P.
        max_iter: most updates, at least 1.
        tol: stop when (sum of the centers' shifts)^2 falls below it.

    Returns:
        (labels [N,P] int64, centers [N,K,D], iterations [N] int64).

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
        RuntimeError, IndexError: an index of `init` out of range, from the kernel that meets it.
            On a GPU, where looking would mean waiting for it, that image's labels and iterations
            are -1 instead.
    """
    _check_points("kmeans", points)
    if init.dtype != torch.int64:
        _refuse("kmeans", "init in int64", init.dtype)
    n, count = points.shape[:2]
    fits = init.dim() == 2 and init.shape[0] == n and 1 <= init.shape[1] <= count
    if not fits:
        _refuse("kmeans", f"init [N,K] with N={n}, 1 <= K <= {count}", tuple(init.shape))
    _check_device("kmeans", points=points, init=init)
    if max_iter < 1:
        _refuse("kmeans", "max_iter of at least 1", max_iter)
    return torch.ops.disco_fast.kmeans(points.detach(), init, max_iter, tol)


def kmeans_init(
    points: Tensor, n_clusters: int, seed: int = 0, method: str = "k-means++"
) -> Tensor:
    """First centers, drawn from `seed` alone; see `reference.kmeans_init`.

    Args:
        points: [N,P,D], fp32 or fp64.
        n_clusters: K, 1..P.
        seed: any int64; every image of a batch gets the same draws.
        method: "k-means++" or "random" (without replacement, as the published program).

    Returns:
        [N,K] int64.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """
    _check_points("kmeans_init", points)
    count = points.shape[1]
    if not 1 <= n_clusters <= count:
        _refuse("kmeans_init", f"n_clusters in 1..{count}", n_clusters)
    if method not in SEEDINGS:
        _refuse("kmeans_init", f"method one of {SEEDINGS}", repr(method))
    return torch.ops.disco_fast.kmeans_init(points.detach(), n_clusters, seed, method)


def select_anchors(labels: Tensor, sizes: Tensor, n_clusters: int) -> Tensor:
    """The largest superpixel of each cluster, [N,K]; see `reference.select_anchors`.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """
    _check_members("select_anchors", labels, sizes, n_clusters)
    return torch.ops.disco_fast.select_anchors(labels, sizes.detach(), n_clusters)


def _check_members(op: str, labels: Tensor, sizes: Tensor, n_clusters: int) -> None:
    _check_floating(op, sizes=sizes)
    if labels.dtype != torch.int64:
        _refuse(op, "labels in int64", labels.dtype)
    shapes = tuple(labels.shape), tuple(sizes.shape)
    if labels.dim() != 2 or shapes[0] != shapes[1] or labels.numel() == 0:
        _refuse(op, "labels and sizes [N,P] alike", shapes)
    _check_device(op, labels=labels, sizes=sizes)
    if n_clusters < 1:
        _refuse(op, "n_clusters of at least 1", n_clusters)


def _check_logits(
    op: str,
    logits: Tensor,
    bin_centers: Tensor,
    variants: int,
    offset: Tensor | None,
    temperature: float,
) -> None:
    _check_floating(op, logits=logits, bin_centers=bin_centers)
    shape, centers = tuple(logits.shape), tuple(bin_centers.shape)
    if len(shape) != 3 or min(shape) == 0:
        _refuse(op, "logits [N,P,bins], none of them 0", shape)
    if logits.dtype not in (torch.float32, torch.float64):
        _refuse(op, "logits in fp32 or fp64", logits.dtype)
    if centers != (shape[2], 2) or bin_centers.dtype != torch.float32:
        _refuse(op, f"bin_centers [{shape[2]},2] in fp32", (centers, bin_centers.dtype))
    if not 1 <= variants <= MAX_VARIANTS:
        _refuse(op, f"variants in 1..{MAX_VARIANTS}", variants)
    if offset is not None:
        _check_floating(op, logits=logits, offset=offset)
        if tuple(offset.shape) != shape[2:] or offset.dtype != logits.dtype:
            wanted = f"offset [{shape[2]}] in {logits.dtype} like the logits"
            _refuse(op, wanted, (tuple(offset.shape), offset.dtype))
    if not 0 <= temperature < math.inf:
        _refuse(op, "temperature of at least 0", temperature)


def anchor_bins(
    logits: Tensor,
    anchor_index: Tensor,
    bin_centers: Tensor,
    variants: int,
    offset: Tensor | None = None,
    temperature: float = 0.0,
) -> Tensor:
    """Colour bins of the anchors; see `reference.anchor_bins`. Kernels rank only the anchors' own.

    Args:
        logits: [N,P,bins], fp32 or fp64.
        anchor_index: [N,K] int64.
        bin_centers: [bins,2] fp32, ab.
        variants: V, 1..3.
        offset: [bins] in the dtype of the logits, added to them; or None.
        temperature: of the mean colour; 0: the most probable bin, as published.

    Returns:
        [N,V,K] int64 bins.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
        RuntimeError: an index out of range, on a CPU.
    """
    _check_logits("anchor_bins", logits, bin_centers, variants, offset, temperature)
    shape = tuple(anchor_index.shape)
    if anchor_index.dtype != torch.int64 or len(shape) != 2 or shape[0] != logits.shape[0]:
        wanted = f"anchor_index [N,K] in int64 with N={logits.shape[0]}"
        _refuse("anchor_bins", wanted, (shape, anchor_index.dtype))
    _check_device("anchor_bins", logits=logits, anchor_index=anchor_index)
    return torch.ops.disco_fast.anchor_bins(
        logits.detach(), anchor_index, bin_centers, variants, offset, temperature
    )


def choose_anchors(
    labels: Tensor,
    sizes: Tensor,
    logits: Tensor,
    bin_centers: Tensor,
    n_clusters: int,
    variants: int,
    offset: Tensor | None = None,
    temperature: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Anchors and their colour bins at once, as `select_anchors` and `anchor_bins`.

    Returns:
        (anchor index [N,K], bins [N,V,K]), both int64.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """
    _check_members("choose_anchors", labels, sizes, n_clusters)
    _check_device("choose_anchors", sizes=sizes, logits=logits)
    _check_logits("choose_anchors", logits, bin_centers, variants, offset, temperature)
    if logits.shape[:2] != labels.shape or logits.dtype != sizes.dtype:
        wanted = f"logits [N,P,bins] with (N,P)={tuple(labels.shape)} in {sizes.dtype}"
        _refuse("choose_anchors", wanted, (tuple(logits.shape), logits.dtype))
    return torch.ops.disco_fast.choose_anchors(
        labels,
        sizes.detach(),
        logits.detach(),
        bin_centers,
        n_clusters,
        variants,
        offset,
        temperature,
    )


@torch.library.register_fake("disco_fast::kmeans")
def _(points: Tensor, init: Tensor, max_iter: int, tol: float) -> tuple[Tensor, Tensor, Tensor]:
    n, count, dims = points.shape
    return (
        init.new_empty(n, count),
        points.new_empty(n, init.shape[1], dims),
        init.new_empty(n),
    )


@torch.library.register_fake("disco_fast::kmeans_init")
def _(points: Tensor, n_clusters: int, seed: int, method: str) -> Tensor:
    return points.new_empty(points.shape[0], n_clusters, dtype=torch.int64)


@torch.library.register_fake("disco_fast::select_anchors")
def _(labels: Tensor, sizes: Tensor, n_clusters: int) -> Tensor:
    return labels.new_empty(labels.shape[0], n_clusters)


@torch.library.register_fake("disco_fast::anchor_bins")
def _(
    logits: Tensor,
    anchor_index: Tensor,
    bin_centers: Tensor,
    variants: int,
    offset: Tensor | None = None,
    temperature: float = 0.0,
) -> Tensor:
    return anchor_index.new_empty(anchor_index.shape[0], variants, anchor_index.shape[1])


@torch.library.register_fake("disco_fast::choose_anchors")
def _(
    labels: Tensor,
    sizes: Tensor,
    logits: Tensor,
    bin_centers: Tensor,
    n_clusters: int,
    variants: int,
    offset: Tensor | None = None,
    temperature: float = 0.0,
) -> tuple[Tensor, Tensor]:
    index = labels.new_empty(labels.shape[0], n_clusters)
    return index, labels.new_empty(labels.shape[0], variants, n_clusters)


# ---- The encoder of tokens -----------------------------------------------------------------------


def encoder(tokens: Tensor, position: Tensor, weights: Tensor) -> Tensor:
    """A transformer encoder over the superpixels of each image; see `reference.encoder`.

    All layers at once, on a GPU in one launch. An image's result is bit-identical in any batch. No
    gradient.

    Args:
        tokens: [N,P,64] fp32.
        position: [1,P,64] fp32, added to queries and keys of every layer.
        weights: [L,49984] fp32, L at least 1, from `reference.pack_encoder`.

    Returns:
        [N,P,64] fp32.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """
    _check_floating("encoder", tokens=tokens, position=position, weights=weights)
    for name, tensor in (("tokens", tokens), ("position", position), ("weights", weights)):
        if tensor.dtype != torch.float32:
            _refuse("encoder", f"{name} in fp32", tensor.dtype)
    shape = tuple(tokens.shape)
    if len(shape) != 3 or shape[2] != ENCODER_DIM or min(shape) == 0:
        _refuse("encoder", f"tokens [N,P,{ENCODER_DIM}], N and P at least 1", shape)
    if tuple(position.shape) != (1, *shape[1:]):
        _refuse("encoder", f"position [1,{shape[1]},{ENCODER_DIM}]", tuple(position.shape))
    rows = tuple(weights.shape)
    if len(rows) != 2 or rows[0] == 0 or rows[1] != ENCODER_PARAMETERS:
        _refuse("encoder", f"weights [L,{ENCODER_PARAMETERS}], L at least 1", rows)
    return torch.ops.disco_fast.encoder(tokens.detach(), position.detach(), weights.detach())


@torch.library.register_fake("disco_fast::encoder")
def _(tokens: Tensor, position: Tensor, weights: Tensor) -> Tensor:
    return tokens.new_empty(tokens.shape)


@register_flop_formula(torch.ops.disco_fast.encoder)
def _encoder_flops(
    tokens: torch.Size, position: torch.Size, weights: torch.Size, **_: object
) -> int:
    """What PyTorch's counter finds in the layers one by one: matrix products."""
    images, count, width = tokens
    products = sum(math.prod(shape) for shape in ENCODER_LAYER.values() if len(shape) == 2)
    return 2 * images * count * weights[0] * (products + 2 * count * width)


# ---- Convolutions --------------------------------------------------------------------------------


def bias_act(
    x: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    slope: float,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
) -> Tensor:
    """What follows a convolution, in one pass; see `reference.bias_act`. No gradient.

    Args:
        x: [N,C,H,W], fp64, fp32, fp16 or bf16; planar and channels-last are read in place.
        bias: [C], fp64 for fp64 and otherwise fp32, added first; or None.
        residual: like x, added before the activation; or None.
        slope: what negative values are multiplied by, finite: 0 is a ReLU, 1 no activation.
        scale: [C] like the bias, of a batch norm behind the activation; or None.
        shift: [C] like the bias, added last; or None.

    Returns:
        Shape and dtype of x, channels-last where x is, otherwise planar.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """
    rows = {"bias": bias, "scale": scale, "shift": shift}
    given = {name: row for name, row in rows.items() if row is not None}
    others = given if residual is None else {**given, "residual": residual}
    _check_floating("bias_act", x=x, **others)
    shape = tuple(x.shape)
    if len(shape) != 4 or min(shape) == 0:
        _refuse("bias_act", "x [N,C,H,W], none of them 0", shape)
    wide = wide_dtype(x.dtype)
    for name, row in given.items():
        if tuple(row.shape) != shape[1:2] or row.dtype != wide:
            _refuse("bias_act", f"{name} [{shape[1]}] in {wide}", (tuple(row.shape), row.dtype))
    if residual is not None and (residual.shape != x.shape or residual.dtype != x.dtype):
        got = tuple(residual.shape), residual.dtype
        _refuse("bias_act", f"residual {list(shape)} in {x.dtype} like x", got)
    if not math.isfinite(slope):
        _refuse("bias_act", "slope finite", slope)
    detached = {name: row.detach() for name, row in others.items()}
    return torch.ops.disco_fast.bias_act(
        x.detach(),
        detached.get("bias"),
        detached.get("residual"),
        slope,
        detached.get("scale"),
        detached.get("shift"),
    )


@torch.library.register_fake("disco_fast::bias_act")
def _(
    x: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    slope: float,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
) -> Tensor:
    return torch.empty_like(x, memory_format=layout_of(x))


# ---- Colour --------------------------------------------------------------------------------------


def rgb_to_l(image: Tensor) -> Tensor:
    """Lightness, 0-100, [N,1,H,W]; see `reference.rgb_to_l`.

    Args:
        image: [N,1 or 3,H,W], uint8 0-255, or fp32/fp64 0-1.

    Raises:
        ValueError: naming the argument that does not fit.
    """
    if image.dtype not in (torch.uint8, torch.float32, torch.float64):
        _refuse("rgb_to_l", "image in uint8, fp32 or fp64", image.dtype)
    shape = tuple(image.shape)
    if len(shape) != 4 or shape[1] not in (1, 3) or min(shape) == 0:
        _refuse("rgb_to_l", "image [N,1 or 3,H,W]", shape)
    return torch.ops.disco_fast.rgb_to_l(image)


def lab_to_rgb(lightness: Tensor, ab: Tensor, to_uint8: bool) -> Tensor:
    """Picture in sRGB from full-size lightness and chroma of any size; see `reference.lab_to_rgb`.

    Args:
        lightness: [N,1,H,W], fp32 or fp64, 0-100.
        ab: [N,2,h,w], same dtype, Lab units.
        to_uint8: uint8 0-255 instead of floating 0-1.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """
    _check_floating("lab_to_rgb", lightness=lightness, ab=ab)
    wide = lightness.dtype in (torch.float32, torch.float64) and ab.dtype == lightness.dtype
    if not wide:
        _refuse("lab_to_rgb", "lightness and ab both fp32 or both fp64", lightness.dtype)
    shapes = tuple(lightness.shape), tuple(ab.shape)
    fits = lightness.dim() == 4 and ab.dim() == 4 and shapes[0][1] == 1 and shapes[1][1] == 2
    fits = fits and shapes[0][0] == shapes[1][0] and min(*shapes[0], *shapes[1]) > 0
    if not fits:
        _refuse("lab_to_rgb", "lightness [N,1,H,W] and ab [N,2,h,w]", shapes)
    return torch.ops.disco_fast.lab_to_rgb(lightness, ab, to_uint8)


@torch.library.register_fake("disco_fast::rgb_to_l")
def _(image: Tensor) -> Tensor:
    dtype = torch.float32 if image.dtype == torch.uint8 else image.dtype
    return image.new_empty(image.shape[0], 1, *image.shape[-2:], dtype=dtype)


@torch.library.register_fake("disco_fast::lab_to_rgb")
def _(lightness: Tensor, ab: Tensor, to_uint8: bool) -> Tensor:
    dtype = torch.uint8 if to_uint8 else lightness.dtype
    return lightness.new_empty(lightness.shape[0], 3, *lightness.shape[-2:], dtype=dtype)
