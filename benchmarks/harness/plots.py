"""Plots: the speed chart, cost by pixels and by batch, and quality against colorfulness.

Only drawing needs matplotlib: a file names the digest of what it was made of.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from disco_fast._extras import need

from . import SIZE
from .report import Report, digits, machine

NAMES = {
    "official": "official network",
    "published": "published path",
    "compiled": "published path, torch.compile",
    "openvino_fp32": "engine, convolutions by OpenVINO",
    "openvino_bf16": "engine, convolutions by OpenVINO",
    "openvino_int8": "engine, convolutions by OpenVINO",
    "disco_fast": "**disco_fast**",
}
CHART = {  # in the speed chart, from the top
    ("official", "fp32"): "official code",
    ("compiled", "fp32"): "torch.compile",
    ("openvino_fp32", "fp32"): "OpenVINO fp32",
    ("openvino_bf16", "bf16"): "OpenVINO bf16",
    ("openvino_int8", "int8"): "OpenVINO int8",
    ("disco_fast", "fp32"): "disco_fast fp32",
    ("disco_fast", "bf16"): "disco_fast bf16",
    ("disco_fast", "int8"): "disco_fast int8",
}
COLORS = {"fp32": "#1f5fa8", "bf16": "#c2410c", "fp16": "#15803d", "int8": "#15803d"}
OTHERS = "#9ca3af"
STYLES = ("-", "--", ":", "-.")  # one a report
MARKERS = {
    "official": "o",
    "published": "s",
    "compiled": "^",
    "openvino_fp32": "D",
    "openvino_bf16": "D",
    "openvino_int8": "D",
}
STYLE = {
    "svg.hashsalt": "disco_fast",  # the same names in the file every time
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
}

Draw = Callable[[Any, Sequence[Report]], None]  # on a figure


def digest(reports: Sequence[Report]) -> str:
    """Of what a plot is made of: the reports and this file."""
    made_of = json.dumps(list(reports), sort_keys=True).encode() + Path(__file__).read_bytes()
    return f"sha256:{hashlib.sha256(made_of).hexdigest()}"


def is_fresh(file: Path, reports: Sequence[Report]) -> bool:
    """Whether the file is a plot of these reports."""
    return file.exists() and digest(reports) in file.read_text()


def save(file: Path, draw: Draw, reports: Sequence[Report]) -> None:
    """Write a plot as SVG.

    Raises:
        MissingExtraError: no matplotlib.
    """
    matplotlib, figures = need("bench", "matplotlib"), need("bench", "matplotlib.figure")
    with matplotlib.rc_context(STYLE):
        figure = figures.Figure(layout="constrained", facecolor="white")
        draw(figure, reports)
        metadata = {"Date": None, "Creator": None, "Identifier": digest(reports)}
        figure.savefig(file, format="svg", metadata=metadata)


# ---- The speed chart -----------------------------------------------------------------------------


def speed(figure: Any, reports: Sequence[Report]) -> None:
    """Milliseconds for one image, a bar for each rival; of the first report that has rivals."""
    report = next(report for report in reports if report["rivals"])
    times = {
        (row["name"], row["precision"]): row["time"]["median"]
        for row in report["rivals"]
        if row["size"] == SIZE
    }
    shown = [key for key in CHART if key in times]
    figure.set_size_inches(8, 0.9 + 0.36 * len(shown))
    panel = figure.subplots()
    bars = panel.barh(
        [CHART[key] for key in shown],
        [times[key] for key in shown],
        height=0.7,
        color=[COLORS["fp32"] if key[0] == "disco_fast" else OTHERS for key in shown],
    )
    panel.bar_label(bars, [f"{digits(times[key])} ms" for key in shown], padding=4)
    panel.invert_yaxis()
    panel.set_xticks([])
    panel.spines[["bottom"]].set_visible(False)
    panel.tick_params(left=False)
    panel.margins(x=0.12)
    panel.set_title(f"One {SIZE}x{SIZE} image (lower is better)", loc="left")
    figure.supxlabel(f"{machine(report)}, {report['context']['date']}", fontsize=9, color="#4b5563")


# ---- Cost by pixels and by batch -----------------------------------------------------------------


def costs(figure: Any, reports: Sequence[Report]) -> None:
    """Both axes logarithmic; lines for the engine, points for its rivals on the first machine.

    A machine where only one point was measured is left out beside others: it has no line.
    """
    figure.set_size_inches(11, 5.4)
    by_pixels, by_batch = figure.subplots(1, 2, sharey=True)
    swept = [r for r in reports if max(len(sides_of(r)), len(batches_of(r))) > 1]
    reports = swept or reports
    for report, style in zip(reports, itertools.cycle(STYLES), strict=False):
        by_pixels.plot([], [], color="black", linestyle=style, label=machine(report))
        _lines(by_pixels, one_image(report), lambda p: p["size"] ** 2, style)
        _lines(by_batch, one_size(report), lambda p: p["batch"], style)
    _rivals(by_pixels, reports[0])
    sides = sorted(set().union(*map(sides_of, reports)))
    batches = sorted(set().union(*map(batches_of, reports)))
    _axes(by_pixels, "pixels of one image", [n * n for n in sides], [f"{n}²" for n in sides])
    _axes(by_batch, f"images of {SIZE}² in a batch", batches, list(map(str, batches)))
    by_pixels.set_ylabel("ms per image")
    labels: dict[str, Any] = {}
    for handle, label in zip(*by_pixels.get_legend_handles_labels(), strict=True):
        labels.setdefault(label, handle)
    figure.legend(labels.values(), labels.keys(), loc="outside lower center", ncols=2)


def one_image(report: Report) -> list[Report]:
    """The points of the sweep over sizes."""
    return [p for p in report["points"] if _usual(p, report) and p["batch"] == 1]


def one_size(report: Report) -> list[Report]:
    """The points of the sweep over batches."""
    return [p for p in report["points"] if _usual(p, report) and p["size"] == SIZE]


def sides_of(report: Report) -> set[int]:
    """The sides that were measured with one image."""
    return {point["size"] for point in one_image(report)}


def batches_of(report: Report) -> set[int]:
    """The batches that were measured at the usual size."""
    return {point["batch"] for point in one_size(report)}


def _usual(point: Report, report: Report) -> bool:
    """Whether it has as many threads as torch takes, and keeps its memory."""
    return point["keep_memory"] and point["threads"] in (0, report["context"]["threads"])


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
    ticker = need("bench", "matplotlib.ticker")
    panel.grid(color="#dddddd")
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xticks(ticks, names)
    panel.minorticks_off()
    panel.set_xlabel(label)
    panel.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    panel.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))


# ---- Quality against colorfulness ----------------------------------------------------------------


def tradeoff(figure: Any, reports: Sequence[Report]) -> None:
    """How far the colors of each checkpoint are from the truth, as they become vivid."""
    found = reports[0]["found"]
    figure.set_size_inches(11, 4.6)
    frechet = next(name for name in found["compact"]["rows"][0]["metrics"] if "Frechet" in name)
    for panel, metric in zip(figure.subplots(1, 2), (frechet, "CIEDE2000"), strict=True):
        for name, color in (("compact", COLORS["fp32"]), ("beside", OTHERS)):
            if name in found:
                _curve(panel, found[name], metric, color)
        rows = {row["name"]: row["metrics"] for row in found["compact"]["rows"]}
        panel.axhline(rows["gray"][metric], color="black", linestyle=":", label="gray")
        panel.axvline(
            rows["original"]["colorfulness"], color="#15803d", linestyle=":", label="original"
        )
        panel.set_xlabel("colorfulness")
        panel.set_ylabel(f"{metric.split(' (')[0]} (lower is better)")
        panel.grid(color="#dddddd")
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)


def _curve(panel: Any, evaluation: Report, metric: str, color: str) -> None:
    """One line a checkpoint, with the vividness at its points."""
    rows = [row for row in evaluation["rows"] if row["name"] == "automatic"]
    rows = [row for row in rows if row["anchors"] == rows[0]["anchors"]]
    rows.sort(key=lambda row: row["vividness"])
    x = [row["metrics"]["colorfulness"] for row in rows]
    y = [row["metrics"][metric] for row in rows]
    panel.plot(x, y, color=color, marker="o", label=evaluation["settings"]["checkpoint"])
    for row, place in zip(rows, zip(x, y, strict=True), strict=True):
        panel.annotate(
            f"{row['vividness']:g}", place, (0, 7), textcoords="offset points", ha="center"
        )
