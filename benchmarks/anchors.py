"""Anchors by hand: what recoloring costs, what one anchor's color changes, how many "auto" finds.

    python benchmarks/anchors.py --repeats 5  # a quick look
    python benchmarks/anchors.py --truth DIR --last 50 --json benchmarks/results/anchors-cpu.json

DIR holds photographs as for `disco-fast train`; without it those of `examples/` are taken.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from harness import N_ANCHORS, SIZE
from harness.clock import context, default_device, interleaved
from harness.inputs import PHOTOGRAPHS
from harness.report import Report, caption, digits, milliseconds, save, table
from torch import Tensor

from disco_fast import Analysis, Anchor, Colorizer
from disco_fast.color import bin_centers
from disco_fast.io.photographs import Photographs, middle_square, to_lab

NETWORKS = {"compact": None, "width 1": "random"}  # random weights cost what trained ones cost


def measure_recoloring(device: torch.device, image: Tensor, repeats: int) -> Iterator[Report]:
    """A full run against coloring again by one changed anchor, for both sizes of the network."""
    for name, checkpoint in NETWORKS.items():
        colorizer = Colorizer(checkpoint, device)
        analysis = colorizer.analyze(image, n_anchors=N_ANCHORS)
        changed = [analysis.anchors[0].recolored("#c03030"), *analysis.anchors[1:]]
        check_recoloring(colorizer, image, changed)
        yield {
            "network": name,
            "precision": colorizer.precision,
            "times": interleaved(
                {
                    "full": partial(colorizer.colorize, image, n_anchors=N_ANCHORS),
                    "recolored": partial(analysis.colorize, changed),
                },
                repeats,
                device,
            ),
        }


def check_recoloring(colorizer: Colorizer, image: Tensor, changed: Sequence[Anchor]) -> None:
    """The analysis gives what a full run with these anchors gives.

    Raises:
        ValueError: it does not.
    """
    afresh = colorizer.colorize(image, anchors=changed)
    again = colorizer.analyze(image, n_anchors=N_ANCHORS).colorize(changed)
    if not torch.equal(afresh, again):
        raise ValueError("recoloring differs from a full run with the same anchors")


def measure_influence(analysis: Analysis) -> Iterator[tuple[float, float]]:
    """For each anchor: mean change of ab in its own cluster, and in all others.

    The anchor gets that one of its ten probable colors that is farthest from the one it has.
    """
    centers, before = bin_centers("cpu"), _ab(analysis.colorize())
    for place, anchor in enumerate(analysis.anchors):
        bins = [swatch.bin for swatch in anchor.palette]
        away = (centers[bins] - centers[anchor.bin]).square().sum(dim=1).argmax()
        changed = list(analysis.anchors)
        changed[place] = anchor.recolored(anchor.palette[int(away)])
        change = np.hypot(*np.moveaxis(_ab(analysis.colorize(changed)) - before, 2, 0))
        own = analysis.cluster(anchor).numpy()
        if own.any() and not own.all():
            yield float(change[own].mean()), float(change[~own].mean())


def _ab(image: Tensor) -> np.ndarray:
    """[3,H,W] uint8 as ab, (H, W, 2)."""
    return to_lab(image.permute(1, 2, 0).numpy())[..., 1:]


def influences(colorizer: Colorizer, images: Sequence[Tensor]) -> Report:
    """Over all anchors of all images."""
    found = [
        list(measure_influence(colorizer.analyze(image, n_anchors=N_ANCHORS))) for image in images
    ]
    own, others = np.array([pair for pairs in found for pair in pairs]).T
    ratios = [sum(mine for mine, _ in pairs) / sum(rest for _, rest in pairs) for pairs in found]
    return {
        "anchors": len(own),
        "own": round(float(own.mean()), 3),
        "others": round(float(others.mean()), 3),
        "ratio": {
            name: round(float(np.percentile(ratios, share)), 2)
            for name, share in (("least", 0), ("median", 50), ("most", 100))
        },
    }


def counts(colorizer: Colorizer, images: Sequence[Tensor]) -> Report:
    """How many anchors "auto" places, and how near the true colors bring the image then."""
    psnr: dict[str, list[float]] = {"auto": [], str(N_ANCHORS): []}
    tally: Counter[int] = Counter()
    for image in images:
        for kind, values in psnr.items():
            count = "auto" if kind == "auto" else int(kind)
            analysis = colorizer.analyze(image, n_anchors=count)
            if kind == "auto":
                tally[len(analysis.anchors)] += 1
            made = analysis.colorize([in_true_color(analysis, a, image) for a in analysis.anchors])
            error = ((made.double() - image.double()) / 255).square().mean()
            values.append(float(-10 * error.log10()))
    return {
        "tally": {str(count): tally[count] for count in sorted(tally)},
        "psnr": {kind: round(float(np.mean(values)), 2) for kind, values in psnr.items()},
    }


def in_true_color(analysis: Analysis, anchor: Anchor, image: Tensor) -> Anchor:
    """The anchor in the mean color of its superpixel's pixels."""
    inside = image[:, analysis.mask(anchor)]
    if not inside.numel():
        return anchor
    return anchor.recolored([round(value) for value in inside.float().mean(dim=1).tolist()])


def squares(photographs: Photographs, numbers: Sequence[int]) -> list[Tensor]:
    """Middle squares, [3,256,256] uint8 each."""
    read = (middle_square(photographs.read(number), SIZE) for number in numbers)
    return [torch.from_numpy(pixels).permute(2, 0, 1).contiguous() for pixels in read]


def measure(device: torch.device, truth: Path, last: int, repeats: int) -> Report:
    """All three."""
    photographs, examples = Photographs(truth), Photographs(PHOTOGRAPHS)
    chosen = range(len(photographs))[-last:] if last else range(len(photographs))
    images = squares(photographs, chosen)
    colorizer = Colorizer(device=device)
    shown = squares(examples, range(len(examples)))
    return {
        "what": "anchors",
        "context": context(device),
        "settings": {"size": SIZE, "anchors": N_ANCHORS},
        "inputs": f"{len(images)} photographs",
        "recoloring": list(measure_recoloring(device, shown[0], repeats)),
        "influence": influences(colorizer, images),
        "auto": counts(colorizer, images),
        "examples": {
            Path(examples.name(number)).stem: len(colorizer.analyze(p, n_anchors="auto").anchors)
            for number, p in enumerate(shown)
        },
    }


# ---- Tables --------------------------------------------------------------------------------------


def recoloring(reports: Sequence[Report]) -> str:
    """What coloring again by one changed anchor costs beside a full run."""
    parts = []
    for report in reports:
        rows = []
        for row in report["recoloring"]:
            times = row["times"]
            share = times["recolored"]["median"] / times["full"]["median"]
            cells = [milliseconds(times[name]) for name in ("full", "recolored")]
            rows.append([f"{row['network']}, {row['precision']}", *cells, f"{share:.0%}"])
        header = ["ms", "full run", "recolored", "share"]
        parts += [table(header, rows), f"Median (95th percentile). {caption(report)}"]
    return "\n\n".join(parts)


def influence(reports: Sequence[Report]) -> str:
    """How far one anchor's color reaches."""
    parts = []
    for report in reports:
        found = report["influence"]
        ratio = found["ratio"]
        rows = [
            ["its own cluster", f"{found['own']:.2f}"],
            ["all other clusters", f"{found['others']:.2f}"],
            ["ratio, median photograph", f"{digits(ratio['median'])}x"],
            ["ratio, least and most", f"{digits(ratio['least'])}x, {digits(ratio['most'])}x"],
        ]
        header = ["one anchor in another of its ten colors", "mean change of ab"]
        parts += [table(header, rows), f"{found['anchors']} anchors of {report['inputs']}."]
    return "\n\n".join(parts)


def auto(reports: Sequence[Report]) -> str:
    """How many anchors are found."""
    parts = []
    for report in reports:
        found, fixed = report["auto"], str(report["settings"]["anchors"])
        counts = {int(count): number for count, number in found["tally"].items()}
        mean = sum(k * n for k, n in counts.items()) / sum(counts.values())
        header = ["anchors found", *map(str, counts)]
        examples = ", ".join(f"{name} {count}" for name, count in report["examples"].items())
        psnr = found["psnr"]
        what = (
            f"Mean {mean:.1f}. With the true colors of their superpixels, these anchors reach "
            f"{psnr['auto']:.2f} dB, and {fixed} anchors {psnr[fixed]:.2f} dB. The photographs in "
            f"`examples/`: {examples}."
        )
        parts += [table(header, [["photographs", *map(str, counts.values())]]), what]
    return "\n\n".join(parts)


TABLES = {"recoloring": recoloring, "influence": influence, "auto": auto}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", type=torch.device, default=default_device())
    parser.add_argument("--truth", type=Path, default=PHOTOGRAPHS, metavar="DIR")
    parser.add_argument("--last", type=int, default=0, metavar="N", help="only the last N of DIR")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--json", type=Path, metavar="FILE")
    a = parser.parse_args(argv)
    report = measure(a.device, a.truth, a.last, a.repeats)
    for show in TABLES.values():
        print(show([report]), end="\n\n")
    if a.json:
        save(report, a.json)


if __name__ == "__main__":
    main()
