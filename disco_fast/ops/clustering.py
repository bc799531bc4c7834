"""K-Means over the tokens of each image, and its first centers."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import reference
from .checks import check_device, check_floating, refuse
from .schemas import define

SEEDINGS = ("k-means++", "random")

define(
    reference.kmeans,
    "(Tensor points, Tensor init, int max_iter, float tol) -> (Tensor, Tensor, Tensor)",
)
define(
    reference.kmeans_init,
    "(Tensor points, int n_clusters, int seed, str method) -> Tensor",
)


def _check_points(op: str, points: Tensor) -> None:
    check_floating(op, points=points)
    if points.dtype not in (torch.float32, torch.float64):
        refuse(op, "points in fp32 or fp64", points.dtype)
    shape = tuple(points.shape)
    if len(shape) != 3 or min(shape) == 0:
        refuse(op, "points [N,P,D], none of them 0", shape)


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
        refuse("kmeans", "init in int64", init.dtype)
    n, count = points.shape[:2]
    fits = init.dim() == 2 and init.shape[0] == n and 1 <= init.shape[1] <= count
    if not fits:
        refuse("kmeans", f"init [N,K] with N={n}, 1 <= K <= {count}", tuple(init.shape))
    check_device("kmeans", points=points, init=init)
    if max_iter < 1:
        refuse("kmeans", "max_iter of at least 1", max_iter)
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
        refuse("kmeans_init", f"n_clusters in 1..{count}", n_clusters)
    if method not in SEEDINGS:
        refuse("kmeans_init", f"method one of {SEEDINGS}", repr(method))
    return torch.ops.disco_fast.kmeans_init(points.detach(), n_clusters, seed, method)


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
