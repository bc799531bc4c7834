"""Every op once at small shapes, in every dtype and layout: what gpu_check.py's sanitizers watch.

Nothing else runs on the device: arguments are made on the CPU and copied, results are copied back.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from _device import tensors
from torch import Tensor

from disco_fast import ops, reference
from disco_fast.color import bin_centers

HALF = (torch.float16, torch.bfloat16)
WIDE = (torch.float32, torch.float64)
LAYOUTS = (torch.contiguous_format, torch.channels_last)
# (channels, cell): one that moves in vectors in both layouts, one that does in neither.
SHAPES = ((8, 16), (5, 6))
GRID = (2, 3)  # cells


def run(device: str) -> int:
    """Run it all on "cuda" or "cpu"; returns how many calls were made.

    Raises:
        AssertionError: a result is not finite.
    """
    calls = 0
    for what, results in _calls(torch.device(device)):
        for result in tensors(results):
            assert result.cpu().double().isfinite().all(), f"{what}: a result is not finite"
        calls += 1
    return calls


def _calls(device: torch.device) -> Iterator[tuple[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    for (channels, cell), dtype, layout in product(SHAPES, (*HALF, *WIDE), LAYOUTS):
        yield from _pixel_calls(channels, cell, dtype, layout, device, generator)
    # Less than a tile of tokens; several images for a group of blocks; several tiles for a block
    # where no more than 132 blocks are resident, each with at most 32 tokens.
    for images, count in ((1, 3), (150, 40), (1, 4300)):
        tokens = torch.randn(images, count, reference.ENCODER_DIM, generator=generator)
        weights = torch.randn(2, reference.ENCODER_PARAMETERS, generator=generator) / 8
        arguments = (t.to(device) for t in (tokens, tokens[:1], weights))
        yield "encoder", ops.encoder(*arguments)
    for dtype in WIDE:
        yield from _point_calls(dtype, device, generator)
        yield from _color_calls(dtype, device, generator)


def _pixel_calls(
    channels: int,
    cell: int,
    dtype: torch.dtype,
    layout: torch.memory_format,
    device: torch.device,
    generator: torch.Generator,
) -> Iterator[tuple[str, Any]]:
    def pixels(count: int) -> Tensor:
        made = torch.rand(2, count, GRID[0] * cell, GRID[1] * cell, generator=generator)
        return made.to(dtype).contiguous(memory_format=layout).to(device)

    def superpixels(count: int) -> Tensor:
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        return torch.rand(2, count, *GRID, generator=generator).to(wide).to(device)

    features, association, lead = pixels(channels), pixels(9), pixels(1)
    tokens, offset = superpixels(channels), superpixels(1)
    native = torch.ops.disco_fast
    yield "sp_pool", ops.sp_pool(features, association, cell)
    yield "sp_pool_with_size", ops.sp_pool_with_size(features, association, cell)
    yield "sp_aggregate", native.sp_aggregate(features, association, cell)
    yield "sp_diffuse", ops.sp_diffuse(tokens, association, cell)
    yield "sp_diffuse with lead", ops.sp_diffuse(tokens, association, cell, lead)
    yield "sp_correlate", native.sp_correlate(features, tokens, offset, cell)
    yield "superpixel_size", ops.superpixel_size(association, cell)


def _point_calls(
    dtype: torch.dtype, device: torch.device, generator: torch.Generator
) -> Iterator[tuple[str, Any]]:
    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(dtype).to(device)

    def first(images: int, clusters: int) -> Tensor:
        return torch.arange(clusters).repeat(images, 1).to(device)

    # As in the network; points that do not fit shared memory; centers that do not.
    for images, points, dims, clusters in ((2, 40, 6, 3), (1, 900, 64, 8), (1, 160, 130, 130)):
        data = random(images, points, dims)
        yield "kmeans", ops.kmeans(data, first(images, clusters), 2)
    same = torch.zeros(1, 24, 3, dtype=dtype).to(device)  # so that clusters are empty
    yield "kmeans of one point", ops.kmeans(same, first(1, 4), 2)
    if device.type == "cuda":  # elsewhere it raises
        yield "kmeans of a bad index", ops.kmeans(same, first(1, 4) + 1000, 2)[0]
    for method in ops.SEEDINGS:
        yield "kmeans_init", ops.kmeans_init(random(2, 40, 6), 5, 7, method)
    labels = (torch.arange(40) % 3).repeat(2, 1).to(device)
    sizes, logits = random(2, 40), random(2, 40, 313)
    centers = bin_centers("cpu").to(device)
    yield "select_anchors", ops.select_anchors(labels, sizes, 3)
    yield "anchor_bins", ops.anchor_bins(logits, first(2, 4), centers, 3)
    yield "choose_anchors", ops.choose_anchors(labels, sizes, logits, centers, 3, 3)
    read = logits[0, 0].contiguous(), 0.38
    yield "choose_anchors read", ops.choose_anchors(labels, sizes, logits, centers, 3, 3, *read)


def _color_calls(
    dtype: torch.dtype, device: torch.device, generator: torch.Generator
) -> Iterator[tuple[str, Any]]:
    for (height, width), channels in product(((8, 16), (5, 7)), (1, 3)):
        picture = torch.rand(2, channels, height, width, generator=generator)
        yield "rgb_to_l", ops.rgb_to_l(picture.to(dtype).to(device))
        yield "rgb_to_l of bytes", ops.rgb_to_l((255 * picture).byte().to(device))
        lightness = (100 * picture[:, :1]).to(dtype).contiguous().to(device)
        ab = torch.zeros(2, 2, 3, 4, dtype=dtype).to(device)
        for to_uint8 in (False, True):
            yield "lab_to_rgb", ops.lab_to_rgb(lightness, ab, to_uint8)
