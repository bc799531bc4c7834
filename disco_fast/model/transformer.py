"""The encoder of tokens (color modeler and color generator) and its position encoding."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .scale import TOKEN_DIM


def position_encoding(rows: int, columns: int, device: torch.device | str = "cpu") -> Tensor:
    """Sine encoding of the superpixel grid, [1, rows*columns, 64] fp32.

    Half of the channels encode the row, half the column. Positions run from just above 0 to 2 pi
    whatever the size of the grid; sine and cosine alternate, with 16 wavelengths in a geometric
    series up to 10,000.
    """
    half = TOKEN_DIM // 2
    exponent = torch.arange(0, half, 2, dtype=torch.float32, device=device) / half
    wavelength = 10000**exponent

    def axis(size: int) -> Tensor:
        position = torch.arange(1, size + 1, dtype=torch.float32, device=device)
        angle = (position / (size + 1e-6) * (2 * math.pi))[:, None] / wavelength
        return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)

    y = axis(rows)[:, None].expand(-1, columns, -1)
    x = axis(columns)[None].expand(rows, -1, -1)
    return torch.cat([y, x], dim=-1).reshape(1, rows * columns, TOKEN_DIM)


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward block, each followed by a layer norm."""

    def __init__(self) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(TOKEN_DIM, 8, dropout=0.1, batch_first=True)
        self.linear1 = nn.Linear(TOKEN_DIM, 4 * TOKEN_DIM)
        self.linear2 = nn.Linear(4 * TOKEN_DIM, TOKEN_DIM)
        self.norm1 = nn.LayerNorm(TOKEN_DIM)
        self.norm2 = nn.LayerNorm(TOKEN_DIM)
        self.dropout = nn.Dropout(0.1)

    def forward(self, tokens: Tensor, position: Tensor) -> Tensor:
        """[N,P,64] to [N,P,64]; the position is added to queries and keys, not to values."""
        located = tokens + position
        # Asked for its weights, torch writes attention out. On a CPU the backward of its fused form
        # takes twice as long in bf16.
        written_out = self.training and not tokens.is_cuda
        attended = self.self_attn(
            located, located, tokens, need_weights=written_out, average_attn_weights=False
        )[0]
        tokens = self.norm1(tokens + self.dropout(attended))
        hidden = self.dropout(F.relu(self.linear1(tokens)))
        return self.norm2(tokens + self.dropout(self.linear2(hidden)))


class TokenEncoder(nn.Module):
    """Six encoder layers over the superpixels of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer() for _ in range(6))

    def forward(self, tokens: Tensor, position: Tensor) -> Tensor:
        """[N,P,64] to [N,P,64]."""
        for layer in self.layers:
            tokens = layer(tokens, position)
        return tokens
