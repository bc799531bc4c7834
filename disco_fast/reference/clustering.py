"""K-Means over the tokens of each image, and its first centers."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


def _farthest_first(distance: Tensor) -> Iterator[Tensor]:
    """Indices by falling distance; a generator, so that nothing is sorted unless asked for."""
    yield from distance.sort(descending=True, stable=True)[1]


def _kmeans_image(
    points: Tensor, init: Tensor, max_iter: int, tol: float
) -> tuple[Tensor, Tensor, int]:
    centers = points[init]
    iteration = 0
    while True:
        iteration += 1
        distance = ((points[:, None] - centers[None]) ** 2).sum(dim=-1)
        labels = distance.argmin(dim=1)
        previous = centers.clone()
        spare = _farthest_first(distance.amin(dim=1))
        for cluster in range(len(centers)):
            members = points[labels == cluster]
            centers[cluster] = members.mean(dim=0) if len(members) else points[next(spare)]
        shift = (centers - previous).square().sum(dim=1).sqrt().sum()
        if shift**2 < tol or iteration >= max_iter:
            return labels, centers, iteration


def kmeans(
    points: Tensor, init: Tensor, max_iter: int = 20, tol: float = 1e-4
) -> tuple[Tensor, Tensor, Tensor]:
    """Lloyd's algorithm on each image by itself.

    Squared Euclidean distance; the first of several nearest centers wins. Stops when (sum over
    centers of the Euclidean shift)^2 < tol, after at least one update, or after `max_iter` updates.
    An empty cluster moves to the point that lies farthest from its own center (lowest index on
    ties); of several empty clusters in one update the first takes the farthest point, the next the
    second farthest. (The published program takes a random point.)

    Args:
        points: [N,P,D], floating.
        init: [N,K] int64, indices of the points that are the first centers.
        max_iter: at least 1.
        tol: bound on the squared total shift.

    Returns:
        (labels [N,P] int64, from the centers before the last update; centers [N,K,D]; iterations
        [N] int64).
    """
    if bool((init < 0).any()):
        raise IndexError(f"kmeans: expected init within 0..{points.shape[1] - 1}, got a negative")
    images = [_kmeans_image(p, i, max_iter, tol) for p, i in zip(points, init, strict=True)]
    labels, centers, iterations = zip(*images, strict=True)
    return (
        torch.stack(labels),
        torch.stack(centers),
        torch.tensor(iterations, dtype=torch.int64, device=points.device),
    )


_MASK = 0xFFFFFFFF


def _mix(x: Tensor) -> Tensor:
    """A bijective 32-bit integer hash (two rounds of xor-shift and multiply), held in int64."""
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _MASK
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _MASK
    return x ^ (x >> 16)


def _random_words(seed: int, draw: int, count: int, device: torch.device) -> Tensor:
    """Counter-based generator: word i of a draw is a hash of (seed, draw, i), in 0..2^32-1."""

    def word(value: int) -> Tensor:
        return torch.tensor(value & _MASK, dtype=torch.int64, device=device)

    key = _mix(word(seed) ^ _mix(word((seed >> 32) + 0x9E3779B9)))
    key = _mix(key ^ word(draw + 0x85EBCA6B))
    return _mix(key ^ torch.arange(count, dtype=torch.int64, device=device))


def kmeans_init(points: Tensor, n_clusters: int, seed: int, method: str) -> Tensor:
    """First centers for K-Means: the same seed gives the same draws for every image.

    `"random"`: K different points with equal chances (the K smallest random words). `"k-means++"`:
    the first likewise, each next one with a chance proportional to its squared distance d^2 to the
    nearest center so far, drawn as an exponential race: argmin over points of -log(u) / d^2 with
    one uniform u per point. A race needs no running sum, so it gives the same winner in any order
    of evaluation.

    Args:
        points: [N,P,D], floating.
        n_clusters: K, 1..P.
        seed: any int64.
        method: "random" or "k-means++".

    Returns:
        [N,K] int64, different indices within an image.
    """
    n, count = points.shape[:2]
    words = _random_words(seed, 0, count, points.device)
    if method == "random":
        chosen = words.sort(stable=True)[1][:n_clusters]
        return chosen.expand(n, -1).clone()
    picks = [words.argmin().expand(n)]
    nearest = points.new_full((n, count), float("inf"), dtype=torch.float64)
    taken = torch.zeros(n, count, dtype=torch.bool, device=points.device)
    for draw in range(1, n_clusters):
        latest = picks[-1]
        taken[torch.arange(n, device=points.device), latest] = True
        center = points.gather(1, latest[:, None, None].expand(-1, 1, points.shape[2]))
        nearest = torch.minimum(nearest, (points - center).square().sum(-1).double())
        uniform = (_random_words(seed, draw, count, points.device).double() + 1) / 2.0**32
        race = -uniform.log() / nearest.clamp(
            min=1e-30
        )  # finite even where d = 0, so never an index twice
        picks.append(race.masked_fill(taken, float("inf")).argmin(dim=1))
    return torch.stack(picks, dim=1)
