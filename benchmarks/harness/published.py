"""The ops as the published program computes them: the slow opponent, not the specification.

Nine passes over the features to pool them, nine spread maps held at once, colors chosen for every
superpixel and their bins found again. The results are those of `disco_fast.reference`, from which
the rest comes, gradients included: K-Means too, which is a Python loop per image and cluster there
as it was published.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from disco_fast.reference import (
    EPSILON,
    TOP_BINS,
    diverse_bins,
    encoder,
    kmeans,
    kmeans_init,
    lab_to_rgb,
    layout_of,
    mean_bins,
    rgb_to_l,
    select_anchors,
    wide_dtype,
)

__all__ = [
    "anchor_bins",
    "choose_anchors",
    "encoder",
    "kmeans",
    "kmeans_init",
    "lab_to_rgb",
    "rgb_to_l",
    "select_anchors",
    "sp_aggregate",
    "sp_diffuse",
    "sp_pool",
    "sp_pool_with_size",
    "superpixel_size",
]

NEIGHBORS = [(slot, slot // 3 - 1, slot % 3 - 1) for slot in range(9)]  # with row, column offsets

# ---- SP-Pooling and SP-Diffusion -----------------------------------------------------------------


def sp_aggregate(features: Tensor, association: Tensor, cell_size: int) -> tuple[Tensor, Tensor]:
    """A product, an average pooling and a shift for each of the nine neighbors."""
    n, _, height, width = features.shape
    rows, columns = height // cell_size, width // cell_size
    association = association.to(wide_dtype(association.dtype))
    features = features.to(association.dtype)
    stacked = torch.cat([features, features.new_ones(n, 1, height, width)], dim=1)
    maps = []
    for slot, dy, dx in NEIGHBORS:
        cells = F.avg_pool2d(stacked * association[:, slot : slot + 1], cell_size)
        padded = F.pad(cells, (1, 1, 1, 1))
        maps.append(padded[:, :, 1 - dy : 1 - dy + rows, 1 - dx : 1 - dx + columns])
    total = sum(maps[1:], maps[0])
    return total[:, :-1].contiguous(), total[:, -1:].contiguous()


def sp_pool(features: Tensor, association: Tensor, cell_size: int) -> tuple[Tensor, Tensor]:
    """`poolfeat` of the official code."""
    sums, weight = sp_aggregate(features, association, cell_size)
    return sums / (weight + EPSILON), weight


def superpixel_size(association: Tensor, cell_size: int) -> Tensor:
    """`get_spixel_size`: every pixel's winners written out, then pooled."""
    association = association.to(wide_dtype(association.dtype))
    best = association.max(dim=1, keepdim=True)[0]
    one, zero = torch.ones_like(association), torch.zeros_like(association)
    winners = torch.where(association == best, one, zero)
    return sp_aggregate(torch.ones_like(winners[:, :1]), winners, cell_size)[1]


def sp_pool_with_size(
    features: Tensor, association: Tensor, cell_size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Both, one after the other."""
    size = superpixel_size(association, cell_size)
    return *sp_pool(features, association, cell_size), size


def _spread(tokens: Tensor, cell_size: int) -> Iterator[tuple[int, slice, slice, Tensor]]:
    """For each neighbor: the pixels that have it (rows, columns), and its token at each of them."""
    rows, columns = tokens.shape[-2:]
    packed = tokens.contiguous()
    for slot, dy, dx in NEIGHBORS:
        (own_y, their_y), (own_x, their_x) = _overlap(dy, rows), _overlap(dx, columns)
        theirs = tokens if slot == 4 else packed[:, :, their_y, their_x]
        if theirs.numel():
            spread = F.interpolate(theirs, scale_factor=float(cell_size), mode="nearest")
            yield slot, _pixels(own_y, cell_size), _pixels(own_x, cell_size), spread


def _overlap(offset: int, size: int) -> tuple[slice, slice]:
    """Along one axis: the cells whose neighbor at `offset` exists, and those neighbors."""
    before, behind = max(0, -offset), max(0, offset)
    return slice(before, size - behind), slice(behind, size - before)


def _pixels(cells: slice, cell_size: int) -> slice:
    return slice(cells.start * cell_size, cells.stop * cell_size)


def sp_diffuse(
    tokens: Tensor,
    association: Tensor,
    cell_size: int,
    lead: Tensor | None = None,
    lead_channels: int = 1,
) -> Tensor:
    """`upfeat`: nine maps of full size held at once; its time is mostly their memory's."""
    n, channels = tokens.shape[:2]
    layout = layout_of(association)
    pixels = torch.empty(
        (n, channels, *association.shape[-2:]),
        dtype=tokens.dtype,
        device=tokens.device,
        memory_format=layout,
    ).zero_()
    for slot, y, x, spread in tuple(_spread(tokens, cell_size)):
        pixels[:, :, y, x] += spread * association[:, slot : slot + 1, y, x]
    pixels = pixels.to(association.dtype)
    if lead is None:
        return pixels
    lead = F.pad(lead, (0, 0, 0, 0, 0, lead_channels - 1))
    return torch.cat([lead, pixels], dim=1).contiguous(memory_format=layout)


# ---- Anchors -------------------------------------------------------------------------------------


def _encode_colors(ab: Tensor, bin_centers: Tensor) -> Tensor:
    """Bins of colors [M,2] as int64 [M], by way of the soft encoding over the five nearest."""
    distance, nearest = torch.cdist(bin_centers, ab).sort(dim=0)
    share = (-(distance[:5] ** 2) / (2 * 5**2)).exp()
    soft = ab.new_zeros(len(bin_centers), len(ab))
    soft.scatter_(0, nearest[:5], share / share.sum(dim=0))
    return soft.max(dim=0)[1]


def anchor_bins(
    logits: Tensor,
    anchor_index: Tensor,
    bin_centers: Tensor,
    variants: int,
    offset: Tensor | None = None,
    temperature: float = 0.0,
) -> Tensor:
    """Colors for every superpixel, and the bins of all of them; then those of the anchors."""
    scores = logits if offset is None else logits + offset
    probability = torch.softmax(scores.transpose(1, 2), dim=1)
    ranked = probability.sort(dim=1, descending=True, stable=True)[1][:, :TOP_BINS]
    first = mean_bins(scores, bin_centers, temperature) if temperature > 0 else ranked[:, 0]
    colors = bin_centers[diverse_bins(first, ranked, bin_centers, variants)]
    bins = _encode_colors(colors.flatten(0, 2), bin_centers).view(colors.shape[:-1])
    return bins.gather(2, anchor_index[:, None].expand(-1, variants, -1))


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
    """`_sample_anchor_colors`."""
    index = select_anchors(labels, sizes, n_clusters)
    return index, anchor_bins(logits, index, bin_centers, variants, offset, temperature)
