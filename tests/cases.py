"""Shapes, seeds and tolerances of the op tests, shared by every backend.

Every backend is compared with the specification in fp64.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from disco_fast.model.transformer import position_encoding
from disco_fast.reference import ENCODER_DIM, ENCODER_PARAMETERS, unpack_layer, wide_dtype

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)

# Largest absolute error of values of order 1. fp32 and fp64: worst seen 6e-7 and 2e-15 in sums of
# up to 9 x 1024 terms, times 10 for other orders of summation. Half types are stored once, after
# sums in fp32: half a unit in the last place of values below 8 (2^-6 for bf16, 2^-9 for fp16),
# times 2 for inputs that round apart.
TOLERANCE = {
    torch.float32: 1e-5,
    torch.float64: 1e-13,
    torch.bfloat16: 2**-5,
    torch.float16: 2**-8,
}


@dataclass(frozen=True)
class PoolCase:
    """One configuration of the superpixel ops."""

    images: int = 2
    channels: int = 64
    rows: int = 3
    columns: int = 4
    cell: int = 16
    dtype: torch.dtype = torch.float32
    channels_last: bool = False
    association: str = "soft"

    def __str__(self) -> str:
        layout = "nhwc" if self.channels_last else "nchw"
        dtype = str(self.dtype).removeprefix("torch.")
        grid = f"{self.images}x{self.channels}x{self.rows}x{self.columns}"
        return f"{grid}-cell{self.cell}-{dtype}-{layout}-{self.association}"

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """(features [N,C,H,W], association [N,9,H,W], tokens [N,C,h,w])."""
        generator = torch.Generator().manual_seed(7)
        n, c, h, w = self.images, self.channels, self.rows, self.columns
        size = (h * self.cell, w * self.cell)
        features = torch.randn(n, c, *size, generator=generator).to(self.dtype)
        association = make_association(self.association, n, *size, generator).to(self.dtype)
        tokens = torch.randn(n, c, h, w, generator=generator).to(wide_dtype(self.dtype))
        if self.channels_last:
            features = features.contiguous(memory_format=torch.channels_last)
            association = association.contiguous(memory_format=torch.channels_last)
        return features, association, tokens


def make_association(
    kind: str, n: int, height: int, width: int, generator: torch.Generator
) -> Tensor:
    """[N,9,H,W] of a kind: soft, one-hot, uniform, ties, or denormal (a trained map's tails)."""
    logits = torch.randn(n, 9, height, width, generator=generator)
    if kind == "soft":
        return (2 * logits).softmax(1)
    if kind == "one-hot":
        return torch.nn.functional.one_hot(logits.argmax(1), 9).permute(0, 3, 1, 2).float()
    if kind == "uniform":
        return torch.full_like(logits, 1 / 9)
    if kind == "ties":
        return torch.where(logits > 0.5, 0.25, 0.125)
    if kind == "denormal":
        winner = torch.nn.functional.one_hot(logits.argmax(1), 9).permute(0, 3, 1, 2).bool()
        return torch.where(winner, torch.tensor(1.0), torch.tensor(1e-41))
    raise AssertionError(kind)


POOL_CASES = (
    *(PoolCase(dtype=dtype, channels_last=last) for dtype in DTYPES for last in (False, True)),
    *(PoolCase(cell=cell, channels_last=last) for cell in (8, 32) for last in (False, True)),
    *(
        PoolCase(channels=c, channels_last=last)
        for c in (1, 2, 3, 17, 68)
        for last in (False, True)
    ),
    *(PoolCase(association=kind) for kind in ("one-hot", "uniform", "ties", "denormal")),
    PoolCase(rows=1, columns=1),
    PoolCase(rows=1, columns=5, channels_last=True),
    PoolCase(rows=2, columns=1, cell=5, channels=7),
    PoolCase(images=1, rows=16, columns=16),
    PoolCase(images=9, rows=2, columns=2, channels=5),
    PoolCase(images=257, rows=1, columns=1, channels=4, cell=8, channels_last=True),
    *(PoolCase(images=1, channels=130, rows=2, channels_last=last) for last in (False, True)),
)


@dataclass(frozen=True)
class ClusterCase:
    """One configuration of K-Means."""

    images: int = 2
    points: int = 256
    dims: int = 64
    clusters: int = 8
    dtype: torch.dtype = torch.float32
    kind: str = "normal"

    def __str__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{self.images}x{self.points}x{self.dims}-k{self.clusters}-{dtype}-{self.kind}"

    def data(self) -> Tensor:
        """Points [N,P,D]."""
        generator = torch.Generator().manual_seed(11)
        shape = (self.images, self.points, self.dims)
        points = torch.randn(shape, generator=generator, dtype=torch.float64)
        if self.kind == "duplicates":
            # Whole numbers: means of equal points are exact, so that empty clusters are no matter
            # of rounding.
            points = points[:, :1].round().expand(shape) + (torch.arange(self.points) % 3)[:, None]
        return points.to(self.dtype).contiguous()


CLUSTER_CASES = (
    ClusterCase(),
    ClusterCase(dtype=torch.float64),
    ClusterCase(images=1, clusters=1),
    ClusterCase(points=1, clusters=1),
    ClusterCase(points=24, dims=5, clusters=24),
    ClusterCase(points=77, dims=3, clusters=5),
    ClusterCase(points=1000, dims=65, clusters=13),
    ClusterCase(images=17, points=40, dims=2, clusters=3),
    ClusterCase(points=60, dims=4, clusters=6, kind="duplicates"),
    ClusterCase(images=1, points=4096, clusters=64),
    ClusterCase(images=257, points=9, dims=2, clusters=2),
    ClusterCase(images=1, points=300, dims=256, clusters=64),
    ClusterCase(images=1, points=16384, dims=3, clusters=4),
)


@dataclass(frozen=True)
class EncoderCase:
    """One configuration of the encoder of tokens."""

    images: int = 2
    rows: int = 16
    columns: int = 16
    layers: int = 6

    def __str__(self) -> str:
        return f"{self.images}x{self.rows}x{self.columns}-{self.layers}layers"

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """(tokens [N,P,64], position [1,P,64], weights [L,49984]), as `reference.encoder`."""
        generator = torch.Generator().manual_seed(13)
        tokens = torch.randn(
            self.images, self.rows * self.columns, ENCODER_DIM, generator=generator
        )
        weights = torch.randn(self.layers, ENCODER_PARAMETERS, generator=generator) / 8
        for row in weights:
            layer = unpack_layer(row)
            layer["norm1.weight"] += 1  # so that tokens stay of order 1
            layer["norm2.weight"] += 1
        return tokens, position_encoding(self.rows, self.columns), weights


ENCODER_CASES = (
    EncoderCase(),
    EncoderCase(rows=1, columns=1),
    EncoderCase(rows=2, columns=2),
    EncoderCase(images=1, rows=17, columns=13),
    EncoderCase(images=9, rows=5, columns=1, layers=1),
    EncoderCase(images=3, rows=7, columns=5, layers=3),
)
