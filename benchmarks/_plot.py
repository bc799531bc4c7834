"""The plot of engine.py's reports: cost by pixels and by batch."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from _engine_report import NAMES, SIZE, one_picture, one_size
from _extras import need
from _markdown import machine
from _measure import Report

COLORS = {"fp32": "#1f5fa8", "bf16": "#c2410c", "fp16": "#15803d"}
STYLES = ("-", "--", ":", "-.")  # one a report
MARKERS = {
    "official": "o",
    "published": "s",
    "compiled": "^",
    "openvino_fp32": "D",
    "openvino_bf16": "D",
}
STYLE = {
    "svg.hashsalt": "disco_fast",  # the same names in the file every time
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
}


def digest(reports: Sequence[Report]) -> str:
    """Of what the plot is made of: the reports and this file."""
    made_of = json.dumps(list(reports), sort_keys=True).encode() + Path(__file__).read_bytes()
    return f"sha256:{hashlib.sha256(made_of).hexdigest()}"


def is_fresh(file: Path, reports: Sequence[Report]) -> bool:
    """Whether the file is the plot of these reports; without any there is none."""
    if not reports:
        return not file.exists()
    return file.exists() and digest(reports) in file.read_text()


def draw(file: Path, reports: Sequence[Report]) -> None:
    """Write the plot as SVG, or remove it where there is nothing to draw.

    Raises:
        MissingExtraError: no matplotlib.
    """
    if not reports:
        file.unlink(missing_ok=True)
        return
    matplotlib, figures = need("matplotlib"), need("matplotlib.figure")
    with matplotlib.rc_context(STYLE):
        figure = figures.Figure(figsize=(11, 5.4), layout="constrained", facecolor="white")
        by_pixels, by_batch = figure.subplots(1, 2, sharey=True)
        for report, style in zip(reports, itertools.cycle(STYLES), strict=False):
            by_pixels.plot([], [], color="black", linestyle=style, label=machine(report))
            _lines(by_pixels, one_picture(report), lambda p: p["size"] ** 2, style)
            _lines(by_batch, one_size(report), lambda p: p["batch"], style)
            _rivals(by_pixels, report)
        sides = sorted({p["size"] for report in reports for p in one_picture(report)})
        batches = sorted({p["batch"] for report in reports for p in one_size(report)})
        _axes(by_pixels, "pixels of one picture", [n * n for n in sides], [f"{n}²" for n in sides])
        _axes(by_batch, f"pictures of {SIZE}² in a batch", batches, list(map(str, batches)))
        by_pixels.set_ylabel("ms per picture")
        labels: dict[str, Any] = {}
        for handle, label in zip(*by_pixels.get_legend_handles_labels(), strict=True):
            labels.setdefault(label, handle)
        figure.legend(labels.values(), labels.keys(), loc="outside lower center", ncols=2)
        metadata = {"Date": None, "Creator": None, "Identifier": digest(reports)}
        figure.savefig(file, format="svg", metadata=metadata)


def _lines(panel: Any, points: Sequence[Report], x: Callable[[Report], int], style: str) -> None:
    """One line a precision."""
    for precision in dict.fromkeys(point["precision"] for point in points):
        own = sorted((x(p), p["time"]["median"]) for p in points if p["precision"] == precision)
        panel.plot(
            *zip(*own, strict=True),
            label=f"disco_fast {precision}",
            color=COLORS[precision],
            linestyle=style,
            marker=".",
        )


def _rivals(panel: Any, report: Report) -> None:
    """One point a rival."""
    for row in report["rivals"]:
        if row["name"] in MARKERS:
            panel.plot(
                row["size"] ** 2,
                row["time"]["median"],
                MARKERS[row["name"]],
                label=f"{NAMES[row['name']]} {row['precision']}",
                color=COLORS[row["precision"]],
                markerfacecolor="none",
                markersize=8,
            )


def _axes(panel: Any, label: str, ticks: Sequence[int], names: Sequence[str]) -> None:
    ticker = need("matplotlib.ticker")
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xticks(ticks, names)
    panel.minorticks_off()
    panel.set_xlabel(label)
    panel.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    panel.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
