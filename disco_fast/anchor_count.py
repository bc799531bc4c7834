"""How many anchors a picture needs: `n_anchors="auto"`.

The paper leaves that open (section 6) and takes 8. Here it is the fewest whose K-Means clusters
explain most of the variance of the color tokens, that is, of what the network holds to be
differently coloured: few where all is sky and sea, many at a market.
"""

from __future__ import annotations

from torch import Tensor

from . import ops

FEWEST, MOST = 3, 16
EXPLAINED = 0.85  # share of the variance; photographs then have 8 or 9 on average, near the paper's


def count_anchors(color_tokens: Tensor, seed: int) -> int:
    """The fewest anchors, from 3 to 16, whose clusters explain 85 % of the tokens' variance.

    Args:
        color_tokens: [1,P,64], of one picture.
        seed: of the clusters' first centers.

    Returns:
        K; 16 where no fewer explain as much; P where that is less.
    """
    deviations = color_tokens - color_tokens.mean(dim=1, keepdim=True)
    allowed = (1 - EXPLAINED) * float(deviations.square().sum())
    most = min(MOST, color_tokens.shape[1])
    for count in range(min(FEWEST, most), most):
        if unexplained(color_tokens, count, seed) <= allowed:
            return count
    return most


def unexplained(color_tokens: Tensor, count: int, seed: int) -> float:
    """Sum of squared distances of tokens [1,P,64] from the centers of `count` clusters."""
    first = ops.kmeans_init(color_tokens, count, seed)
    labels, centers, _ = ops.kmeans(color_tokens, first)
    own = centers.gather(1, labels[..., None].expand_as(color_tokens))
    return float((color_tokens - own).square().sum())
