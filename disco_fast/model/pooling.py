"""SP-Pooling of features that may be coarser than the picture."""

from __future__ import annotations

from types import ModuleType

import torch.nn.functional as F
from torch import Tensor

from .. import ops


def pool(
    features: Tensor, association: Tensor, cell_size: int, ops: ModuleType = ops
) -> tuple[Tensor, Tensor, Tensor]:
    """SP-Pooling (equation 1), and the superpixels' sizes.

    Args:
        features: [N,C,H,W], or a fraction of the side, see `pool_coarse`.
        association: [N,9,H,W].
        cell_size: S.
        ops: where the ops come from.

    Returns:
        pooled [N,C,h,w], association_sum [N,1,h,w] and size [N,1,h,w], in cells.
    """
    if features.shape[2] == association.shape[2]:
        return ops.sp_pool_with_size(features, association, cell_size)
    pooled, association_sum = pool_coarse(features, association, cell_size, ops)
    return pooled, association_sum, ops.superpixel_size(association, cell_size)


def pool_coarse(
    features: Tensor, association: Tensor, cell_size: int, ops: ModuleType = ops
) -> tuple[Tensor, Tensor]:
    """SP-Pooling of features of a fraction of the side, by the average of the association there.

    Args:
        features: [N,C,H/f,W/f].
        association: [N,9,H,W].
        cell_size: S, a multiple of f.
        ops: where the op comes from.

    Returns:
        pooled [N,C,h,w] and association_sum [N,1,h,w].
    """
    fraction = association.shape[2] // features.shape[2]
    return ops.sp_pool(features, F.avg_pool2d(association, fraction), cell_size // fraction)
