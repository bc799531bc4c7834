"""disco_fast against the official code, from a checkout of its repository.

    git clone https://github.com/MenghanXia/DisentangledImageColorization
    python benchmarks/official.py --official DisentangledImageColorization

Three questions. How much faster are the ops than the official functions? Does the published path of
this project, the baseline of `timing.py`, take the official network's time, whole and step by step?
And does the official network give the same chroma once `disco_fast.drop_in.patch` has put the ops
into it? fp32, random weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import numpy as np
import torch
from harness import N_ANCHORS, SIZE
from harness import published as published_ops
from harness.baselines import Official, load_official
from harness.clock import context, default_device, interleaved, seconds, summary
from harness.inputs import photographs
from harness.report import Report, heading, milliseconds, ratio, save, table
from harness.stages import (
    BLOCKS,
    LINES,
    REST,
    Stopwatch,
    breakdown,
    timed_modules,
    timed_network,
)
from torch import Tensor

from disco_fast import drop_in, ops
from disco_fast.checkpoints import random_network
from disco_fast.model import DISCO

CELL, ITERATIONS = 16, 20
POOLED = 66  # channels that the official network pools: 64 features and ab
BATCH = 16
PARITY = 1e-3  # largest difference in ab / 110
TOTAL = "whole network"


# ---- Ops -----------------------------------------------------------------------------------------


def measure_ops(official: Official, gray: Tensor, network: DISCO, repeats: int) -> list[Report]:
    """The three ops against the official functions, on what the network hands them."""
    with torch.inference_mode():
        out = network(gray[:BATCH], N_ANCHORS, kmeans_init=_draws(range(min(BATCH, len(gray)))))
        points = out.color_tokens.contiguous()
        return [
            _pool(official.basic, out.association[:1], repeats),
            _diffuse(official.basic, out.guided_tokens[:1], out.association[:1], repeats),
            _kmeans(official.clusterkit, points[:1], 0.0, repeats),
            _kmeans(official.clusterkit, points, 0.0, repeats),
            _kmeans(official.clusterkit, points[:1], 1e-4, repeats),
            _kmeans(official.clusterkit, points, 1e-4, repeats),
        ]


def _pool(basic: ModuleType, association: Tensor, repeats: int) -> Report:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1, POOLED, SIZE, SIZE, generator=generator).to(association.device)

    def official() -> tuple[Tensor, Tensor]:
        return basic.poolfeat(features, association, CELL, CELL, True)

    def fast() -> tuple[Tensor, Tensor]:
        return ops.sp_pool(features, association, CELL)

    for expected, got in zip(official(), fast(), strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
    times = interleaved({"official": official, "disco_fast": fast}, repeats, association.device)
    return {"op": "sp_pool", "shape": f"{POOLED} channels, {SIZE}x{SIZE}", **times}


def _diffuse(basic: ModuleType, tokens: Tensor, association: Tensor, repeats: int) -> Report:
    grid = SIZE // CELL
    maps = tokens.transpose(1, 2).unflatten(2, (grid, grid))  # the official network's view too

    def official() -> Tensor:
        return basic.upfeat(maps, association, CELL, CELL)

    def fast() -> Tensor:
        return ops.sp_diffuse(maps, association, CELL)

    torch.testing.assert_close(fast(), official(), rtol=0, atol=1e-5)
    times = interleaved({"official": official, "disco_fast": fast}, repeats, association.device)
    shape = f"{maps.shape[1]} channels, {SIZE}x{SIZE}"
    return {"op": "sp_diffuse", "shape": shape, **times}


def _kmeans(kit: ModuleType, points: Tensor, tol: float, repeats: int) -> Report:
    """Equal work: the same first centers for both, and as many iterations, which are counted.

    With tol = 0 the stopping rule never holds and both run all 20; with 1e-4 both stop as shipped.
    """
    init = _draws(range(len(points))).to(points.device)

    def official() -> list[Tensor]:
        starts = iter(points.gather(1, init[..., None].expand(-1, -1, points.shape[2])))
        with patch.object(kit, "initialize", lambda *_: next(starts)):
            return [
                kit.kmeans(
                    x, N_ANCHORS, tol=tol, tqdm_flag=False, iter_limit=ITERATIONS, device=x.device
                )[0]
                for x in points
            ]

    def fast() -> tuple[Tensor, Tensor, Tensor]:
        return ops.kmeans(points, init, ITERATIONS, tol)

    labels, _, iterations = fast()
    with patch.object(kit, "pairwise_distance", wraps=kit.pairwise_distance) as once_an_iteration:
        assert torch.equal(torch.stack(official()), labels), "kmeans: labels differ"
        assert once_an_iteration.call_count == iterations.sum(), "kmeans: iterations differ"
    mean = iterations.float().mean().item()
    count = f"{ITERATIONS} iterations" if tol == 0 else f"as shipped, {mean:.1f} iterations"
    shape = f"{points.shape[1]}x{points.shape[2]}, K={N_ANCHORS}, batch {len(points)}, {count}"
    times = interleaved({"official": official, "disco_fast": fast}, repeats, points.device)
    return {"op": "kmeans", "shape": shape, **times}


def _draws(seeds: Sequence[int]) -> Tensor:
    """[N,K] first centers that the official code draws after `np.random.seed(seed)`."""
    superpixels = (SIZE // CELL) ** 2
    draws = [np.random.RandomState(s).choice(superpixels, N_ANCHORS, replace=False) for s in seeds]
    return torch.from_numpy(np.stack(draws))


# ---- The whole network ---------------------------------------------------------------------------


def run_official(official: Official, gray: Tensor, seed: int) -> Tensor:
    """Chroma [1,2,H,W] of one image."""
    np.random.seed(seed)
    return official(gray)


def measure_network(
    official: Official, network: DISCO, gray: Tensor, device: torch.device
) -> dict[str, Report]:
    """Both networks step by step, in turns, from the same first centers."""
    watch = Stopwatch(device)

    def official_pass(index: int) -> dict[str, float]:
        with timed_official(official, watch):
            image = gray[index : index + 1]
            total = seconds(lambda: run_official(official, image, index), device)
            return {TOTAL: total, **breakdown(total, watch.read())}

    def published_pass(index: int) -> dict[str, float]:
        init = _draws([index]).to(device)
        with timed_network(network, watch):
            image = gray[index : index + 1]
            total = seconds(lambda: network(image, N_ANCHORS, kmeans_init=init), device)
            return {TOTAL: total, **breakdown(total, watch.read())}

    passes: dict[str, list[dict[str, float]]] = {"official": [], "published": []}
    turns = [("official", official_pass), ("published", published_pass)]
    with torch.inference_mode():
        for _, run in turns:
            run(0)  # warm-up
        for index in range(len(gray)):
            for name, run in turns:
                passes[name].append(run(index))
            turns.reverse()
    return {line: _compare(passes, line) for line in (TOTAL, *BLOCKS, *LINES, REST)}


def _compare(passes: dict[str, list[dict[str, float]]], line: str) -> Report:
    times = {name: np.array([p[line] for p in timed]) for name, timed in passes.items()}
    ratio = float(np.median(times["published"] / times["official"]))  # of neighbors in time
    return {**{name: summary(values) for name, values in times.items()}, "ratio": round(ratio, 3)}


@contextmanager
def timed_official(official: Official, watch: Stopwatch) -> Iterator[None]:
    """The official network's steps as spans, under the names of this project's."""
    model = official.network
    functions = [
        (official.basic, "poolfeat", "SP-Pooling"),
        (official.basic, "get_spixel_size", "SP-Pooling"),
        (official.basic, "upfeat", "SP-Diffusion"),
        (official.clusterkit, "batch_kmeans_pytorch", "K-Means"),
        (model.anchorGen, "_sample_anchor_colors", "choice and colors"),
        (model.colorLabeler, "encode_ab2ind", "choice and colors"),
    ]
    with ExitStack() as stack:
        for owner, name, line in functions:
            timed = watch.timed(line, getattr(owner, name))
            stack.enter_context(patch.object(owner, name, timed))
        stack.enter_context(timed_modules(model, watch))
        yield


# ---- Parity --------------------------------------------------------------------------------------


def parity(official: Official, gray: Tensor) -> Report:
    """Patch the official modules, for good, and compare ab with what they gave before.

    Raises:
        AssertionError: it differs by more than 1e-3.
    """
    with torch.inference_mode():
        before = [run_official(official, image[None], seed) for seed, image in enumerate(gray)]
        drop_in.patch(official.basic, official.clusterkit)
        after = [run_official(official, image[None], seed) for seed, image in enumerate(gray)]
    worst = (torch.cat(before) - torch.cat(after)).abs().max().item()
    assert worst <= PARITY, f"drop_in.patch changes ab by {worst:.3g}, allowed {PARITY}"
    return {"ab_max": worst, "pictures": len(gray)}


def measure(device: torch.device, folder: Path, images: int, repeats: int) -> Report:
    """All three questions; the last changes the official modules."""
    network = random_network()
    official = load_official(folder, network.state_dict(), device)
    network = network.to(device)
    network.ops = published_ops
    gray, made = photographs(max(images, BATCH), SIZE)
    gray = gray.to(device)
    return {
        "what": "official",
        "context": context(device),
        "settings": {"size": SIZE, "batch": 1, "anchors": N_ANCHORS, "precision": "fp32"},
        "inputs": made,
        "ops": measure_ops(official, gray, network, repeats),
        "network": measure_network(official, network, gray[:images], device),
        "parity": parity(official, gray[:images]),
    }


# ---- Table ---------------------------------------------------------------------------------------


def official_table(reports: Sequence[Report]) -> str:
    """The official functions, disco_fast and the published path as this project has it."""
    parts = []
    for report in reports:
        parts += heading(report, reports)
        rows = [
            [
                f"`{row['op']}` {row['shape']}",
                milliseconds(row["official"]),
                milliseconds(row["disco_fast"]),
                ratio(row["official"], row["disco_fast"]),
            ]
            for row in report["ops"]
        ]
        parts.append(table(["ms", "official", "disco_fast", "speedup"], rows))
        rows = [
            [
                line,
                milliseconds(row["official"]),
                milliseconds(row["published"]),
                f"{row['ratio']:.2f}",
            ]
            for line, row in report["network"].items()
        ]
        header = ["ms", "official network", "published path", "published / official"]
        parts.append(table(header, rows))
        parts.append(
            "With `drop_in.patch`, the same seeds and the official network, ab / 110 differs by at "
            f"most {report['parity']['ab_max']:.1e}."
        )
    return "\n\n".join(parts)


TABLES = {"official": official_table}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--official", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--device", type=torch.device, default=default_device())
    parser.add_argument("--images", type=int, default=20, help="for the whole network")
    parser.add_argument("--repeats", type=int, default=50, help="of each op")
    parser.add_argument("--json", type=Path, metavar="FILE")
    a = parser.parse_args(argv)
    report = measure(a.device, a.official, a.images, a.repeats)
    print(official_table([report]))
    if a.json:
        save(report, a.json)


if __name__ == "__main__":
    main()
