"""The paper's efficiency tables, measured here: the published path against disco_fast.

    python benchmarks/timing.py --images 3  # a quick look
    python benchmarks/timing.py --json benchmarks/results/timing-cpu-auto.json

The published path is the network on `harness/published.py` (a Python loop of K-Means per image,
nine passes to pool and nine to spread) with first centers drawn at random; `official.py` compares
it with the official code. disco_fast is validated against it first. Both take the same inputs, in
turns.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from harness import N_ANCHORS
from harness import published as published_ops
from harness.baselines import VALIDATED, validate
from harness.clock import context, default_device, seconds, summary
from harness.inputs import PHOTOGRAPHS, is_size, know_ranges, photographs, random_centers
from harness.report import NONE, Report, by_machine, machine, milliseconds, ratio, save, table
from harness.stages import (
    ANCHORS,
    BLOCKS,
    FEATURES,
    GENERATION,
    LINES,
    REST,
    Stopwatch,
    breakdown,
    multiply_accumulates,
    parameters,
    timed_network,
)
from torch import Tensor

from disco_fast.checkpoints import random_network
from disco_fast.engine import Engine
from disco_fast.engine.precision import PRECISIONS
from disco_fast.model import DISCO

Forward = Callable[[Tensor, Tensor], object]

WARM_UP = 2  # passes
TOTAL = "total"

# The paper's own figures (section 5.5), one 256x256 image at a time: parameters in millions,
# multiply-accumulates ("FLOP") in G, time in ms.
PAPER_DEVICE = "NVIDIA V100"
FIGURE_13 = {
    FEATURES: (34.80, 71.84, 18.57),
    ANCHORS: (0.66, 0.27, 39.94),
    GENERATION: (7.60, 55.75, 14.23),
}
TABLE_5 = {
    "CIColor [2016]": (32.24, 41.78, 7.29),
    "UGColor [2017]": (34.19, 75.22, 15.88),
    "Deoldify [2019]": (218.22, 141.32, 29.85),
    "InstColor [2020]": (176.89, 526.09, 184.75),
    "ChromaGAN [2020]": (47.52, 18.85, 3.65),
    "ColTran [2021]": (70.71, 5782.0, 110708.47),
    "DISCO [2022]": (43.06, 127.86, 72.74),
}


class Rival:
    """A way to run the network, its passes timed whole and by stage.

    Args:
        network: what is instrumented.
        forward: takes gray and first centers.
        device: where it runs.
        counted: whose weights and products are counted, if not those of `network`.
        steps: if `forward` cannot be timed by stage, for it is one launch: the same launched step
            by step, in a pass of its own.
    """

    def __init__(
        self,
        network: DISCO,
        forward: Forward,
        device: torch.device,
        counted: DISCO | None = None,
        steps: Forward | None = None,
    ):
        self._network, self._forward, self._device = network, forward, device
        self._counted = counted or network
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
        """Weights, multiply-accumulates, milliseconds and K-Means iterations, per image."""
        counts = self._iterations
        return {
            "parameters": parameters(self._counted),
            "multiply_accumulates": multiply_accumulates(self._counted, gray),
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


def batches(batch: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(tensor.split(batch) for tensor in tensors), strict=True)


def measure(
    device: torch.device, images: int, size: int, batch: int, precision: str, folder: Path
) -> Report:
    """Validate, then time both."""
    network = random_network().to(device)
    if precision == "int8":
        know_ranges(network)
    fast = Engine(network, precision, device)
    # Weights in 8 bits are no parameters, and torch does not count products of bytes.
    counted = Engine(network, "fp32", device).network if precision == "int8" else fast.network
    network.ops = published_ops
    gray, made = photographs(images, size, folder)
    init = random_centers(images, (size // network.cell_size) ** 2)
    gray, init = gray.to(device), init.to(device)
    differences = validate(network, fast, fast.precision, gray[:VALIDATED], init[:VALIDATED])

    published = Rival(network, lambda x, i: network(x, N_ANCHORS, kmeans_init=i), device)
    steps = (lambda x, _: fast(x, N_ANCHORS)) if device.type == "cuda" else None
    engine = Rival(fast.network, lambda x, _: fast.chroma(x, N_ANCHORS), device, counted, steps)
    rivals = [published, engine]
    for _ in range(WARM_UP):
        for rival in rivals:
            rival.run(gray[:batch], init[:batch])
    for rival in rivals:
        rival.forget()
    for images_in, centers in batches(batch, gray, init):
        for rival in rivals:
            rival.run(images_in, centers)
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


# ---- Tables --------------------------------------------------------------------------------------

NOTE = "Median (95th percentile) per image."


def figure13(reports: Sequence[Report]) -> str:
    """The paper's Figure 13."""
    rows = []
    for block, (millions, giga, ms) in FIGURE_13.items():
        weights = _entry(reports, "parameters", block, lambda n: f"{n / 1e6:.2f} M")
        products = _entry(reports, "multiply_accumulates", block, lambda n: f"{n / 1e9:.2f} G")
        rows += [
            [block, "parameters", f"{millions:.2f} M", *weights],
            ["", "multiply-accumulates", f"{giga:.2f} G", *products],
            ["", "ms", f"{ms:.2f}", *_entry(reports, "blocks", block, milliseconds)],
        ]
    whole = f"{sum(ms for _, _, ms in FIGURE_13.values()):.2f}"
    totals = [milliseconds(report[key][TOTAL]) for report, key in _columns(reports)]
    rows.append(["**whole network**", "ms", whole, *totals])
    shown = table(["", "", f"paper, {PAPER_DEVICE}", *_heads(reports)], rows)
    speed_ups = [
        f"{ratio(report['published'][TOTAL], report['disco_fast'][TOTAL])}"
        f" ({_path_name(report, 'disco_fast', reports)})"
        for report in reports
    ]
    return f"{shown}\n\n{NOTE} Speedup over the published path: {', '.join(speed_ups)}."


def anchor_stage(reports: Sequence[Report]) -> str:
    """Anchor construction, split further."""
    rows = [[line, *_entry(reports, "anchor_stage", line, milliseconds)] for line in (*LINES, REST)]
    rows.append([f"**{ANCHORS}**", *_entry(reports, "blocks", ANCHORS, milliseconds)])
    counts = [_iterations(report[key]["kmeans_iterations"]) for report, key in _columns(reports)]
    rows.append(["K-Means iterations", *counts])
    return f"{table(['ms', *_heads(reports)], rows)}\n\n{NOTE}"


def table5(reports: Sequence[Report]) -> str:
    """The paper's Table 5 and this project's rows."""
    rows = [
        [name, PAPER_DEVICE, *(f"{value:.2f}" for value in values)]
        for name, values in TABLE_5.items()
    ]
    for report, key in _columns(reports):
        path = report[key]
        costs = [
            sum(path["parameters"].values()) / 1e6,
            sum(path["multiply_accumulates"].values()) / 1e9,
        ]
        cells = [*(f"{cost:.2f}" for cost in costs), milliseconds(path[TOTAL])]
        rows.append([f"**{_path_name(report, key, [report])}**", machine(report), *cells])
    header = ["", "device", "parameters, M", "multiply-accumulates, G", "ms"]
    return f"{table(header, rows)}\n\nRows with {PAPER_DEVICE} are the paper's own. {NOTE}"


TABLES = {
    "figure13": by_machine(figure13),
    "anchor_stage": by_machine(anchor_stage),
    "table5": table5,
}


def _columns(reports: Sequence[Report]) -> list[tuple[Report, str]]:
    """What is shown of each report: disco_fast always, the published path once for a machine."""
    columns: list[tuple[Report, str]] = []
    machines: set[str] = set()
    for report in reports:
        if machine(report) not in machines:
            columns.append((report, "published"))
            machines.add(machine(report))
        columns.append((report, "disco_fast"))
    return columns


def _entry(
    reports: Sequence[Report], section: str, name: str, show: Callable[[Any], str]
) -> list[str]:
    """One entry of every path, a cell each."""
    return [show(report[key][section].get(name)) for report, key in _columns(reports)]


def _iterations(counts: Report) -> str:
    return f"{counts['mean']:.1f} ({counts['min']} to {counts['max']})" if counts else NONE


def _heads(reports: Sequence[Report]) -> list[str]:
    return [_path_name(report, key, reports) for report, key in _columns(reports)]


def _path_name(report: Report, key: str, reports: Sequence[Report]) -> str:
    """A column's name; with the machine where the reports are from several."""
    settings = report["settings"]
    name = f"disco_fast {settings['precision']}" if key == "disco_fast" else "published path fp32"
    batch = f", batch {settings['batch']}" if settings["batch"] > 1 else ""
    several = len({machine(report) for report in reports}) > 1
    return name + batch + (f", {machine(report)}" if several else "")


# ---- Command line --------------------------------------------------------------------------------


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", type=torch.device, default=default_device())
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--size", type=int, default=256, help="side in pixels, a multiple of 16")
    parser.add_argument("--batch", type=int, default=1, help="divides the number of images")
    parser.add_argument("--precision", choices=PRECISIONS, default="auto", help="of disco_fast")
    parser.add_argument("--photographs", type=Path, default=PHOTOGRAPHS, metavar="FOLDER")
    parser.add_argument("--json", type=Path, metavar="FILE")
    chosen = parser.parse_args(argv)
    if chosen.images < 1 or chosen.batch < 1 or chosen.images % chosen.batch:
        parser.error(f"--images {chosen.images} is no multiple of --batch {chosen.batch}")
    if not is_size(chosen.size):
        parser.error(f"--size {chosen.size}: expected a multiple of 16, at least 48")
    return chosen


def main(argv: Sequence[str] | None = None) -> None:
    a = arguments(argv)
    report = measure(a.device, a.images, a.size, a.batch, a.precision, a.photographs)
    for show in TABLES.values():
        print(show([report]), end="\n\n")
    if a.json:
        save(report, a.json)


if __name__ == "__main__":
    main()
