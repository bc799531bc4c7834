"""SP-Pooling and SP-Diffusion over the 9-candidate association map (equations 1 and 2)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-8  # keeps SP-Pooling finite for a superpixel that no pixel is associated with


def neighbour_offsets() -> Iterator[tuple[int, int, int]]:
    """The nine candidates of a pixel as (slot, row offset, column offset), row-major."""
    return ((slot, slot // 3 - 1, slot % 3 - 1) for slot in range(9))


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of sums over pixels and of everything per superpixel: fp64 for fp64, else fp32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def associate(logits: Tensor, bias: Tensor | None = None) -> Tensor:
    """The association map: softmax over a pixel's nine candidates (section 4.1).

    Args:
        logits: [N,C,H,W], fp64, fp32, fp16 or bf16; channels behind the ninth are not read.
        bias: [9] added to them, fp64 for fp64 and otherwise fp32; or None.

    Returns:
        [N,9,H,W] planar, fp64 for fp64 and otherwise fp32.
    """
    value = logits[:, :9].to(wide_dtype(logits.dtype))
    value = value if bias is None else value + bias[:, None, None]
    return torch.softmax(value, dim=1).clone(memory_format=torch.contiguous_format)


def sp_aggregate(features: Tensor, association: Tensor, cell_size: int) -> tuple[Tensor, Tensor]:
    """Association-weighted sums of features onto superpixels, per unit of cell area.

    Args:
        features: [N,C,H,W].
        association: [N,9,H,W], a pixel's weight for each of its nine candidate superpixels.
        cell_size: side S of a grid cell in pixels.

    Returns:
        (sums [N,C,h,w], weight [N,1,h,w]): the sums over the 3x3 cells around a superpixel of
        association x feature and of association alone, both divided by S^2. Candidates outside the
        grid are dropped.
    """
    n, _, height, width = features.shape
    rows, columns = height // cell_size, width // cell_size
    association = association.to(wide_dtype(association.dtype))
    features = features.to(association.dtype)
    stacked = torch.cat([features, features.new_ones(n, 1, height, width)], dim=1)
    total: Tensor | None = None
    for slot, dy, dx in neighbour_offsets():
        cells = F.avg_pool2d(stacked * association[:, slot : slot + 1], cell_size)
        padded = F.pad(cells, (1, 1, 1, 1))
        moved = padded[:, :, 1 - dy : 1 - dy + rows, 1 - dx : 1 - dx + columns]
        total = moved if total is None else total + moved
    assert total is not None
    # Copies, for the results of an op may not share memory.
    contiguous = torch.contiguous_format
    return total[:, :-1].clone(memory_format=contiguous), total[:, -1:].clone(
        memory_format=contiguous
    )


def sp_pool(features: Tensor, association: Tensor, cell_size: int) -> tuple[Tensor, Tensor]:
    """SP-Pooling (equation 1): a superpixel's token is the association-weighted mean of its pixels.

    Args and weight as in `sp_aggregate`.

    Returns:
        (pooled [N,C,h,w], weight [N,1,h,w]), pooled = sums / (weight + 1e-8).
    """
    sums, weight = sp_aggregate(features, association, cell_size)
    return sums / (weight + EPSILON), weight


def _overlap(offset: int, size: int) -> tuple[slice, slice]:
    """Along one axis: the cells whose neighbor at `offset` exists, and those neighbors."""
    return slice(max(0, -offset), size - max(0, offset)), slice(
        max(0, offset), size + min(0, offset)
    )


def _pixels(cells: slice, cell_size: int) -> slice:
    return slice(cells.start * cell_size, cells.stop * cell_size)


def _candidates(
    tokens: Tensor, cell_size: int
) -> Iterator[tuple[int, tuple[slice, slice], Tensor]]:
    """For each slot: the pixels that have this candidate, and its token at each of them."""
    rows, columns = tokens.shape[-2:]
    for slot, dy, dx in neighbour_offsets():
        own_rows, their_rows = _overlap(dy, rows)
        own_columns, their_columns = _overlap(dx, columns)
        theirs = tokens[:, :, their_rows, their_columns]
        if theirs.numel():
            spread = F.interpolate(theirs, scale_factor=float(cell_size), mode="nearest")
            yield slot, (_pixels(own_rows, cell_size), _pixels(own_columns, cell_size)), spread


def sp_diffuse(
    tokens: Tensor,
    association: Tensor,
    cell_size: int,
    lead: Tensor | None = None,
    lead_channels: int = 1,
) -> Tensor:
    """SP-Diffusion (equation 2): a pixel is the weighted mix of its nine candidate superpixels.

    Args:
        tokens: [N,C,h,w].
        association: [N,9,H,W]; weights of candidates outside the grid are ignored.
        cell_size: side of a grid cell in pixels.
        lead: [N,1,H,W] in the dtype of the association, put in front of the result's channels
            (RefineNet's input is L and the features), or None.
        lead_channels: L, how many channels the lead takes: the first, and zeros. With a multiple of
            8, channels-last 16-bit features start at multiples of 16 bytes, as tensor cores like.

    Returns:
        features [N,C,H,W], or [N,L+C,H,W] with a lead, in the dtype and layout (contiguous or
        channels-last) of the association.
    """
    n, channels = tokens.shape[:2]
    features = torch.empty(
        (n, channels, *association.shape[-2:]),
        dtype=tokens.dtype,
        device=tokens.device,
        memory_format=layout_of(association),
    ).zero_()
    for slot, (y, x), spread in _candidates(tokens, cell_size):
        features[:, :, y, x] += spread * association[:, slot : slot + 1, y, x]
    features = features.to(association.dtype)
    if lead is None:
        return features
    lead = F.pad(lead, (0, 0, 0, 0, 0, lead_channels - 1))
    return torch.cat([lead, features], dim=1).contiguous(memory_format=layout_of(association))


def sp_correlate(features: Tensor, tokens: Tensor, offset: Tensor | None, cell_size: int) -> Tensor:
    """Dot products of a pixel's vector with its candidate tokens: the association's gradient.

    Args:
        features: [N,C,H,W].
        tokens: [N,C,h,w].
        offset: [N,1,h,w] added for each candidate, or None.
        cell_size: side of a grid cell in pixels.

    Returns:
        [N,9,H,W] in the dtype of `features`; zero for candidates outside the grid.
    """
    n, _, height, width = features.shape
    products = [tokens.new_zeros(n, 1, height, width) for _ in range(9)]
    for slot, (y, x), spread in _candidates(tokens, cell_size):
        products[slot][:, :, y, x] += (features[:, :, y, x] * spread).sum(1, keepdim=True)
    if offset is not None:
        for slot, (y, x), spread in _candidates(offset, cell_size):
            products[slot][:, :, y, x] += spread
    return torch.cat(products, dim=1).to(features.dtype)


def superpixel_size(association: Tensor, cell_size: int) -> Tensor:
    """Area won by each superpixel when every pixel joins its most probable candidate.

    Args:
        association: [N,9,H,W]. Candidates that tie for the maximum all win; a pixel with a NaN
            joins nobody.
        cell_size: side of a grid cell in pixels.

    Returns:
        [N,1,h,w] in units of one cell's area, so from 0 to 9.
    """
    association = association.to(wide_dtype(association.dtype))
    best = association.max(dim=1, keepdim=True)[0]
    one, zero = torch.ones_like(association), torch.zeros_like(association)
    winners = torch.where(association == best, one, zero)
    return sp_aggregate(torch.ones_like(winners[:, :1]), winners, cell_size)[1]


def sp_pool_with_size(
    features: Tensor, association: Tensor, cell_size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """`sp_pool` and `superpixel_size`, which need the same weights.

    Returns:
        (pooled [N,C,h,w], weight [N,1,h,w], size [N,1,h,w]).
    """
    size = superpixel_size(association, cell_size)
    return *sp_pool(features, association, cell_size), size


def layout_of(tensor: Tensor) -> torch.memory_format:
    """Channels-last if `tensor` is stored so and not in the ordinary order too, else contiguous."""
    channels_last = tensor.is_contiguous(memory_format=torch.channels_last)
    return (
        torch.channels_last
        if channels_last and not tensor.is_contiguous()
        else torch.contiguous_format
    )
