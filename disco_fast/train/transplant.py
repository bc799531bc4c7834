"""RefineNet from another network, so that it need not learn anew to spread colors.

What RefineNet takes are tokens, and each network has its own. They say much the same, though: a
linear map from one network's guided tokens to the other's explains most of them, and the first
convolution of RefineNet can do that map, too.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ..color import normalize_lightness
from ..evaluate.colorings import labs, read, true_bins
from ..io.photographs import Photographs
from ..model import DISCO

PHOTOGRAPHS = 300  # that the map is fitted on
_RIDGE = 1e-3  # of the tokens' variance: some directions are nearly empty


@torch.no_grad()
def transplant(
    network: DISCO,
    donor: DISCO,
    photographs: Photographs,
    count: int,
    size: int,
    anchors: tuple[int, int],
    seed: int = 0,
) -> float:
    """Give a network the donor's RefineNet, its first convolution adapted. In place.

    Both get the same anchors in their true colors.

    Args:
        network: in eval mode.
        donor: in eval mode; its RefineNet is as wide, its cells as large.
        photographs: some of the first `count` are drawn.
        count: how many there are.
        size: of the squares, a multiple of both strides.
        anchors: the fewest and the most.
        seed: of the draws.

    Returns:
        How much of the variance of the donor's tokens the map explains, at most 1.

    Raises:
        ValueError: the donor's RefineNet does not fit.
        ImageFileError: a photograph cannot be read.
    """
    if (donor.width, donor.cell_size) != (network.width, network.cell_size):
        raise ValueError(
            f"--refinenet: expected width {network.width} and cells of {network.cell_size}, got"
            f" {donor.width} and {donor.cell_size}"
        )
    draws = np.random.default_rng(seed)
    pairs = []
    for index in draws.choice(count, min(count, PHOTOGRAPHS), replace=False).tolist():
        k = int(draws.integers(anchors[0], anchors[1] + 1))
        pairs.append(_guided(network, donor, labs([read(photographs, index, size)]), k))
    own, others = (torch.cat(tokens).double() for tokens in zip(*pairs, strict=True))
    linear, explained = _fitted(own, others)
    network.enhanceNet.load_state_dict(donor.enhanceNet.state_dict())
    first = network.enhanceNet.get_submodule("inConv.inConv.0")
    assert isinstance(first, nn.Conv2d)
    _fold(first, linear)
    return explained


def _guided(network: DISCO, donor: DISCO, lab: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Guided tokens of both networks, [P,64], for a picture [1,3,H,W]."""
    gray = normalize_lightness(lab[:, :1])
    own, others = network.superpixels(gray), donor.superpixels(gray)
    anchors = network.place(own, k).index
    bins = true_bins(lab[:, 1:].contiguous(), own.association, network.cell_size).gather(1, anchors)
    guided = network.guide(own.tokens, own.position, anchors, bins)
    others_guided = donor.guide(others.tokens, others.position, anchors, bins)
    return guided[0], others_guided[0]


def _fitted(own: Tensor, others: Tensor) -> tuple[Tensor, float]:
    """The affine map [65,64] with the least squares, the constant last, and what it explains."""
    rows = torch.cat([own, own.new_ones(len(own), 1)], 1)
    ridge = _RIDGE * len(own) * own.var() * torch.eye(rows.shape[1], dtype=own.dtype)
    linear = torch.linalg.solve(rows.T @ rows + ridge, rows.T @ others)
    missed = (others - rows @ linear).square().sum()
    return linear, float(1 - missed / (others - others.mean(0)).square().sum())


def _fold(convolution: nn.Conv2d, linear: Tensor) -> None:
    """Have RefineNet's first convolution map the tokens, which come after the lightness. In place.

    At the border of a picture the constant is missing where the padding lies.
    """
    weight = convolution.weight.double()
    tokens = torch.einsum("ij,ojhw->oihw", linear[:-1], weight[:, 1:])
    constant = torch.einsum("j,ojhw->o", linear[-1], weight[:, 1:])
    assert convolution.bias is not None
    convolution.weight.copy_(torch.cat([weight[:, :1], tokens], 1))
    convolution.bias.add_(constant)
