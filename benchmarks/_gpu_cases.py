"""What gpu_check.py measures: every op at the sizes that count. Arguments are made when needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from types import SimpleNamespace
from typing import Any

import torch
from _measure import Report
from ops import (
    CELL,
    CHANNELS,
    ENCODER_BOUND,
    ITERATIONS,
    N_ANCHORS,
    clustered,
    encode_with,
    encoder_weights,
)
from torch import Tensor

from disco_fast import ops
from disco_fast.color import bin_centers
from disco_fast.model.transformer import position_encoding

FORCED = -1.0  # a tolerance that no shift falls below: K-Means runs all its iterations
CHECKED = 8  # images of a batch that are compared where the specification takes 40 ms for each
BINS = 313
WORKING_SIZE = 256  # side of the chroma that a picture's color is resampled from

DTYPES = {"fp16": torch.float16, "fp32": torch.float32}
LAYOUTS = {"NCHW": torch.contiguous_format, "channels-last": torch.channels_last}

# Largest absolute errors of values of order 1, as in tests/cases.py: fp32 for the order of
# summation, fp16 for half a unit in the last place of values below 8, doubled.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2**-8}
RIVALS_SHARE = 4  # a rival may err so many times more: it sums in fp16 what kernels sum in fp32


@dataclass(frozen=True)
class Sizes:
    """How large everything is; the bars are about the defaults."""

    channels: int = CHANNELS
    side: int = 256
    pixel_batches: tuple[int, ...] = (1, 64)
    points: int = 256
    point_batches: tuple[int, ...] = (1, 8, 32, 128)
    many_points: int = 4096
    pictures: tuple[int, ...] = (1024, 4096)


QUICK = Sizes(
    channels=8,
    side=32,
    pixel_batches=(1, 2),
    points=32,
    point_batches=(1, 3),
    many_points=64,
    pictures=(32, 64),
)


@dataclass(frozen=True)
class Work:
    """Arguments on a device, and what to do with them.

    Attributes:
        tensors: their first dimension is the image.
        run: takes a namespace of ops and the tensors.
    """

    tensors: tuple[Tensor, ...]
    run: Callable[..., Any]


@dataclass(frozen=True)
class Case:
    """One op at one shape.

    Attributes:
        op: its name, and how it is used if that is special.
        shape: what is worth saying about the arguments.
        batch: images.
        make: makes the arguments on a device.
        bounds: largest absolute difference from the specification, of each result.
        rival_bounds: the same for the vectorised rival.
        dtype, layout: of pixel tensors, else empty.
        vectorised: whether `_vectorized` has it.
        reads_all: whether every byte of the arguments is needed once.
        checked: how many images are compared with the specification; None for all.
    """

    op: str
    shape: str
    batch: int
    make: Callable[[torch.device], Work]
    bounds: tuple[float, ...]
    rival_bounds: tuple[float, ...]
    dtype: str = ""
    layout: str = ""
    vectorised: bool = True
    reads_all: bool = True
    checked: int | None = None

    def identity(self) -> Report:
        """What says in a report which case a row is about."""
        fields = ("op", "shape", "batch", "dtype", "layout", "reads_all")
        return {field: getattr(self, field) for field in fields}


def fast_ops() -> SimpleNamespace:
    """The ops as their users call them; the one that only gradients use has no wrapper."""
    wrappers = {name: f for name, f in vars(ops).items() if not name.startswith("_")}
    return SimpleNamespace(**wrappers, sp_correlate=torch.ops.disco_fast.sp_correlate)


def cases(sizes: Sizes) -> list[Case]:
    """All cases, those that the bars are about first: time may run out."""
    return [
        *_kmeans_cases(sizes),
        *_choice_cases(sizes),
        *_encoder_cases(sizes),
        *_pixel_cases(sizes),
        *_color_cases(sizes),
    ]


# ---- Pixel ops -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class PixelOp:
    """An op over pixels.

    Attributes:
        name: what the report calls it.
        inputs: its tensors, as `_pixel_tensor` names them.
        run: takes a namespace of ops and the tensors.
        outputs: of each result: "wide" if kept in fp32, "pixels" if in the dtype of pixels,
            "products" if it is in that dtype and sums over channels.
    """

    name: str
    inputs: tuple[str, ...]
    run: Callable[..., Any]
    outputs: tuple[str, ...]


PIXEL_OPS = (
    PixelOp(
        "sp_pool",
        ("features", "association"),
        lambda o, f, a: o.sp_pool(f, a, CELL),
        ("wide", "wide"),
    ),
    PixelOp(
        "sp_diffuse",
        ("tokens", "association"),
        lambda o, t, a: o.sp_diffuse(t, a, CELL),
        ("pixels",),
    ),
    PixelOp(
        "sp_diffuse with lead",
        ("tokens", "association", "lead"),
        lambda o, t, a, lead: o.sp_diffuse(t, a, CELL, lead),
        ("pixels",),
    ),
    PixelOp(
        "sp_pool_with_size",
        ("features", "association"),
        lambda o, f, a: o.sp_pool_with_size(f, a, CELL),
        ("wide", "wide", "wide"),
    ),
    PixelOp(
        "superpixel_size",
        ("association",),
        lambda o, a: o.superpixel_size(a, CELL),
        ("wide",),
    ),
    PixelOp(
        "sp_correlate",
        ("features", "tokens", "offset"),
        lambda o, f, t, offset: o.sp_correlate(f, t, offset, CELL),
        ("products",),
    ),
)


def _pixel_cases(sizes: Sizes) -> Iterator[Case]:
    for op in PIXEL_OPS:
        for batch, dtype, layout in product(sizes.pixel_batches, DTYPES, LAYOUTS):
            yield _pixel_case(op, sizes, batch, dtype, layout)


def _pixel_case(op: PixelOp, sizes: Sizes, batch: int, dtype: str, layout: str) -> Case:
    def make(device: torch.device) -> Work:
        generator = torch.Generator(device).manual_seed(0)
        made = (
            _pixel_tensor(name, batch, sizes, DTYPES[dtype], LAYOUTS[layout], generator)
            for name in op.inputs
        )
        return Work(tuple(made), op.run)

    pixels = TOLERANCE[DTYPES[dtype]]
    of = {
        "wide": TOLERANCE[torch.float32],
        "pixels": pixels,
        "products": 4 * math.sqrt(sizes.channels) * pixels,
    }
    bounds = tuple(of[kind] for kind in op.outputs)
    shape = f"{sizes.side}x{sizes.side}, batch {batch}"
    return Case(
        op.name,
        shape if op.inputs == ("association",) else f"{sizes.channels} channels, {shape}",
        batch,
        make,
        bounds,
        tuple(RIVALS_SHARE * max(bound, pixels) for bound in bounds),
        dtype,
        layout,
    )


def _pixel_tensor(
    name: str,
    batch: int,
    sizes: Sizes,
    dtype: torch.dtype,
    layout: torch.memory_format,
    generator: torch.Generator,
) -> Tensor:
    side, grid = sizes.side, sizes.side // CELL

    def normal(channels: int, size: int) -> Tensor:
        shape = (batch, channels, size, size)
        return torch.randn(shape, generator=generator, device=generator.device)

    if name in ("tokens", "offset"):  # of superpixels, so always fp32
        return normal(sizes.channels if name == "tokens" else 1, grid)
    if name == "association":
        pixels = (2 * normal(9, side)).softmax(1)
    else:
        pixels = normal({"features": sizes.channels, "lead": 1}[name], side)
    return pixels.to(dtype).contiguous(memory_format=layout)


# ---- K-Means and anchors -------------------------------------------------------------------------


def _point_case(
    op: str,
    shape: str,
    batch: int,
    make: Callable[[torch.device], Work],
    bounds: tuple[float, ...],
    **more: Any,
) -> Case:
    return Case(op, f"{shape}, batch {batch}", batch, make, bounds, bounds, checked=CHECKED, **more)


def _kmeans_cases(sizes: Sizes) -> Iterator[Case]:
    for batch in sizes.point_batches:
        yield _kmeans_case(batch, sizes.points)
    yield _kmeans_case(1, sizes.many_points)


def _kmeans_case(batch: int, count: int) -> Case:
    def make(device: torch.device) -> Work:
        points, init = _points(batch, count, device)
        return Work((points, init), lambda o, p, i: o.kmeans(p, i, ITERATIONS, FORCED)[:2])

    shape = f"{count}x{CHANNELS}, K={N_ANCHORS}, {ITERATIONS} iterations"
    # Labels, and means of up to 4,096 points of order 1 in fp32.
    return _point_case("kmeans", shape, batch, make, (0, 1e-4))


def _choice_cases(sizes: Sizes) -> Iterator[Case]:
    few, many = sizes.point_batches[0], sizes.point_batches[-1]
    for make in (_kmeans_and_choice, _choice, _kmeans_init):
        for batch in (few, many):
            yield make(batch, sizes.points)


def _kmeans_and_choice(batch: int, count: int) -> Case:
    def make(device: torch.device) -> Work:
        centers = bin_centers(device)

        def run(o: Any, points: Tensor, init: Tensor, sizes: Tensor, logits: Tensor) -> Any:
            labels = o.kmeans(points, init, ITERATIONS, FORCED)[0]
            return labels, *o.choose_anchors(labels, sizes, logits, centers, N_ANCHORS, 1)

        return Work((*_points(batch, count, device), *_candidates(batch, count, device)), run)

    shape = f"{count}x{CHANNELS}, K={N_ANCHORS}, {ITERATIONS} iterations"
    bounds = (0, 0, 0)
    return _point_case("kmeans + choose_anchors", shape, batch, make, bounds, reads_all=False)


def _choice(batch: int, count: int) -> Case:
    def make(device: torch.device) -> Work:
        centers = bin_centers(device)
        labels = (torch.arange(count, device=device) % N_ANCHORS).repeat(batch, 1)

        def run(o: Any, labels: Tensor, sizes: Tensor, logits: Tensor) -> Any:
            return o.choose_anchors(labels, sizes, logits, centers, N_ANCHORS, 1)

        return Work((labels, *_candidates(batch, count, device)), run)

    shape = f"{count} superpixels, K={N_ANCHORS}"
    return _point_case("choose_anchors", shape, batch, make, (0, 0), reads_all=False)


def _kmeans_init(batch: int, count: int) -> Case:
    def make(device: torch.device) -> Work:
        points, _ = _points(batch, count, device)
        return Work((points,), lambda o, p: o.kmeans_init(p, N_ANCHORS, 0, "k-means++"))

    shape = f"{count}x{CHANNELS}, K={N_ANCHORS}, k-means++"
    return _point_case("kmeans_init", shape, batch, make, (0,), vectorised=False)


def _encoder_cases(sizes: Sizes) -> Iterator[Case]:
    yield _anchor_block(sizes.point_batches[0], sizes.points)
    for batch in sizes.point_batches:
        yield _encoder(batch, sizes.points)


def _random_encoder(count: int, device: torch.device, seed: int) -> Callable[[Any, Tensor], Tensor]:
    weights = encoder_weights(torch.Generator().manual_seed(seed)).to(device)
    return encode_with(weights, position_encoding(1, count, device))


def _encoder(batch: int, count: int) -> Case:
    def make(device: torch.device) -> Work:
        return Work(_points(batch, count, device)[:1], _random_encoder(count, device, 3))

    shape = f"{count} tokens"
    return _point_case("encoder", shape, batch, make, (ENCODER_BOUND,), reads_all=False)


def _anchor_block(batch: int, count: int) -> Case:
    """All between SP-Pooling and SP-Diffusion: color modeler, anchors, color generator."""

    def make(device: torch.device) -> Work:
        centers = bin_centers(device)
        model, generate = (_random_encoder(count, device, seed) for seed in (3, 4))

        def run(o: Any, points: Tensor, sizes: Tensor, logits: Tensor) -> Any:
            tokens = model(o, points)
            init = o.kmeans_init(tokens, N_ANCHORS, 0, "k-means++")
            labels = o.kmeans(tokens, init, ITERATIONS, FORCED)[0]
            chosen = o.choose_anchors(labels, sizes, logits, centers, N_ANCHORS, 1)
            return tokens, labels, *chosen, generate(o, tokens)

        points = _points(batch, count, device)[:1]
        return Work((*points, *_candidates(batch, count, device)), run)

    shape = f"{count} superpixels, K={N_ANCHORS}, {ITERATIONS} iterations"
    bounds = (ENCODER_BOUND, 0, 0, 0, 2 * ENCODER_BOUND)
    return _point_case(
        "anchor block", shape, batch, make, bounds, vectorised=False, reads_all=False
    )


def _points(batch: int, count: int, device: torch.device) -> tuple[Tensor, ...]:
    """Points and first centers: drawn on the CPU, so that no label hangs on the device's draws."""
    generator = torch.Generator().manual_seed(1)
    return tuple(t.to(device) for t in clustered(batch, count, generator))


def _candidates(batch: int, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Sizes and logits of superpixels."""
    generator = torch.Generator().manual_seed(2)
    sizes = torch.rand(batch, count, generator=generator)
    logits = 3 * torch.randn(batch, count, BINS, generator=generator)
    return sizes.to(device), logits.to(device)


# ---- Color ---------------------------------------------------------------------------------------


def _color_cases(sizes: Sizes) -> Iterator[Case]:
    for side in sizes.pictures:
        yield _lightness_case(side)
        yield _rgb_case(side)


def _lightness_case(side: int) -> Case:
    def make(device: torch.device) -> Work:
        generator = torch.Generator(device).manual_seed(0)
        shape, kind = (1, 3, side, side), torch.uint8
        image = torch.randint(256, shape, dtype=kind, generator=generator, device=device)
        return Work((image,), lambda o, image: o.rgb_to_l(image))

    bounds = (1e-4,)  # of 100, as in tests/test_color.py
    return Case("rgb_to_l", f"{side}x{side}", 1, make, bounds, bounds, vectorised=False)


def _rgb_case(side: int) -> Case:
    def make(device: torch.device) -> Work:
        generator = torch.Generator(device).manual_seed(0)

        def uniform(channels: int, size: int) -> Tensor:
            return torch.rand((1, channels, size, size), generator=generator, device=device)

        ab = 80 * uniform(2, min(side, WORKING_SIZE)) - 40
        return Work(
            (100 * uniform(1, side), ab), lambda o, light, ab: o.lab_to_rgb(light, ab, True)
        )

    bounds = (1,)  # a byte may round the other way
    return Case("lab_to_rgb", f"{side}x{side}", 1, make, bounds, bounds, vectorised=False)
