"""What follows from a report of engine.py: ratios, bars, and their tables."""

from __future__ import annotations

from collections.abc import Sequence

from _markdown import (
    NONE,
    caption,
    digits,
    gpu_note,
    milliseconds,
    ratio,
    table,
)
from _measure import Report

NAMES = {
    "official": "official network",
    "published": "published path",
    "compiled": "published path, torch.compile",
    "openvino_fp32": "engine, convolutions by OpenVINO",
    "openvino_bf16": "engine, convolutions by OpenVINO",
    "disco_fast": "**disco_fast**",
}
SIZE = 256  # of the bars, and of the sweep over batches
TIMES_FASTER = {"bf16": 2.6, "fp32": 1.25}  # than the official network, on a CPU
MEGABYTES = 700  # for one picture
PLOT = "../benchmarks/results/engine.svg"  # from docs/
FEW = 3  # runs; a time of fewer says how many


# ---- Rivals --------------------------------------------------------------------------------------


def rivals(reports: Sequence[Report], gpu: bool = False) -> str:
    """Every rival's time and how many times faster each precision of the engine is."""
    parts = []
    for report in filter(lambda report: report["rivals"], reports):
        for size in dict.fromkeys(row["size"] for row in report["rivals"]):
            rows = [row for row in report["rivals"] if row["size"] == size]
            parts.append(_rival_table(rows, size))
        sentences = [_speed_bars(report), _left_out(report), caption(report)]
        parts.append(" ".join(filter(None, sentences)))
    return "\n\n".join(parts + gpu_note(reports, gpu))


def _rival_table(rows: Sequence[Report], size: int) -> str:
    ours = [row for row in rows if row["name"] == "disco_fast"]
    header = [
        f"{size}x{size}, one picture",
        "ab / 110 differs by",
        "ms",
        *(f"disco_fast {row['precision']} against it" for row in ours),
    ]
    cells = [
        [
            f"{NAMES[row['name']]} {row['precision']}",
            NONE if row["name"] == "published" else f"{row['validation']['ab']:.1e}",
            milliseconds(row["time"]),
            *(NONE if own is row else ratio(row["time"], own["time"]) for own in ours),
        ]
        for row in rows
    ]
    return table(header, cells)


def _speed_bars(report: Report) -> str:
    """How many times faster than the official network, and what was wanted."""
    times = {
        (row["name"], row["precision"]): row["time"]
        for row in report["rivals"]
        if row["size"] == SIZE
    }
    official = times.get(("official", "fp32"))
    if official is None or report["context"]["device_type"] != "cpu":
        return ""
    found = [
        _bar(f"{precision} {official['median'] / ours['median']:.2f}x", f"{wanted}x",
             official["median"] / ours["median"] >= wanted)
        for precision, wanted in TIMES_FASTER.items()
        if (ours := times.get(("disco_fast", precision)))
    ]  # fmt: skip
    return f"Against the official network: {', '.join(found)}."


def _bar(found: str, wanted: str, met: bool) -> str:
    return f"{found} (wanted {wanted}: {'met' if met else 'missed'})"


def _left_out(report: Report) -> str:
    reasons = [f"{NAMES[name]} ({why})" for name, why in report["left_out"].items()]
    return f"Left out: {', '.join(dict.fromkeys(reasons))}." if reasons else ""


# ---- Sweeps --------------------------------------------------------------------------------------


def sweep(reports: Sequence[Report], gpu: bool = False) -> str:
    """Time, rate and memory at every point, the precisions side by side."""
    parts = []
    for report in reports:
        precisions = list(dict.fromkeys(point["precision"] for point in report["points"]))
        header = ["pictures in a batch"]
        for precision in precisions:
            header += [f"{precision}, ms per picture", "pictures/s", "peak memory, MB"]
        places = dict.fromkeys(map(_place, report["points"]))
        by_place = {(_place(point), point["precision"]): point for point in report["points"]}
        cells = []
        for place in places:
            found = [by_place.get((place, precision)) for precision in precisions]
            cells.append([_where(place, report), *(cell for p in found for cell in _costs(p))])
        measured = {key: entry for key, entry in report.items() if key != "inputs"}  # of rivals
        sentences = [_scaling(report), _memory(report), caption(measured)]
        parts += [table(header, cells), " ".join(filter(None, sentences))]
    return "\n\n".join(parts + gpu_note(reports, gpu))


def progress(point: Report) -> str:
    """A point in a line."""
    time, rate, memory = _costs(point)
    return (
        f"{point['precision']} {point['batch']} x {point['size']}x{point['size']}, "
        f"{point['threads']} threads: {time} ms per picture, {rate} pictures/s, {memory} MB"
    )


def _place(point: Report) -> tuple[int, int, int, bool]:
    return point["batch"], point["size"], point["threads"], point["keep_memory"]


def _where(place: tuple[int, int, int, bool], report: Report) -> str:
    batch, size, threads, kept = place
    usual = threads in (0, report["context"]["threads"])
    count = "" if usual else f", {threads} thread{'s' * (threads > 1)}"
    back = "" if kept else ", memory handed back"
    return f"{batch} of {size}x{size}{count}{back}"


def _costs(point: Report | None) -> list[str]:
    if point is None:
        return [NONE] * 3
    time, memory = point["time"], point["peak_memory_mb"]
    few = time["runs"] < FEW
    shown = f"{digits(time['median'])}, {_runs(time)}" if few else milliseconds(time)
    return [shown, digits(1e3 / time["median"]), NONE if memory is None else f"{memory:.0f}"]


def _runs(time: Report) -> str:
    return f"{time['runs']} run{'s' * (time['runs'] > 1)}"


def _scaling(report: Report) -> str:
    """The cost of a pixel at the largest size, in that of a pixel at 256x256."""
    medians = {
        (point["precision"], point["size"]): point["time"]["median"]
        for point in one_picture(report)
    }
    small, large = SIZE, max((size for _, size in medians), default=SIZE)
    found = [
        f"{digits(medians[precision, large] / median / (large / small) ** 2)} ({precision})"
        for (precision, size), median in medians.items()
        if size == small and (precision, large) in medians
    ]
    if large == small or not found:
        return ""
    return f"A pixel of {large}x{large} costs, in pixels of {small}x{small}: {', '.join(found)}."


def _memory(report: Report) -> str:
    """Peak memory for a picture from a checkpoint file, and on a CPU what was wanted."""
    bar = report["context"]["device_type"] == "cpu"
    found = []
    for row in report["picture"]:
        memory = row["peak_memory_mb"]
        if memory is None:
            continue
        text = f"{memory:.0f} MB ({row['precision']})"
        met = memory < MEGABYTES
        found.append(_bar(text, f"under {MEGABYTES} MB", met) if bar else text)
    where = "above the import" if bar else "on the GPU"
    named = f"One 256x256 picture by a `Colorizer` from a checkpoint file, peak memory {where}"
    return f"{named}: {', '.join(found)}." if found else ""


# ---- Plot ----------------------------------------------------------------------------------------


def plot(reports: Sequence[Report], gpu: bool = False) -> str:
    """The picture that `_plot` draws."""
    return (
        f"![Milliseconds per picture against its pixels and against the batch]({PLOT})\n\n"
        "Both axes logarithmic. Lines: the engine. Points: its rivals, one picture at a time."
    )


def one_picture(report: Report) -> list[Report]:
    """The points of the sweep over sizes."""
    return [p for p in report["points"] if _usual(p, report) and p["batch"] == 1]


def one_size(report: Report) -> list[Report]:
    """The points of the sweep over batches."""
    return [p for p in report["points"] if _usual(p, report) and p["size"] == SIZE]


def _usual(point: Report, report: Report) -> bool:
    """Whether it has as many threads as torch takes, and keeps its memory."""
    return point["keep_memory"] and point["threads"] in (0, report["context"]["threads"])
