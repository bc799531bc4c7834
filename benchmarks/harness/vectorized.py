"""What a careful user would write in plain PyTorch instead of a kernel.

Same arguments and results as in `disco_fast.reference`, fewer promises: an empty cluster keeps its
center, a batch of K-Means stops only when every image of it has converged, and half precision is
summed in half precision. Nothing waits for a GPU, so that a graph can hold it, except K-Means when
it checks for convergence; below a tolerance of 0 it does not. An op that is missing here has no
better form than the published one.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from disco_fast import reference
from disco_fast.model.transformer import TokenEncoder


def _by_cell(pixels: Tensor, cell_size: int) -> Tensor:
    """[N,C,H,W] to [N,C,h,S,w,S], a view."""
    return pixels.unflatten(3, (-1, cell_size)).unflatten(2, (-1, cell_size))


def _gather(partial: Tensor, cell_size: int) -> Tensor:
    """What every cell has for its nine neighbors, [N,C,9,h,w], summed per neighbor, [N,C,h,w]."""
    grid = partial.shape[-2:]
    return F.fold(partial.flatten(1, 2).flatten(2), grid, 3, padding=1) / cell_size**2


def sp_pool(features: Tensor, association: Tensor, cell_size: int) -> tuple[Tensor, Tensor]:
    stacked = torch.cat([features, torch.ones_like(association[:, :1])], dim=1)
    cells, weights = _by_cell(stacked, cell_size), _by_cell(association, cell_size)
    sums = _gather(torch.einsum("ncyaxb,nkyaxb->nckyx", cells, weights), cell_size)
    return sums[:, :-1] / (sums[:, -1:] + reference.EPSILON), sums[:, -1:]


def sp_pool_with_size(
    features: Tensor, association: Tensor, cell_size: int
) -> tuple[Tensor, Tensor, Tensor]:
    return *sp_pool(features, association, cell_size), superpixel_size(association, cell_size)


def _candidates(tokens: Tensor) -> Tensor:
    """A superpixel's nine neighbors, zero outside the grid, [N,C,9,h,w]."""
    return F.unfold(tokens, 3, padding=1).unflatten(2, tokens.shape[-2:]).unflatten(1, (-1, 9))


def sp_diffuse(
    tokens: Tensor,
    association: Tensor,
    cell_size: int,
    lead: Tensor | None = None,
    lead_channels: int = 1,
) -> Tensor:
    weights = _by_cell(association, cell_size)
    candidates = _candidates(tokens.to(association.dtype))
    pixels = torch.einsum("nckyx,nkyaxb->ncyaxb", candidates, weights)
    features = pixels.reshape(*tokens.shape[:2], *association.shape[-2:])
    if lead is None:
        return features
    return torch.cat([F.pad(lead, (0, 0, 0, 0, 0, lead_channels - 1)), features], dim=1)


def sp_correlate(features: Tensor, tokens: Tensor, offset: Tensor | None, cell_size: int) -> Tensor:
    candidates, cells = _candidates(tokens.to(features.dtype)), _by_cell(features, cell_size)
    products = torch.einsum("ncyaxb,nckyx->nkyaxb", cells, candidates)
    if offset is not None:
        products = products + _candidates(offset)[:, 0, :, :, None, :, None].to(features.dtype)
    return products.reshape(features.shape[0], 9, *features.shape[-2:])


def superpixel_size(association: Tensor, cell_size: int) -> Tensor:
    winners = (association == association.amax(dim=1, keepdim=True)).to(association.dtype)
    return _gather(_by_cell(winners, cell_size).sum(dim=(3, 5))[:, None], cell_size)


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    slope: float,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
) -> Tensor:
    value = F.conv2d(x, weight, None if bias is None else bias.to(x.dtype), padding=1)
    value = F.leaky_relu(value if residual is None else value + residual, slope)
    value = value if scale is None else value * scale[:, None, None].to(x.dtype)
    return value if shift is None else value + shift[:, None, None].to(x.dtype)


def kmeans(
    points: Tensor, init: Tensor, max_iter: int = 20, tol: float = 1e-4
) -> tuple[Tensor, Tensor]:
    clusters = init.shape[1]
    centers = points.gather(1, init[..., None].expand(-1, -1, points.shape[2]))
    for _ in range(max_iter):
        offset = centers.square().sum(-1)[:, None]
        labels = torch.baddbmm(offset, points, centers.mT, alpha=-2).argmin(-1)
        member = F.one_hot(labels, clusters).to(points.dtype)
        count = member.sum(1)[..., None]
        previous = centers
        centers = torch.where(count > 0, torch.bmm(member.mT, points) / count, centers)
        if tol >= 0 and _converged(centers - previous, tol):
            break
    return labels, centers


def _converged(moved: Tensor, tol: float) -> bool:
    return bool((moved.norm(dim=-1).sum(-1) ** 2 < tol).all())


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
    index = reference.select_anchors(labels, sizes, n_clusters)
    own = logits.gather(1, index[..., None].expand(-1, -1, logits.shape[2]))
    own = own if offset is None else own + offset
    if variants == 1 and temperature == 0:
        return index, own.argmax(-1)[:, None]
    ranked = own.topk(reference.TOP_BINS, dim=-1).indices.mT
    first = reference.mean_bins(own, bin_centers, temperature) if temperature > 0 else ranked[:, 0]
    return index, reference.diverse_bins(first, ranked, bin_centers, variants)


@functools.lru_cache(maxsize=1)
def _eager(weights: Tensor) -> TokenEncoder:
    """PyTorch's own layers with these weights, [L,49984]; kept for the calls that follow."""
    with torch.device("meta"):
        network = TokenEncoder().eval().requires_grad_(False)
    network.layers = network.layers[: len(weights)]
    for layer, row in zip(network.layers, weights, strict=True):
        parameters = {
            name: part.t().contiguous() for name, part in reference.unpack_layer(row).items()
        }
        layer.load_state_dict(parameters, assign=True)
    return network


def encoder(tokens: Tensor, position: Tensor, weights: Tensor) -> Tensor:
    return _eager(weights)(tokens, position)
