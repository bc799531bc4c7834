"""Anchors by hand: what recolouring costs, what one anchor's colour changes, how many "auto" finds.

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

import _anchors_report
import _photographs
import numpy as np
import torch
from _measure import Report, context, default_device, interleaved, save
from torch import Tensor

from disco_fast import Analysis, Anchor, Colorizer
from disco_fast.color import bin_centers
from disco_fast.io.photographs import Photographs, middle_square, to_lab

SIZE, N_ANCHORS = 256, 8
NETWORKS = {"compact": None, "width 1": "random"}  # random weights cost what trained ones cost


def recoloring(device: torch.device, picture: Tensor, repeats: int) -> Iterator[Report]:
    """A full run against colouring again by one changed anchor, for both sizes of the network."""
    for name, checkpoint in NETWORKS.items():
        colorizer = Colorizer(checkpoint, device)
        analysis = colorizer.analyze(picture, n_anchors=N_ANCHORS)
        changed = [analysis.anchors[0].recolored("#c03030"), *analysis.anchors[1:]]
        check_recoloring(colorizer, picture, changed)
        yield {
            "network": name,
            "precision": colorizer.precision,
            "times": interleaved(
                {
                    "full": partial(colorizer.colorize, picture, n_anchors=N_ANCHORS),
                    "recolored": partial(analysis.colorize, changed),
                },
                repeats,
                device,
            ),
        }


def check_recoloring(colorizer: Colorizer, picture: Tensor, changed: Sequence[Anchor]) -> None:
    """The analysis gives what a full run with these anchors gives.

    Raises:
        ValueError: it does not.
    """
    afresh = colorizer.colorize(picture, anchors=changed)
    again = colorizer.analyze(picture, n_anchors=N_ANCHORS).colorize(changed)
    if not torch.equal(afresh, again):
        raise ValueError("recolouring differs from a full run with the same anchors")


def influence(analysis: Analysis) -> Iterator[tuple[float, float]]:
    """For each anchor: mean change of ab in its own cluster, and in all others.

    The anchor gets that one of its ten probable colours that is farthest from the one it has.
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


def influences(colorizer: Colorizer, pictures: Sequence[Tensor]) -> Report:
    """Over all anchors of all pictures."""
    found = [
        list(influence(colorizer.analyze(picture, n_anchors=N_ANCHORS))) for picture in pictures
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


def counts(colorizer: Colorizer, pictures: Sequence[Tensor]) -> Report:
    """How many anchors "auto" places, and how near the true colours bring the picture then."""
    psnr: dict[str, list[float]] = {"auto": [], str(N_ANCHORS): []}
    tally: Counter[int] = Counter()
    for picture in pictures:
        for kind, values in psnr.items():
            count = "auto" if kind == "auto" else int(kind)
            analysis = colorizer.analyze(picture, n_anchors=count)
            if kind == "auto":
                tally[len(analysis.anchors)] += 1
            made = analysis.colorize(
                [in_true_color(analysis, a, picture) for a in analysis.anchors]
            )
            error = ((made.double() - picture.double()) / 255).square().mean()
            values.append(float(-10 * error.log10()))
    return {
        "tally": {str(count): tally[count] for count in sorted(tally)},
        "psnr": {kind: round(float(np.mean(values)), 2) for kind, values in psnr.items()},
    }


def in_true_color(analysis: Analysis, anchor: Anchor, picture: Tensor) -> Anchor:
    """The anchor in the mean colour of its superpixel's pixels."""
    inside = picture[:, analysis.mask(anchor)]
    if not inside.numel():
        return anchor
    return anchor.recolored([round(value) for value in inside.float().mean(dim=1).tolist()])


def squares(photographs: Photographs, numbers: Sequence[int]) -> list[Tensor]:
    """Middle squares, [3,256,256] uint8 each."""
    read = (middle_square(photographs.read(number), SIZE) for number in numbers)
    return [torch.from_numpy(pixels).permute(2, 0, 1).contiguous() for pixels in read]


def measure(device: torch.device, truth: Path, last: int, repeats: int) -> Report:
    """All three; the report's schema stands in README.md."""
    photographs, examples = Photographs(truth), Photographs(_photographs.FOLDER)
    chosen = range(len(photographs))[-last:] if last else range(len(photographs))
    pictures = squares(photographs, chosen)
    colorizer = Colorizer(device=device)
    shown = squares(examples, range(len(examples)))
    return {
        "what": "anchors",
        "context": context(device),
        "settings": {"size": SIZE, "anchors": N_ANCHORS},
        "inputs": f"{len(pictures)} photographs",
        "recoloring": list(recoloring(device, shown[0], repeats)),
        "influence": influences(colorizer, pictures),
        "auto": counts(colorizer, pictures),
        "examples": {
            Path(examples.name(number)).stem: len(colorizer.analyze(p, n_anchors="auto").anchors)
            for number, p in enumerate(shown)
        },
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", type=torch.device, default=default_device())
    parser.add_argument("--truth", type=Path, default=_photographs.FOLDER, metavar="DIR")
    parser.add_argument("--last", type=int, default=0, metavar="N", help="only the last N of DIR")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--json", type=Path, metavar="FILE")
    a = parser.parse_args(argv)
    report = measure(a.device, a.truth, a.last, a.repeats)
    for show in (_anchors_report.recoloring, _anchors_report.influence, _anchors_report.auto):
        print(show([report]), end="\n\n")
    if a.json:
        save(report, a.json)


if __name__ == "__main__":
    main()
