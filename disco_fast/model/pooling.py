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

    Features of a fraction 1/f of the side are pooled by the average of the association there.

    Args:
        features: [N,C,H/f,W/f].
        association: [N,9,H,W].
        cell_size: S, a multiple of f.
        ops: where the ops come from.

    Returns:
        pooled [N,C,h,w], association_sum [N,1,h,w] and size [N,1,h,w], in cells.
    """
    fraction = association.shape[2] // features.shape[2]
    if fraction == 1:
        return ops.sp_pool_with_size(features, association, cell_size)
    coarse = F.avg_pool2d(association, fraction)
    pooled, association_sum = ops.sp_pool(features, coarse, cell_size // fraction)
    return pooled, association_sum, ops.superpixel_size(association, cell_size)
