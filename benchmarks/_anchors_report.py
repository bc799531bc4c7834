"""The tables of anchors.py."""

from __future__ import annotations

from collections.abc import Sequence

from _markdown import caption, digits, gpu_note, milliseconds, table
from _measure import Report


def recoloring(reports: Sequence[Report], gpu: bool = False) -> str:
    """What colouring again by one changed anchor costs beside a full run."""
    parts = []
    for report in reports:
        rows = []
        for row in report["recoloring"]:
            times = row["times"]
            share = times["recolored"]["median"] / times["full"]["median"]
            cells = [milliseconds(times[name]) for name in ("full", "recolored")]
            rows.append([f"{row['network']}, {row['precision']}", *cells, f"{100 * share:.0f} %"])
        header = ["ms", "full run", "recoloured", "share"]
        parts += [table(header, rows), f"Median (95th percentile). {caption(report)}"]
    return "\n\n".join(parts + gpu_note(reports, gpu))


def influence(reports: Sequence[Report], gpu: bool = False) -> str:
    """How far one anchor's colour reaches."""
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
        header = ["one anchor in another of its ten colours", "mean change of ab"]
        parts += [table(header, rows), f"{found['anchors']} anchors. {caption(report)}"]
    return "\n\n".join(parts)


def auto(reports: Sequence[Report], gpu: bool = False) -> str:
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
            f"Mean {mean:.1f}. In the true colours of their superpixels these anchors bring the"
            f" picture to {psnr['auto']:.2f} dB, {fixed} anchors to {psnr[fixed]:.2f} dB. Of the"
            f" photographs above: {examples}."
        )
        parts += [table(header, [["photographs", *map(str, counts.values())]]), what]
        parts.append(caption(report))
    return "\n\n".join(parts)
