"""The official program's functions, by name and signature, on the fused ops.

    import disco_fast.drop_in
    disco_fast.drop_in.patch(basic, clusterkit)  # the official modules models/basic.py and
    models/clusterkit.py

and the official scripts run on these, unchanged.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from . import ops


def _cell_size(height: int, width: int) -> int:
    if height != width:
        raise ValueError(f"cells must be square, got {height} x {width} pixels")
    return height


def poolfeat(
    input: Tensor, prob: Tensor, sp_h: int = 2, sp_w: int = 2, need_entry_prob: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """SP-Pooling.

    Args:
        input: features [N,C,H,W].
        prob: association [N,9,H,W].
        sp_h: cell size; `sp_w` must be the same.
        sp_w: cell size.
        need_entry_prob: return the pooled weight [N,1,h,w] too.

    Returns:
        pooled [N,C,h,w], or (pooled, weight).
    """
    pooled, weight = ops.sp_pool(input, prob, _cell_size(sp_h, sp_w))
    return (pooled, weight) if need_entry_prob else pooled


def upfeat(input: Tensor, prob: Tensor, up_h: int = 2, up_w: int = 2) -> Tensor:
    """SP-Diffusion of tokens `input` [N,C,h,w] by association `prob` [N,9,H,W] to [N,C,H,W]."""
    return ops.sp_diffuse(input, prob, _cell_size(up_h, up_w))


def get_spixel_size(
    affinity_map: Tensor, sp_h: int = 2, sp_w: int = 2, elem_thres: int = 25
) -> Tensor:
    """Area of each superpixel, in cells, [N,1,h,w]. `elem_thres` has no effect, as officially."""
    return ops.superpixel_size(affinity_map, _cell_size(sp_h, sp_w))


def batch_kmeans_pytorch(
    data_vecs: Tensor,
    n_clusters: int = 7,
    metric: str = "euclidean",
    use_sklearn_kmeans: bool = False,
) -> Tensor:
    """K-Means of each image's tokens.

    The first centers come from NumPy's global generator, image by image, exactly as the official
    function draws them; an empty cluster is refilled as `disco_fast.ops.kmeans` does, not at
    random.

    Args:
        data_vecs: [N,C,h,w].
        n_clusters: K.
        metric: "euclidean" only.
        use_sklearn_kmeans: False only (the official import of it is commented out).

    Returns:
        [N,K,h,w], one-hot membership in the dtype float32.
    """
    if metric != "euclidean":
        raise ValueError(f"metric: expected 'euclidean', got {metric!r}")
    if use_sklearn_kmeans:
        raise ValueError("use_sklearn_kmeans: expected False, got True")
    n, _, height, width = data_vecs.shape
    points = data_vecs.flatten(2).transpose(1, 2).float()
    count = height * width
    init = np.stack([np.random.choice(count, n_clusters, replace=False) for _ in range(n)])
    start = torch.from_numpy(init).to(data_vecs.device, torch.int64)
    labels, _, _ = ops.kmeans(points, start)
    member = F.one_hot(labels, n_clusters).transpose(1, 2).float()
    return member.unflatten(2, (height, width))


def patch(basic: ModuleType, clusterkit: ModuleType) -> None:
    """Put the fused functions into the official modules `basic` and `clusterkit`."""
    basic.poolfeat = poolfeat  # type: ignore[attr-defined]
    basic.upfeat = upfeat  # type: ignore[attr-defined]
    basic.get_spixel_size = get_spixel_size  # type: ignore[attr-defined]
    clusterkit.batch_kmeans_pytorch = batch_kmeans_pytorch  # type: ignore[attr-defined]
