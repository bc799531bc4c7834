"""Anchors: the superpixel that stands for each cluster, and its color bins."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SIZE_BONUS = 0.01  # weight of a superpixel's size against its membership in the anchor's cluster
TOP_BINS = 10  # diverse colors are taken from this many most probable bins
MAX_VARIANTS = 3  # there is no fourth unlike color
COLOR_PARTS = 1024  # mean colors are rounded to such parts of a unit of ab


def select_anchors(labels: Tensor, sizes: Tensor, n_clusters: int) -> Tensor:
    """Anchor of a cluster: its largest superpixel.

    Argmax of (in the cluster) + 0.01 x size; the first maximum wins.

    Args:
        labels: [N,P] int64 in 0..K-1.
        sizes: [N,P] from `superpixel_size`.
        n_clusters: K.

    Returns:
        [N,K] int64 indices into the P superpixels.
    """
    member = F.one_hot(labels, n_clusters).to(sizes.dtype).transpose(1, 2)
    return (member + sizes[:, None] * SIZE_BONUS).argmax(dim=-1)


def diverse_bins(first: Tensor, ranked: Tensor, bin_centers: Tensor, variants: int) -> Tensor:
    """Up to three unlike colors of an anchor: a given one, and two of its most probable bins.

    Variant 1 is the given bin; 2 the one farthest from it in ab; 3 the one with the largest summed
    distance to both. First maximum wins; distances are fp64, in which those between whole numbers
    are equal where they should be, so that a tie is no matter of rounding.

    Args:
        first: [N,K] int64, the first color of each anchor.
        ranked: [N,T,K] int64, the T most probable bins of each anchor, most probable first.
        bin_centers: [313,2] ab of the bins' centers.
        variants: V, 1..3.

    Returns:
        [N,V,K] int64 bins.
    """
    centers = bin_centers.double()
    ab = centers[ranked]
    chosen, distance = [first], torch.zeros_like(ab[..., 0])
    for _ in range(1, variants):
        last = centers[chosen[-1]][:, None]
        distance = distance + (ab - last).square().sum(dim=-1).sqrt()
        pick = distance.argmax(dim=1, keepdim=True)
        chosen.append(ranked.gather(1, pick)[:, 0])
    return torch.stack(chosen, dim=1)


def mean_bins(scores: Tensor, bin_centers: Tensor, temperature: float) -> Tensor:
    """The bin nearest to the annealed mean of a distribution (Zhang et al. 2016, section 2.3).

    The mean is taken in fp64 and rounded to 1/1024 of a unit of ab. So the distances between it and
    the bins' centers are exact, a mean in the middle between bins is so on every processor, and the
    first of those wins.

    Args:
        scores: [...,313], logarithms of probabilities that need not sum to 1.
        bin_centers: [313,2].
        temperature: more than 0; towards 0 the mean becomes the most probable bin's center.

    Returns:
        [...] int64.
    """
    centers = bin_centers.double()
    share = torch.softmax(scores.double() / temperature, dim=-1)
    mean = (share @ centers * COLOR_PARTS).round() / COLOR_PARTS
    return (mean[..., None, :] - centers).square().sum(dim=-1).argmin(dim=-1)


def anchor_bins(
    logits: Tensor,
    anchor_index: Tensor,
    bin_centers: Tensor,
    variants: int,
    offset: Tensor | None = None,
    temperature: float = 0.0,
) -> Tensor:
    """Color bins of the anchors.

    Args:
        logits: [N,P,313] of the color modeler.
        anchor_index: [N,K] int64.
        bin_centers: [313,2].
        variants: V, 1..3; the first is as `temperature` says, for the others see `diverse_bins`.
        offset: [313], added to the logits of every superpixel.
        temperature: 0, as in the paper: the most probable bin; above 0, see `mean_bins`.

    Returns:
        [N,V,K] int64 bins.
    """
    scores = logits.gather(1, anchor_index[..., None].expand(-1, -1, logits.shape[2]))
    if offset is not None:
        scores = scores + offset
    ranked = scores.sort(dim=2, descending=True, stable=True)[1][..., :TOP_BINS].transpose(1, 2)
    first = mean_bins(scores, bin_centers, temperature) if temperature > 0 else ranked[:, 0]
    return diverse_bins(first, ranked, bin_centers, variants)


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
    """`select_anchors`, and `anchor_bins` of what it selects.

    Returns:
        (anchor index [N,K], bins [N,V,K]), both int64.
    """
    index = select_anchors(labels, sizes, n_clusters)
    return index, anchor_bins(logits, index, bin_centers, variants, offset, temperature)
