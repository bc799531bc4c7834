"""Reports as Markdown tables. Every figure comes out of a report or out of the paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import _anchors_report
import _engine_report
import _flicker_report
import _gpu_report
import _paper
import _precision_report
import _quality_report
import _training_report
from _markdown import (
    NONE,
    NOT_MEASURED,
    caption,
    gpu_note,
    machine,
    measured_on_gpu,
    milliseconds,
    ratio,
    table,
)
from _measure import Report
from _stages import ANCHORS, LINES, REST

PATHS = {"published": "published path", "disco_fast": "disco_fast"}


def figure13(reports: Sequence[Report], gpu: bool = False) -> str:
    """The paper's Figure 13. `gpu` adds a column that owns up to it where no GPU was measured."""
    rows = []
    for block, (millions, giga, ms) in _paper.FIGURE_13.items():
        weights = _entry(reports, "parameters", block, _millions)
        products = _entry(reports, "multiply_accumulates", block, _giga)
        rows += [
            [block, "parameters", f"{millions:.2f} M", *weights],
            ["", "multiply-accumulates", f"{giga:.2f} G", *products],
            ["", "ms", f"{ms:.2f}", *_entry(reports, "blocks", block, milliseconds)],
        ]
    whole = f"{sum(ms for _, _, ms in _paper.FIGURE_13.values()):.2f}"
    totals = [milliseconds(path["total"]) for path in _paths(reports)]
    rows.append(["**whole network**", "ms", whole, *totals])
    header = ["", "", f"paper, {_paper.DEVICE}", *_heads(reports)]
    shown = _with_gpu_column(header, rows, reports, gpu)
    return f"{shown}\n\n{_speed_ups(reports)} {_captions(reports)}"


def anchor_stage(reports: Sequence[Report], gpu: bool = False) -> str:
    """Anchor construction, split further."""
    rows = [[line, *_entry(reports, "anchor_stage", line, milliseconds)] for line in (*LINES, REST)]
    rows.append([f"**{ANCHORS}**", *_entry(reports, "blocks", ANCHORS, milliseconds)])
    counts = [_iterations(path["kmeans_iterations"]) for path in _paths(reports)]
    rows.append(["K-Means iterations", *counts])
    shown = _with_gpu_column(["ms", *_heads(reports)], rows, reports, gpu)
    return f"{shown}\n\n{_captions(reports)}"


def table5(reports: Sequence[Report], gpu: bool = False) -> str:
    """The paper's Table 5 and this project's rows."""
    rows = [
        [name, _paper.DEVICE, *(f"{value:.2f}" for value in values)]
        for name, values in _paper.TABLE_5.items()
    ]
    for report, key in _columns(reports):
        path = report[key]
        costs = [
            sum(path["parameters"].values()) / 1e6,
            sum(path["multiply_accumulates"].values()) / 1e9,
        ]
        name = f"**{_path_name(report, key)}**"
        rows.append(
            [name, machine(report), *(f"{c:.2f}" for c in costs), milliseconds(path["total"])]
        )
    if gpu and not measured_on_gpu(reports):
        rows.append(["**disco_fast**", "GPU", *[NOT_MEASURED] * 3])
    header = ["", "device", "parameters, M", "multiply-accumulates, G", "ms"]
    note = f"Rows with {_paper.DEVICE} are the paper's own."
    return table(header, rows) + f"\n\n{note} " + _captions(reports)


def ops(reports: Sequence[Report], gpu: bool = False) -> str:
    """Each op against its specification and against vectorised PyTorch."""
    header = [
        "ms",
        "specification",
        "vectorised PyTorch",
        "disco_fast",
        "against specification",
        "against vectorised",
    ]
    tables = []
    for report in reports:
        rows = []
        for row in report["rows"]:
            names = ("specification", "vectorised", "disco_fast")
            spec, vectorised, fast = (row.get(name) for name in names)
            times = [milliseconds(t) for t in (spec, vectorised, fast)]
            rows.append([_op(row), *times, ratio(spec, fast), ratio(vectorised, fast)])
        tables.append(table(header, rows) + "\n\n" + caption(report))
    return "\n\n".join(tables + gpu_note(reports, gpu))


def official(reports: Sequence[Report], gpu: bool = False) -> str:
    """The official functions, disco_fast and the published path as this project has it."""
    tables = []
    for report in reports:
        header = ["ms", "official", "disco_fast", "times faster", "target"]
        rows = [
            [_op(row), milliseconds(row["official"]), milliseconds(row["disco_fast"]),
             ratio(row["official"], row["disco_fast"]), _target(row)]
            for row in report["ops"]
        ]  # fmt: skip
        tables.append(table(header, rows))
        header = ["ms", "official network", "published path", "published / official"]
        rows = [
            [
                line,
                milliseconds(row["official"]),
                milliseconds(row["published"]),
                f"{row['ratio']:.2f}",
            ]
            for line, row in report["network"].items()
        ]
        tables.append(table(header, rows))
        tables.append(
            "The official network on `drop_in.patch`, same seeds: ab / 110 differs by at most "
            f"{report['parity']['ab_max']:.1e}. " + caption(report)
        )
    return "\n\n".join(tables + gpu_note(reports, gpu))


def gpu_kernels(reports: Sequence[Report], gpu: bool = False) -> str:
    """The kernels on a GPU, and the bars that they were built to; these reports are all of GPUs."""
    tables = []
    for report in reports:
        pixels, others, bars = (
            table(*cells(report))
            for cells in (_gpu_report.pixel_cells, _gpu_report.other_cells, _gpu_report.bar_cells)
        )
        sentences = [
            "Median time of a call on the device, from a CUDA graph; (L2): fits the cache.",
            _gpu_report.ceiling_sentence(report),
            _gpu_report.end_to_end_sentence(report),
            caption(report),
        ]
        tables += [pixels, others, " ".join(filter(None, sentences)), bars]
    return "\n\n".join(tables)


TABLES = {
    "figure13": ("timing", figure13),
    "anchor_stage": ("timing", anchor_stage),
    "table5": ("timing", table5),
    "ops": ("ops", ops),
    "official": ("official", official),
    "gpu": ("gpu", gpu_kernels),
    "engine_rivals": ("engine", _engine_report.rivals),
    "engine_sweep": ("engine", _engine_report.sweep),
    "engine_plot": ("engine", _engine_report.plot),
    "precision": ("precision", _precision_report.precision),
    "training": ("training", _training_report.training),
    "quality": ("quality", _quality_report.quality),
    "recoloring": ("anchors", _anchors_report.recoloring),
    "influence": ("anchors", _anchors_report.influence),
    "auto": ("anchors", _anchors_report.auto),
    "flicker": ("flicker", _flicker_report.flicker),
}


# ---- Cells ---------------------------------------------------------------------------------------


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


def _paths(reports: Sequence[Report]) -> list[Report]:
    return [report[key] for report, key in _columns(reports)]


def _entry(
    reports: Sequence[Report], section: str, name: str, show: Callable[[Any], str]
) -> list[str]:
    """One entry of every path, a cell each."""
    return [show(path[section].get(name)) for path in _paths(reports)]


def _millions(count: int) -> str:
    return f"{count / 1e6:.2f} M"


def _giga(count: int) -> str:
    return f"{count / 1e9:.2f} G"


def _iterations(counts: Report) -> str:
    return f"{counts['mean']:.1f} ({counts['min']} to {counts['max']})" if counts else NONE


def _target(row: Report) -> str:
    return f"{row['target']}x" if row["target"] else NONE


def _op(row: Report) -> str:
    return f"`{row['op']}` {row['shape']}"


# ---- Frames --------------------------------------------------------------------------------------


def _path_name(report: Report, key: str) -> str:
    settings = report["settings"]
    precision = f" {settings['precision']}" if key == "disco_fast" else " fp32"
    batch = f", batch {settings['batch']}" if settings["batch"] > 1 else ""
    return PATHS[key] + precision + batch


def _heads(reports: Sequence[Report]) -> list[str]:
    several = len({machine(report) for report in reports}) > 1
    return [
        _path_name(report, key) + (f", {machine(report)}" if several else "")
        for report, key in _columns(reports)
    ]


def _with_gpu_column(
    header: list[str], rows: list[list[str]], reports: Sequence[Report], gpu: bool
) -> str:
    if gpu and not measured_on_gpu(reports):
        header = [*header, "disco_fast, GPU"]
        rows = [[*row, NOT_MEASURED] for row in rows]
    return table(header, rows)


def _speed_ups(reports: Sequence[Report]) -> str:
    """How many times faster disco_fast is than the published path, for each report."""
    ratios = [
        f"{ratio(report['published']['total'], report['disco_fast']['total'])} "
        f"({_path_name(report, 'disco_fast')}, {machine(report)})"
        for report in reports
    ]
    return f"disco_fast against the published path of the same run: {', '.join(ratios)}."


def _captions(reports: Sequence[Report]) -> str:
    return "Median (95th percentile) per picture. " + " ".join(map(caption, reports))
