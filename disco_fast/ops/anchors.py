"""The anchors of clusters, and their color bins."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .. import reference
from .checks import check_device, check_floating, refuse
from .schemas import define

define(
    reference.select_anchors,
    "(Tensor labels, Tensor sizes, int n_clusters) -> Tensor",
)
define(
    reference.anchor_bins,
    "(Tensor logits, Tensor anchor_index, Tensor bin_centers, int variants,"
    " Tensor? offset=None, float temperature=0.0) -> Tensor",
)
define(
    reference.choose_anchors,
    "(Tensor labels, Tensor sizes, Tensor logits, Tensor bin_centers,"
    " int n_clusters, int variants, Tensor? offset=None, float temperature=0.0)"
    " -> (Tensor, Tensor)",
)


def select_anchors(labels: Tensor, sizes: Tensor, n_clusters: int) -> Tensor:
    """The largest superpixel of each cluster, [N,K]; see `reference.select_anchors`.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """
    _check_members("select_anchors", labels, sizes, n_clusters)
    return torch.ops.disco_fast.select_anchors(labels, sizes.detach(), n_clusters)


def _check_members(op: str, labels: Tensor, sizes: Tensor, n_clusters: int) -> None:
    check_floating(op, sizes=sizes)
    if labels.dtype != torch.int64:
        refuse(op, "labels in int64", labels.dtype)
    shapes = tuple(labels.shape), tuple(sizes.shape)
    if labels.dim() != 2 or shapes[0] != shapes[1] or labels.numel() == 0:
        refuse(op, "labels and sizes [N,P] alike", shapes)
    check_device(op, labels=labels, sizes=sizes)
    if n_clusters < 1:
        refuse(op, "n_clusters of at least 1", n_clusters)


def _check_logits(
    op: str,
    logits: Tensor,
    bin_centers: Tensor,
    variants: int,
    offset: Tensor | None,
    temperature: float,
) -> None:
    check_floating(op, logits=logits, bin_centers=bin_centers)
    shape, centers = tuple(logits.shape), tuple(bin_centers.shape)
    if len(shape) != 3 or min(shape) == 0:
        refuse(op, "logits [N,P,bins], none of them 0", shape)
    if logits.dtype not in (torch.float32, torch.float64):
        refuse(op, "logits in fp32 or fp64", logits.dtype)
    if centers != (shape[2], 2) or bin_centers.dtype != torch.float32:
        refuse(op, f"bin_centers [{shape[2]},2] in fp32", (centers, bin_centers.dtype))
    if not 1 <= variants <= reference.MAX_VARIANTS:
        refuse(op, f"variants in 1..{reference.MAX_VARIANTS}", variants)
    if offset is not None:
        check_floating(op, logits=logits, offset=offset)
        if tuple(offset.shape) != shape[2:] or offset.dtype != logits.dtype:
            wanted = f"offset [{shape[2]}] in {logits.dtype} like the logits"
            refuse(op, wanted, (tuple(offset.shape), offset.dtype))
    if not 0 <= temperature < math.inf:
        refuse(op, "temperature of at least 0", temperature)


def anchor_bins(
    logits: Tensor,
    anchor_index: Tensor,
    bin_centers: Tensor,
    variants: int,
    offset: Tensor | None = None,
    temperature: float = 0.0,
) -> Tensor:
    """Color bins of the anchors; see `reference.anchor_bins`. Kernels rank only the anchors' own.

    Args:
        logits: [N,P,bins], fp32 or fp64.
        anchor_index: [N,K] int64.
        bin_centers: [bins,2] fp32, ab.
        variants: V, 1..3.
        offset: [bins] in the dtype of the logits, added to them; or None.
        temperature: of the mean color; 0: the most probable bin, as published.

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
        refuse("anchor_bins", wanted, (shape, anchor_index.dtype))
    check_device("anchor_bins", logits=logits, anchor_index=anchor_index)
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
    """Anchors and their color bins at once, as `select_anchors` and `anchor_bins`.

    Returns:
        (anchor index [N,K], bins [N,V,K]), both int64.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """
    _check_members("choose_anchors", labels, sizes, n_clusters)
    check_device("choose_anchors", sizes=sizes, logits=logits)
    _check_logits("choose_anchors", logits, bin_centers, variants, offset, temperature)
    if logits.shape[:2] != labels.shape or logits.dtype != sizes.dtype:
        wanted = f"logits [N,P,bins] with (N,P)={tuple(labels.shape)} in {sizes.dtype}"
        refuse("choose_anchors", wanted, (tuple(logits.shape), logits.dtype))
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
