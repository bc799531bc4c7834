"""The paper's efficiency tables, measured here: the published path against disco_fast.

    python benchmarks/timing.py --images 3  # a quick look
    python benchmarks/timing.py --json benchmarks/results/timing-cpu-auto.json

The published path is the network on `disco_fast.reference` (a Python loop of K-Means per image,
nine passes to pool and nine to spread) with first centers drawn at random; `official.py` compares
it with the official code. disco_fast is validated against it first. Both take the same inputs, in
turns.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import _photographs
import _tables
import torch
from _measure import Report, context, default_device, save, seconds, summary
from _stages import (
    BLOCKS,
    LINES,
    REST,
    Stopwatch,
    breakdown,
    multiply_accumulates,
    parameters,
    timed_network,
)
from _validate import validate
from torch import Tensor

from disco_fast import reference
from disco_fast.checkpoints import random_network
from disco_fast.engine import Engine
from disco_fast.engine.precision import PRECISIONS
from disco_fast.model import DISCO

Forward = Callable[[Tensor, Tensor], object]

N_ANCHORS = 8
VALIDATED = 4  # pictures
WARM_UP = 2  # passes
TOTAL = "total"


class Rival:
    """A way to run the network, its passes timed whole and by stage.

    Args:
        network: what is instrumented.
        forward: takes gray and first centers.
        device: where it runs.
        steps: if `forward` cannot be timed by stage, for it is one launch: the same launched step
            by step, in a pass of its own.
    """

    def __init__(
        self,
        network: DISCO,
        forward: Forward,
        device: torch.device,
        steps: Forward | None = None,
    ):
        self._network, self._forward, self._device = network, forward, device
        self._steps = steps
        self._watch = Stopwatch(device)
        self._passes: list[dict[str, float]] = []
        self._iterations: list[int] = []

    def run(self, gray: Tensor, init: Tensor) -> None:
        """One pass over a batch; times are kept per image."""
        stepwise = self._steps or self._forward
        with torch.inference_mode():
            with timed_network(self._network, self._watch) as ops:
                total = seconds(lambda: stepwise(gray, init), self._device)
                times = breakdown(total, self._watch.read())
            if self._steps:
                total = seconds(lambda: self._forward(gray, init), self._device)
        times[TOTAL] = total
        self._passes.append({name: time / len(gray) for name, time in times.items()})
        self._iterations += ops.iterations()

    def forget(self) -> None:
        """Drop what was timed so far."""
        self._passes.clear()
        self._iterations.clear()

    def report(self, gray: Tensor) -> Report:
        """Weights, multiply-accumulates, milliseconds and K-Means iterations, per picture."""
        counts = self._iterations
        return {
            "parameters": parameters(self._network),
            "multiply_accumulates": multiply_accumulates(self._network, gray),
            "total": self._summary(TOTAL),
            "blocks": {name: self._summary(name) for name in BLOCKS},
            "anchor_stage": {name: self._summary(name) for name in (*LINES, REST)},
            "kmeans_iterations": {
                "mean": round(sum(counts) / len(counts), 2),
                "min": min(counts),
                "max": max(counts),
            }
            if counts
            else {},
        }

    def _summary(self, name: str) -> Report:
        return summary(times[name] for times in self._passes)


def random_centers(images: int, superpixels: int) -> Tensor:
    """[images,K] first centers as the official code draws them: different superpixels at random."""
    generator = torch.Generator().manual_seed(0)
    draws = [torch.randperm(superpixels, generator=generator)[:N_ANCHORS] for _ in range(images)]
    return torch.stack(draws)


def batches(batch: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(tensor.split(batch) for tensor in tensors), strict=True)


def measure(
    device: torch.device, images: int, size: int, batch: int, precision: str, folder: Path
) -> Report:
    """Validate, then time; the report's schema stands in README.md."""
    network = random_network().to(device)
    fast = Engine(network, precision, device)
    network.ops = reference
    gray, made = _photographs.load(images, size, folder)
    init = random_centers(images, (size // network.cell_size) ** 2)
    gray, init = gray.to(device), init.to(device)
    differences = validate(network, fast, fast.precision, gray[:VALIDATED], init[:VALIDATED])

    published = Rival(network, lambda x, i: network(x, N_ANCHORS, kmeans_init=i), device)
    steps = (lambda x, _: fast(x, N_ANCHORS)) if device.type == "cuda" else None
    engine = Rival(fast.network, lambda x, _: fast.chroma(x, N_ANCHORS), device, steps)
    rivals = [published, engine]
    for _ in range(WARM_UP):
        for rival in rivals:
            rival.run(gray[:batch], init[:batch])
    for rival in rivals:
        rival.forget()
    for pictures, centers in batches(batch, gray, init):
        for rival in rivals:
            rival.run(pictures, centers)
        rivals.reverse()  # so that noise hits both alike
    return {
        "what": "timing",
        "context": context(device),
        "settings": {
            "size": size,
            "batch": batch,
            "anchors": N_ANCHORS,
            "precision": fast.precision,
        },
        "inputs": made,
        "validation": differences,
        "published": published.report(gray[:1]),
        "disco_fast": engine.report(gray[:1]),
    }


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", type=torch.device, default=default_device())
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--size", type=int, default=256, help="side in pixels, a multiple of 16")
    parser.add_argument("--batch", type=int, default=1, help="divides the number of images")
    parser.add_argument("--precision", choices=PRECISIONS, default="auto", help="of disco_fast")
    parser.add_argument("--photographs", type=Path, default=_photographs.FOLDER, metavar="FOLDER")
    parser.add_argument("--json", type=Path, metavar="FILE")
    chosen = parser.parse_args(argv)
    if chosen.images < 1 or chosen.batch < 1 or chosen.images % chosen.batch:
        parser.error(f"--images {chosen.images} is no multiple of --batch {chosen.batch}")
    if chosen.size < 48 or chosen.size % 16:
        parser.error(f"--size {chosen.size}: expected a multiple of 16, at least 48")
    return chosen


def main(argv: Sequence[str] | None = None) -> None:
    a = arguments(argv)
    report = measure(a.device, a.images, a.size, a.batch, a.precision, a.photographs)
    for table in (_tables.figure13, _tables.anchor_stage, _tables.table5):
        print(table([report]), end="\n\n")
    if a.json:
        save(report, a.json)


if __name__ == "__main__":
    main()
