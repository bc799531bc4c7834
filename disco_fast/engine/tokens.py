"""What a prepared network leaves out between SP-Pooling and SP-Diffusion. Exact."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ..color import N_BINS
from ..model import DISCO
from ..model.scale import TOKEN_DIM

Position = Callable[[int, int, torch.device], Tensor]
Remembered = Callable[[int, int, torch.device, int], Tensor]

GRIDS = 8  # whose position encodings are kept: 64 KB each at 256 superpixels, 4 MB at 16,384


def project_anchors_only(network: DISCO) -> None:
    """Only the K anchors of an image go through the 313-way projection. In place."""
    network.colors = partial(_colors, network)  # type: ignore[method-assign]
    network._choose = partial(_choose, network)  # type: ignore[method-assign]


def _colors(
    network: DISCO,
    color_tokens: Tensor,
    anchors: Tensor,
    variants: int = 1,
    offset: Tensor | None = None,
) -> Tensor:
    rows = color_tokens.gather(1, anchors[..., None].expand(-1, -1, color_tokens.shape[-1]))
    own = torch.arange(anchors.shape[1], device=anchors.device).expand_as(anchors)
    return DISCO.colors(network, rows, own, variants, offset)


def _choose(
    network: DISCO,
    color_tokens: Tensor,
    labels: Tensor,
    sizes: Tensor,
    n_anchors: int,
    variants: int,
    offset: Tensor | None,
) -> tuple[Tensor, Tensor, None]:
    anchors = network.ops.select_anchors(labels, sizes, n_anchors)
    return anchors, network.colors(color_tokens, anchors, variants, offset), None


def look_colors_up(network: DISCO) -> None:
    """A one-hot colour times a matrix is a row of it. In place.

    The color generator's input is Linear(cat(token, mask * one_hot(bin), mask)).
    """
    weight = network.trg_word_emb.weight.detach()
    of_token, of_bin, of_mask = weight.split([TOKEN_DIM, N_BINS, 1], dim=1)
    colors = (of_bin + of_mask).t().contiguous()  # [313,64]
    network._embed = partial(_embed, of_token.contiguous(), colors)  # type: ignore[method-assign]


def _embed(of_token: Tensor, colors: Tensor, tokens: Tensor, mask: Tensor, label: Tensor) -> Tensor:
    return F.linear(tokens, of_token) + mask * colors[label]


def leave_guided_logits_out(network: DISCO) -> None:
    """No second 313-way projection: nothing depends on it. In place."""
    network._guided_logits = lambda *_: None  # type: ignore[method-assign]


def remember_positions(network: DISCO) -> None:
    """Compute the position encoding of a grid once. In place."""
    compute = network._position

    @lru_cache(GRIDS)
    def remembered(rows: int, columns: int, device: torch.device, stream: int) -> Tensor:
        return compute(rows, columns, device)

    network._position = partial(_positions, compute, remembered)  # type: ignore[method-assign]


def _positions(
    compute: Position, remembered: Remembered, rows: int, columns: int, device: torch.device
) -> Tensor:
    # torch.compile cannot look into a cache, and makes a constant of it anyway. A CUDA graph would
    # go on reading what the cache has dropped.
    on_gpu = device.type == "cuda"
    capturing = on_gpu and torch.cuda.is_current_stream_capturing()
    if torch.compiler.is_compiling() or capturing:
        return compute(rows, columns, device)
    # Another stream would have to wait for the one that computes it.
    stream = torch.cuda.current_stream(device).cuda_stream if on_gpu else 0
    return remembered(rows, columns, device, stream)
