"""What a careful user would write in plain PyTorch instead of a kernel.

Same arguments and results as in `disco_fast.reference`, fewer promises: an empty cluster keeps its
center, and a batch of K-Means stops only when every image of it has converged.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from disco_fast.reference import EPSILON


def _by_cell(pixels: Tensor, cell_size: int) -> Tensor:
    """[N,C,H,W] to [N,C,h,S,w,S], a view."""
    return pixels.unflatten(3, (-1, cell_size)).unflatten(2, (-1, cell_size))


def _gather(partial: Tensor, cell_size: int) -> Tensor:
    """What every cell has for its nine neighbours, [N,C,9,h,w], summed per neighbour, [N,C,h,w]."""
    grid = partial.shape[-2:]
    return F.fold(partial.flatten(1, 2).flatten(2), grid, 3, padding=1) / cell_size**2


def sp_pool(features: Tensor, association: Tensor, cell_size: int) -> tuple[Tensor, Tensor]:
    stacked = torch.cat([features, torch.ones_like(association[:, :1])], dim=1)
    cells, weights = _by_cell(stacked, cell_size), _by_cell(association, cell_size)
    sums = _gather(torch.einsum("ncyaxb,nkyaxb->nckyx", cells, weights), cell_size)
    return sums[:, :-1] / (sums[:, -1:] + EPSILON), sums[:, -1:]


def sp_diffuse(tokens: Tensor, association: Tensor, cell_size: int) -> Tensor:
    n, channels, rows, columns = tokens.shape
    candidates = F.unfold(tokens, 3, padding=1).view(n, channels, 9, rows, columns)
    weights = _by_cell(association, cell_size)
    pixels = torch.einsum("nckyx,nkyaxb->ncyaxb", candidates, weights)
    return pixels.reshape(n, channels, *association.shape[-2:])


def superpixel_size(association: Tensor, cell_size: int) -> Tensor:
    winners = (association == association.amax(dim=1, keepdim=True)).to(association.dtype)
    return _gather(_by_cell(winners, cell_size).sum(dim=(3, 5))[:, None], cell_size)


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
        updated = torch.where(count > 0, torch.bmm(member.mT, points) / count, centers)
        shift = (updated - centers).norm(dim=-1).sum(-1)
        centers = updated
        if bool((shift**2 < tol).all()):
            break
    return labels, centers
