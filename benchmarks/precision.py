"""The price of reduced precision: color differences from fp32 on photographs.

    python benchmarks/precision.py --images 5  # a quick look
    python benchmarks/precision.py --json benchmarks/results/precision-cpu.json

CIEDE2000 between the RGB images (uint8, as a user gets them) of the same engine in fp32 and in a
reduced precision: once as it comes ("free"), and once with the anchors and their colors of fp32
("forced"), so that what rounding does to colors is told from what it does to the choice of
anchors.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import N_ANCHORS
from harness.clock import context, default_device
from harness.inputs import PHOTOGRAPHS, is_size, know_ranges, photographs, runs_here
from harness.report import NONE, Report, caption, save, table
from torch import Tensor

from disco_fast import ops
from disco_fast._extras import need
from disco_fast.checkpoints import COMPACT, load_checkpoint, random_network
from disco_fast.color import AB_SCALE
from disco_fast.engine import Engine

REDUCED = {"cpu": ("bf16", "int8"), "cuda": ("bf16", "fp16")}
RANDOM = Path("random")
KINDS = {"forced": "anchors and colors of fp32", "free": "its own anchors"}
FIGURES = ("mean", "median", "p95", "pixels_p95")
SHARES = {
    "picture": "{} of the images keep all anchors",
    "superpixel": "{} of the anchors stay",
    "color": "{} of those keep their color bin",
}

Choice = tuple[Tensor, Tensor]  # anchors [1,K] and their color bins [1,1,K]


@contextmanager
def choosing(engine: Engine, choice: Choice | None) -> Iterator[list[Choice]]:
    """Force a choice of anchors on an engine, or none; what it chose itself is in the list."""
    network: Any = engine.network
    choose, chosen = network._choose, []

    def instead(*arguments: object) -> tuple:
        own = choose(*arguments)
        chosen.append(own[:2])
        return own if choice is None else (*choice, None)

    network._choose = instead
    try:
        yield chosen
    finally:
        network._choose = choose


def colorize(engine: Engine, gray: Tensor, choice: Choice | None = None) -> tuple[Tensor, Choice]:
    """RGB [1,3,H,W] uint8 of an image, and the anchors that the engine itself chose."""
    with choosing(engine, choice) as chosen:
        ab = engine(gray, N_ANCHORS).ab
    return ops.lab_to_rgb(50 * gray + 50, AB_SCALE * ab, True), chosen[0]


def color_difference(first: Tensor, second: Tensor) -> np.ndarray:
    """CIEDE2000 of every pixel, [H,W]."""
    color = need("bench", "skimage.color")
    labs = (color.rgb2lab(rgb[0].permute(1, 2, 0).cpu().numpy()) for rgb in (first, second))
    return color.deltaE_ciede2000(*labs).astype(np.float32)


def agreement(expected: Choice, got: Choice) -> dict[str, list[bool]]:
    """What two choices of anchors for an image have in common, in whatever order.

    Returns:
        picture: whether all anchors are the same superpixels; superpixel: of every anchor expected,
            whether it is an anchor; color: of every one that is, whether it has the same bin.
    """
    (anchors, bins), (other, other_bins) = ([x.flatten() for x in c] for c in (expected, got))
    same = anchors[:, None] == other  # [K,K]
    found = same.any(1)
    colors = (same & (bins[:, None] == other_bins)).any(1)
    return {
        "picture": [torch.equal(anchors.sort().values, other.sort().values)],
        "superpixel": found.tolist(),
        "color": colors[found].tolist(),
    }


def compare(exact: Engine, reduced: Engine, images: Sequence[Tensor]) -> Report:
    """Differences of a reduced precision and shares of equal anchors, over all images."""
    differences: dict[str, list[np.ndarray]] = {"forced": [], "free": []}
    equal: dict[str, list[bool]] = {name: [] for name in SHARES}
    for gray in images:
        expected, choice = colorize(exact, gray)
        free, own = colorize(reduced, gray)
        forced, _ = colorize(reduced, gray, choice)
        differences["free"].append(color_difference(expected, free))
        differences["forced"].append(color_difference(expected, forced))
        for name, ones in agreement(choice, own).items():
            equal[name] += ones
    return {
        "precision": reduced.precision,
        **{name: summary(found) for name, found in differences.items()},
        "same": {name: share(ones) for name, ones in equal.items()},
    }


def summary(differences: Sequence[np.ndarray]) -> Report:
    """Of the means of the images, and of all pixels of all images."""
    means = np.array([picture.mean(dtype=np.float64) for picture in differences])
    pixels = np.concatenate([picture.ravel() for picture in differences])
    figures = {
        "mean": means.mean(),
        "median": np.median(means),
        "p95": np.percentile(means, 95),
        "max": means.max(),
        "pixels_p95": np.percentile(pixels, 95),
    }
    return {name: round(float(figure), 4) for name, figure in figures.items()}


def share(ones: Sequence[bool]) -> float | None:
    """How many are true, 0 to 1; None of none."""
    return round(sum(ones) / len(ones), 4) if ones else None


def measure(device: torch.device, checkpoint: Path, images: int, size: int, folder: Path) -> Report:
    """Every reduced precision of the device."""
    need("bench", "skimage.color")
    network = random_network() if checkpoint == RANDOM else load_checkpoint(checkpoint)
    reduced = list(filter(runs_here, REDUCED[device.type]))
    if "int8" in reduced and network.ranges is None:
        know_ranges(network)
    exact = Engine(network, "fp32", device)
    gray, made = photographs(images, size, folder)
    return {
        "what": "precision",
        "context": context(device),
        "settings": {"size": size, "anchors": N_ANCHORS, "checkpoint": checkpoint.name},
        "inputs": made,
        "rows": [
            compare(exact, Engine(network, precision, device), gray.to(device).split(1))
            for precision in reduced
        ],
    }


# ---- Table ---------------------------------------------------------------------------------------


def precision_table(reports: Sequence[Report]) -> str:
    """Color differences by precision, and shares of anchors."""
    header = ["CIEDE2000 from fp32", "mean", "median image", "95% of images", "95% of pixels"]
    parts = []
    for report in reports:
        rows = [
            [f"{row['precision']}, {of}", *(f"{row[kind][name]:.2f}" for name in FIGURES)]
            for row in report["rows"]
            for kind, of in KINDS.items()
        ]
        what = f"Network {report['settings']['checkpoint']}, {report['inputs']}."
        shares = " ".join(map(_shares, report["rows"]))
        parts += [table(header, rows), f"{what} {shares} {caption(report)}"]
    return "\n\n".join(parts)


TABLES = {"precision": precision_table}


def _shares(row: Report) -> str:
    parts = [
        text.format(NONE if share is None else f"{share:.1%}")
        for name, text in SHARES.items()
        for share in [row["same"][name]]
    ]
    return f"In {row['precision']}, {', '.join(parts[:-1])}, and {parts[-1]}."


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", type=torch.device, default=default_device())
    parser.add_argument(
        "--checkpoint", type=Path, default=COMPACT, metavar="FILE", help="or 'random'"
    )
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--size", type=int, default=256, help="side in pixels, a multiple of 16")
    parser.add_argument("--photographs", type=Path, default=PHOTOGRAPHS, metavar="FOLDER")
    parser.add_argument("--json", type=Path, metavar="FILE")
    a = parser.parse_args(argv)
    if a.images < 1:
        parser.error(f"--images: expected a number from 1, got {a.images}")
    if not is_size(a.size):
        parser.error(f"--size {a.size}: expected a multiple of 16, at least 48")
    report = measure(a.device, a.checkpoint, a.images, a.size, a.photographs)
    print(precision_table([report]))
    if a.json:
        save(report, a.json)


if __name__ == "__main__":
    main()
