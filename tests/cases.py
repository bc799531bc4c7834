"""Shapes, seeds and tolerances of the ops, shared by tests, sanitizers and benchmarks.

Every backend is compared with the specification in fp64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor

from disco_fast.color import bin_centers
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
# Tokens of order 1, up to 4, that round to fp32 in every step of up to six layers: worst seen 3e-6,
# times 7 for other orders of summation.
ENCODER_TOLERANCE = 2e-5

FORCED = -1.0  # a tolerance that no shift falls below: K-Means runs all its iterations
ITERATIONS = 20


def short_name(dtype: torch.dtype) -> str:
    """As in "fp32" and "bf16"."""
    return str(dtype).removeprefix("torch.").replace("float", "fp").replace("bfp", "bf")


@dataclass(frozen=True)
class OpCase:
    """A call of an op.

    Attributes:
        op: its name.
        shape: its arguments, in words.
        images: of the arguments.
        make: makes the arguments on a device.
        bounds: largest absolute difference of each result from the specification; 0 for indices.
        loose: the same for a form that sums in half precision.
    """

    op: str
    shape: str
    images: int
    make: Callable[[torch.device], tuple]
    bounds: tuple[float, ...]
    loose: tuple[float, ...] = ()

    def __str__(self) -> str:
        return f"{self.op} {self.shape}"

    def call(self, namespace: Any, arguments: tuple) -> tuple[Tensor, ...]:
        """Its results; two ops that only gradients use have no function in `disco_fast.ops`."""
        op = getattr(namespace, self.op, None) or getattr(torch.ops.disco_fast, self.op)
        results = op(*arguments)
        return (results,) if isinstance(results, Tensor) else tuple(results)


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

    def tensors(self, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
        """(features [N,C,H,W], association [N,9,H,W], tokens [N,C,h,w])."""
        generator = torch.Generator(device).manual_seed(7)
        n, c, h, w = self.images, self.channels, self.rows, self.columns
        size = (h * self.cell, w * self.cell)
        features = _normal(generator, n, c, *size).to(self.dtype)
        association = make_association(self.association, n, *size, generator).to(self.dtype)
        tokens = _normal(generator, n, c, h, w).to(wide_dtype(self.dtype))
        if self.channels_last:
            features = features.contiguous(memory_format=torch.channels_last)
            association = association.contiguous(memory_format=torch.channels_last)
        return features, association, tokens

    def ops(self) -> list[OpCase]:
        """Every op over pixels."""
        cell, pixels = self.cell, TOLERANCE[self.dtype]
        wide = TOLERANCE[wide_dtype(self.dtype)]

        def case(op: str, bounds: tuple[float, ...], chosen: Callable, note: str = "") -> OpCase:
            layout = ", channels-last" if self.channels_last else ""
            size = f"{self.rows * cell}x{self.columns * cell}"
            dtype = short_name(self.dtype)
            shape = f"{self.channels} channels, {size}, batch {self.images}, {dtype}{layout}{note}"
            loose = tuple(4 * max(bound, pixels) for bound in bounds)

            def make(device: torch.device) -> tuple:
                return chosen(*self.tensors(device))

            return OpCase(op, shape, self.images, make, bounds, loose)

        products = 4 * math.sqrt(self.channels) * pixels
        return [
            case("sp_pool", (wide, wide), lambda f, a, t: (f, a, cell)),
            case("sp_pool_with_size", (wide, wide, wide), lambda f, a, t: (f, a, cell)),
            case(
                "sp_pool_with_size",
                (wide, wide, wide),
                lambda f, a, t: (f, a.to(t.dtype), cell),
                ", association in fp32",
            ),
            case("sp_diffuse", (pixels,), lambda f, a, t: (t, a, cell)),
            case(
                "sp_diffuse",
                (pixels,),
                lambda f, a, t: (t, a, cell, f[:, :1].contiguous()),
                ", with lead",
            ),
            case(
                "sp_diffuse",
                (pixels,),
                lambda f, a, t: (t, a, cell, f[:, :1].contiguous(), 8),
                ", with lead of 8 channels",
            ),
            case("superpixel_size", (wide,), lambda f, a, t: (a, cell)),
            case("sp_correlate", (products,), lambda f, a, t: (f, t, t[:, :1].contiguous(), cell)),
        ]


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, device=generator.device)


def make_association(
    kind: str, n: int, height: int, width: int, generator: torch.Generator
) -> Tensor:
    """[N,9,H,W] of a kind: soft, one-hot, uniform, ties, or denormal (a trained map's tails)."""
    logits = _normal(generator, n, 9, height, width)
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
        """Points [N,P,D]: normal, duplicates, or clustered (so that no label hangs on rounding)."""
        generator = torch.Generator().manual_seed(11)
        shape = (self.images, self.points, self.dims)
        points = torch.randn(shape, generator=generator, dtype=torch.float64)
        if self.kind == "clustered":
            many = 2 * self.clusters
            centers = torch.randn(self.images, many, self.dims, generator=generator)
            which = torch.randint(many, shape[:2], generator=generator)
            own = centers.gather(1, which[..., None].expand(shape))
            points = own + 0.5 * points
        if self.kind == "duplicates":
            # Whole numbers: means of equal points are exact, so that empty clusters are no matter
            # of rounding.
            points = points[:, :1].round().expand(shape) + (torch.arange(self.points) % 3)[:, None]
        return points.to(self.dtype).contiguous()

    def ops(self) -> list[OpCase]:
        """K-Means and all that chooses anchors."""
        n, p, k = self.images, self.points, self.clusters
        generator = torch.Generator().manual_seed(12)
        init = torch.rand(n, p, generator=generator).argsort(1)[:, :k]
        labels = (torch.arange(p) % k).repeat(n, 1)
        dtype = wide_dtype(self.dtype)
        double = ", fp64" if dtype == torch.float64 else ""

        def logits(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
            draws = torch.Generator().manual_seed(13)
            sizes = torch.rand(n, p, generator=draws).to(dtype)
            scores = (3 * torch.randn(n, p, 313, generator=draws)).to(dtype)
            return sizes.to(device), scores.to(device), bin_centers(device)

        def kmeans(device: torch.device) -> tuple:
            return self.data().to(device), init.to(device), ITERATIONS, FORCED

        def first(device: torch.device) -> tuple:
            return self.data().to(device), k, 7, "k-means++"

        def select(device: torch.device) -> tuple:
            return labels.to(device), logits(device)[0], k

        def bins(device: torch.device) -> tuple:
            _, scores, centers = logits(device)
            return scores, init.to(device), centers, 3

        def choose(device: torch.device) -> tuple:
            sizes, scores, centers = logits(device)
            return labels.to(device), sizes, scores, centers, k, 1

        def read(device: torch.device) -> tuple:
            arguments = choose(device)
            offset = torch.linspace(-3, 3, 313, device=device, dtype=dtype)
            return *arguments[:-1], 3, offset, 0.38

        batch = f"batch {n}{double}"
        points = f"{p}x{self.dims}, K={k}, {batch}"
        superpixels = f"{p} superpixels, K={k}, {batch}"
        # Labels; means of thousands of points of order 1; iterations.
        moved = (0, 1e-4 if dtype == torch.float32 else 1e-12, 0)
        return [
            OpCase("kmeans", f"{points}, {ITERATIONS} iterations", n, kmeans, moved),
            OpCase("kmeans_init", points, n, first, (0,)),
            OpCase("select_anchors", superpixels, n, select, (0,)),
            OpCase("anchor_bins", f"{superpixels}, 3 variants", n, bins, (0,)),
            OpCase("choose_anchors", superpixels, n, choose, (0, 0)),
            OpCase("choose_anchors", f"{superpixels}, annealed, 3 variants", n, read, (0, 0)),
        ]


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

    def ops(self) -> list[OpCase]:
        """The encoder."""

        def make(device: torch.device) -> tuple:
            return tuple(tensor.to(device) for tensor in self.tensors())

        count = f"{self.rows * self.columns} tokens, batch {self.images}"
        return [OpCase("encoder", count, self.images, make, (ENCODER_TOLERANCE,))]


ENCODER_CASES = (
    EncoderCase(),
    EncoderCase(rows=1, columns=1),
    EncoderCase(rows=2, columns=2),
    EncoderCase(images=1, rows=17, columns=13),
    EncoderCase(images=9, rows=5, columns=1, layers=1),
    EncoderCase(images=3, rows=7, columns=5, layers=3),
)


@dataclass(frozen=True)
class ColorCase:
    """One configuration of the ops on color."""

    images: int = 1
    height: int = 256
    width: int = 256
    dtype: torch.dtype = torch.float32
    chroma: int = 256  # side of the chroma at most, as in the network

    def ops(self) -> list[OpCase]:
        """Lightness of an image, in bytes and floating, and an image of lightness and chroma."""
        n, size = self.images, (self.height, self.width)
        chroma = tuple(min(side, self.chroma) for side in size)

        def uniform(device: torch.device, channels: int, size: tuple[int, ...]) -> Tensor:
            generator = torch.Generator(device).manual_seed(5)
            values = torch.rand((n, channels, *size), generator=generator, device=device)
            return values.to(self.dtype)

        def bytes_of(device: torch.device) -> tuple:
            return ((255 * uniform(device, 3, size)).byte(),)

        def gray(device: torch.device) -> tuple:
            return (uniform(device, 1, size),)

        def lab(device: torch.device) -> tuple:
            return 100 * uniform(device, 1, size), 80 * uniform(device, 2, chroma) - 40

        double = ", fp64" if self.dtype == torch.float64 else ""
        shape = f"{self.height}x{self.width}, batch {n}{double}"
        lightness = (1e-4 if self.dtype == torch.float32 else 1e-10,)  # of 100
        return [
            OpCase("rgb_to_l", f"{shape}, bytes", n, bytes_of, (1e-4,)),
            OpCase("rgb_to_l", f"{shape}, gray", n, gray, lightness),
            # A byte may round the other way.
            OpCase("lab_to_rgb", f"{shape}, bytes", n, lambda d: (*lab(d), True), (1,)),
            OpCase("lab_to_rgb", shape, n, lambda d: (*lab(d), False), (1e-5,)),
        ]


@dataclass(frozen=True)
class ConvolutionCase:
    """One configuration of a convolution and of what follows it."""

    images: int = 1
    inputs: int = 64
    outputs: int = 64
    height: int = 256
    width: int = 256
    dtype: torch.dtype = torch.bfloat16

    def ops(self) -> list[OpCase]:
        """Both in one kernel, with everything that may follow and with as little as there is."""
        size = (self.height, self.width)

        def maps(device: torch.device, channels: int, seed: int) -> Tensor:
            generator = torch.Generator(device).manual_seed(seed)
            values = _normal(generator, self.images, channels, *size).to(self.dtype)
            return values.contiguous(memory_format=torch.channels_last)

        def make(device: torch.device, whole: bool) -> tuple:
            generator = torch.Generator(device).manual_seed(9)
            weight = _normal(generator, self.outputs, self.inputs, 3, 3) / (9 * self.inputs) ** 0.5
            weight = weight.to(self.dtype).contiguous(memory_format=torch.channels_last)
            x, bias = maps(device, self.inputs, 10), _normal(generator, self.outputs)
            if not whole:
                return x, weight, bias, None, 0.2
            return x, weight, bias, maps(device, self.outputs, 11), 0.2, bias, bias

        dtype = short_name(self.dtype)
        channels = f"{self.inputs} to {self.outputs} channels"
        shape = f"{channels}, {self.height}x{self.width}, batch {self.images}, {dtype}"
        # fp32 is multiplied in TF32, the specification in fp64. Sums of order 1 deviate by 2^-11,
        # the worst of a hundred thousand by five times that, times up to three for the scale.
        bound = 2**-7 if self.dtype == torch.float32 else TOLERANCE[self.dtype]
        bounds, loose = (bound,), (4 * bound,)
        return [
            OpCase("convolve", shape, self.images, lambda d: make(d, False), bounds, loose),
            OpCase(
                "convolve", f"{shape}, all", self.images, lambda d: make(d, True), bounds, loose
            ),
        ]


def small_cases() -> list[OpCase]:
    """Every op in every dtype and layout, small enough for a sanitizer.

    Pixels that move in vectors in both layouts, and that do in neither. Points that fit shared
    memory, that do not, and centers that do not. Less than a tile of tokens, and several images for
    a group of blocks. Convolutions in small tiles on a GPU of 132 multiprocessors, and large ones.
    """
    pools = (
        PoolCase(channels=channels, rows=2, columns=3, cell=cell, dtype=dtype, channels_last=last)
        for (channels, cell), dtype, last in product(((8, 16), (5, 6)), DTYPES, (False, True))
    )
    clusters = (
        ClusterCase(images, points, dims, k, dtype, "clustered")
        for images, points, dims, k in ((2, 40, 6, 3), (1, 900, 64, 8), (1, 160, 130, 50))
        for dtype in (torch.float32, torch.float64)
    )
    encoders = (EncoderCase(1, 1, 3, 2), EncoderCase(150, 5, 8, 1))
    colors = (
        ColorCase(2, height, width, dtype, chroma=3)
        for height, width in ((8, 16), (5, 7))
        for dtype in (torch.float32, torch.float64)
    )
    convolutions = (
        ConvolutionCase(images, inputs, outputs, height, width, dtype)
        for images, inputs, outputs, height, width in ((1, 72, 24, 9, 17), (3, 8, 8, 96, 112))
        for dtype in (torch.bfloat16, torch.float16, torch.float32)
    )
    families = (pools, clusters, encoders, colors, convolutions)
    return [op for family in families for case in family for op in case.ops()]
