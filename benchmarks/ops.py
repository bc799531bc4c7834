"""Each op against its specification and against vectorised PyTorch, verified first.

    python benchmarks/ops.py --repeats 5  # a quick look
    python benchmarks/ops.py --json benchmarks/results/ops-cpu.json

The specification (`disco_fast.reference`) is the published eager code; the vectorised form is the
cheapest thing a user could do without a kernel, for the encoder PyTorch's own layers. K-Means runs
exactly 20 iterations in all three (`tol=0`), so that iterations are compared with iterations. fp32.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import _tables
import _vectorized
import torch
from _measure import Report, context, default_device, interleaved, save
from torch import Tensor

from disco_fast import ops, reference
from disco_fast.color import bin_centers
from disco_fast.model.transformer import TokenEncoder, position_encoding

CELL = 16
CHANNELS = 64
N_ANCHORS = 8
ITERATIONS = 20
ENCODER_BOUND = 2e-5  # of tokens of order 1 after six layers in fp32, as in tests/test_encoder.py


@dataclass(frozen=True)
class Case:
    """One op at one shape.

    Attributes:
        op: its name.
        shape: what is worth saying about the arguments.
        call: runs it out of a namespace of ops.
        vectorised: whether `_vectorized` has it; for other ops the specification is no worse.
        bound: largest absolute difference allowed; 0 for indices.
    """

    op: str
    shape: str
    call: Callable[[ModuleType], Any]
    vectorised: bool
    bound: float


def association(size: int, generator: torch.Generator) -> Tensor:
    return (2 * torch.randn(1, 9, size, size, generator=generator)).softmax(1)


def clustered(images: int, points: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Points around a few centers, so that no label hangs on rounding; and first centers."""
    centers = torch.randn(images, 2 * N_ANCHORS, CHANNELS, generator=generator)
    which = torch.randint(2 * N_ANCHORS, (images, points), generator=generator)
    own = centers.gather(1, which[..., None].expand(-1, -1, CHANNELS))
    noise = torch.randn(images, points, CHANNELS, generator=generator)
    init = torch.rand(images, points, generator=generator).argsort(1)[:, :N_ANCHORS]
    return own + 0.5 * noise, init


def cases(size: int, device: torch.device) -> list[Case]:
    g = torch.Generator().manual_seed(0)
    grid = size // CELL
    weights = association(size, g).to(device)
    features = torch.randn(1, CHANNELS, size, size, generator=g).to(device)
    tokens = torch.randn(1, CHANNELS, grid, grid, generator=g).to(device)
    pixels, pictures = f"{CHANNELS} channels, {size}x{size}", f"{size}x{size}"
    sp = [
        Case("sp_pool", pixels, lambda o: o.sp_pool(features, weights, CELL), True, 1e-5),
        Case("sp_diffuse", pixels, lambda o: o.sp_diffuse(tokens, weights, CELL), True, 1e-5),
        Case("superpixel_size", pictures, lambda o: o.superpixel_size(weights, CELL), True, 1e-6),
    ]
    return (
        sp
        + _kmeans_cases(grid**2, device, g)
        + _anchor_cases(grid**2, device, g)
        + _encoder_cases(grid, device, g)
        + _color_cases(size, device, g)
    )


def _kmeans_cases(points: int, device: torch.device, g: torch.Generator) -> list[Case]:
    def case(images: int, count: int) -> Case:
        x, init = (t.to(device) for t in clustered(images, count, g))
        shape = f"{count}x{CHANNELS}, K={N_ANCHORS}, batch {images}, {ITERATIONS} iterations"
        return Case("kmeans", shape, lambda o: o.kmeans(x, init, ITERATIONS, 0.0)[:2], True, 1e-4)

    return [case(1, points), case(16, points), case(1, 16 * points)]


def _anchor_cases(points: int, device: torch.device, g: torch.Generator) -> list[Case]:
    x = clustered(1, points, g)[0].to(device)
    labels = (torch.arange(points) % N_ANCHORS)[None].to(device)
    sizes = torch.rand(1, points, generator=g).to(device)
    logits = (3 * torch.randn(1, points, 313, generator=g)).to(device)
    anchors = torch.arange(N_ANCHORS)[None].to(device)
    centers = bin_centers(device)
    of = f"{points} superpixels, K={N_ANCHORS}"
    return [
        Case("kmeans_init", of, lambda o: o.kmeans_init(x, N_ANCHORS, 0, "k-means++"), False, 0),
        Case("select_anchors", of, lambda o: o.select_anchors(labels, sizes, N_ANCHORS), False, 0),
        Case("anchor_bins", of, lambda o: o.anchor_bins(logits, anchors, centers, 1), False, 0),
        Case(
            "choose_anchors",
            of,
            lambda o: o.choose_anchors(labels, sizes, logits, centers, N_ANCHORS, 1),
            False,
            0,
        ),
    ]


def encoder_weights(generator: torch.Generator) -> Tensor:
    """[6,49984] that keep tokens of order 1."""
    layers = len(_empty_encoder().layers)
    weights = torch.randn(layers, reference.ENCODER_PARAMETERS, generator=generator) / 8
    for row in weights:
        layer = reference.unpack_layer(row)
        layer["norm1.weight"] += 1
        layer["norm2.weight"] += 1
    return weights


def _empty_encoder() -> TokenEncoder:
    with torch.device("meta"):
        return TokenEncoder().eval().requires_grad_(False)


def encode_with(weights: Tensor, position: Tensor) -> Callable[[Any, Tensor], Tensor]:
    """A function of a namespace of ops and tokens; `_vectorized` stands for PyTorch's layers."""
    eager = _empty_encoder()
    for layer, row in zip(eager.layers, weights, strict=True):
        parameters = {name: part.t() for name, part in reference.unpack_layer(row).items()}
        layer.load_state_dict(parameters, assign=True)

    def run(o: Any, tokens: Tensor) -> Tensor:
        if o is _vectorized:
            return eager(tokens, position)
        return o.encoder(tokens, position.to(tokens.dtype), weights.to(tokens.dtype))

    return run


def _encoder_cases(grid: int, device: torch.device, g: torch.Generator) -> list[Case]:
    encode = encode_with(encoder_weights(g).to(device), position_encoding(grid, grid, device))

    def case(images: int) -> Case:
        tokens = torch.randn(images, grid**2, CHANNELS, generator=g).to(device)
        shape = f"{grid**2} tokens, batch {images}"
        return Case("encoder", shape, lambda o: encode(o, tokens), True, ENCODER_BOUND)

    return [case(1), case(16)]


def _color_cases(size: int, device: torch.device, g: torch.Generator) -> list[Case]:
    rgb = torch.randint(256, (1, 3, size, size), dtype=torch.uint8, generator=g).to(device)
    lightness = (100 * torch.rand(1, 1, size, size, generator=g)).to(device)
    ab = (80 * torch.rand(1, 2, size, size, generator=g) - 40).to(device)
    shape = f"{size}x{size}"
    return [
        Case("rgb_to_l", shape, lambda o: o.rgb_to_l(rgb), False, 1e-3),
        Case("lab_to_rgb", shape, lambda o: o.lab_to_rgb(lightness, ab, True), False, 1),
    ]


def verify(case: Case, name: str, rival: ModuleType) -> float:
    """The largest difference from the specification.

    Raises:
        AssertionError: it is above the case's bound.
    """
    worst = 0.0
    for expected, got in zip(
        _tensors(case.call(reference)), _tensors(case.call(rival)), strict=True
    ):
        worst = max(worst, (expected.double() - got.double()).abs().max().item())
    if not worst <= case.bound:
        raise AssertionError(
            f"{case.op} {case.shape}: {name} differs by {worst:.3g}, allowed {case.bound}"
        )
    return worst


def _tensors(result: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
    return (result,) if isinstance(result, Tensor) else result


def measure(case: Case, repeats: int, device: torch.device) -> Report:
    rivals = {"specification": reference, "disco_fast": ops}
    if case.vectorised:
        rivals["vectorised"] = _vectorized
    with torch.inference_mode():
        worst = {name: verify(case, name, rival) for name, rival in rivals.items()}
        calls = {name: (lambda rival=rival: case.call(rival)) for name, rival in rivals.items()}
        times = interleaved(calls, repeats, device)
    return {"op": case.op, "shape": case.shape, "max_difference": worst["disco_fast"], **times}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", type=torch.device, default=default_device())
    parser.add_argument("--size", type=int, default=256, help="side in pixels, a multiple of 16")
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--json", type=Path, metavar="FILE")
    a = parser.parse_args(argv)
    rows = [measure(case, a.repeats, a.device) for case in cases(a.size, a.device)]
    report = {
        "what": "ops",
        "context": context(a.device),
        "settings": {"size": a.size},
        "rows": rows,
    }
    print(_tables.ops([report]))
    if a.json:
        save(report, a.json)


if __name__ == "__main__":
    main()
