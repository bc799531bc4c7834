"""What follows from the rows of gpu_check.py: shares, ratios, bars, and their tables.

Plain figures in, plain text out: gpu_check.py itself imports neither torch nor disco_fast.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from _markdown import NONE, NOT_MEASURED, digits

Report = dict[str, Any]
Cells = tuple[list[str], list[list[str]]]  # header, rows

PIXEL_OPS = ("sp_pool", "sp_diffuse")  # those with bars of their own
NETWORK_SIDE, NETWORK_BATCH = 256, 64
LIBRARIES = ("flash_kmeans", "fast_pytorch_kmeans")
FAILURES = ("wrong", "error", "skipped")
COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


# ---- Derived figures -----------------------------------------------------------------------------


def measured(row: Report) -> bool:
    """Whether a row has times."""
    return not any(failure in row for failure in FAILURES)


def clock(row: Report) -> str:
    """What this package's time of a row was taken by: "device" where a graph could be captured."""
    return "device" if "device" in row["disco_fast"] else "wall"


def median(row: Report, name: str, by: str) -> float | None:
    """Microseconds of a call, or None where that was not measured."""
    times = row.get(name, {}).get(by)
    return times["median"] if times else None


def derive(row: Report, ceilings: Report) -> Report:
    """The row with its share of the copy bandwidth and its ratios to the rivals."""
    if not measured(row):
        return row
    ours = median(row, "disco_fast", clock(row))
    wall = median(row, "disco_fast", "wall")
    copy = ceilings.get("copy")
    share = None
    if copy and ours and row["reads_all"]:
        share = row["bytes"] / (ours * 1e-6) / copy["bytes_per_second"]
    ratios = {
        "published_wall_over_wall": _quotient(median(row, "published", "wall"), wall),
        "published_wall_over_device": _quotient(
            median(row, "published", "wall"), median(row, "disco_fast", "device")
        ),
        **_against(row, "vectorised"),
        **{
            f"{library}_wall_over_wall": _quotient(median(row, library, "wall"), wall)
            for library in LIBRARIES
            if library in row
        },
    }
    return row | {"share_of_copy": share, "ratios": ratios}


def _against(row: Report, rival: str) -> Report:
    """By the device's clock where both were captured, else by the wall."""
    by = "device" if median(row, rival, "device") and clock(row) == "device" else "wall"
    value = _quotient(median(row, rival, by), median(row, "disco_fast", by))
    return {rival: value, f"{rival}_by": by}


def _quotient(slow: float | None, fast: float | None) -> float | None:
    return slow / fast if slow and fast else None


# ---- Bars ----------------------------------------------------------------------------------------


def bars(report: Report) -> list[Report]:
    """Each with name, what is wanted, what was measured, and whether that is met.

    `met` is None where something that the bar needs was not measured, or nothing is wanted.
    """
    rows = report["rows"]
    sizes = report["settings"]["sizes"]
    few, many = sizes["point_batches"][0], sizes["point_batches"][-1]
    one, several = sizes["pixel_batches"][0], sizes["pixel_batches"][-1]
    both = "kmeans + choose_anchors"
    kmeans = _first(rows, "kmeans", few)
    made = [_longest(f"{both}, batch {few}", _find(rows, both, few), 60)]
    for op in ("kmeans", both):
        _, times = _times_of([_first(rows, op, batch) for batch in (many, few)])
        growth = _quotient(*times) if times else None
        made.append(_bar(f"{op}, batch {many} / batch {few}", growth, "<=", 1.5, "x"))
    made += [
        _bar(
            f"published / disco_fast, kmeans, batch {few}, eager call over eager call",
            _ratio(kmeans, "published_wall_over_wall"),
            ">=",
            300,
            "x",
        ),
        _bar(
            f"published / disco_fast, kmeans, batch {few}, eager call over device time",
            _ratio(kmeans, "published_wall_over_device"),
        ),
    ]
    for op in PIXEL_OPS:
        shares = _all([row.get("share_of_copy") for row in _find(rows, op, several, "fp16")])
        name = f"{op}, fp16, batch {several}, least share of copy bandwidth"
        made.append(_bar(name, min(shares) * 100 if shares else None, ">=", 70, "%"))
    for op in PIXEL_OPS:
        name = f"{op}, batch {one}, slowest dtype and layout"
        made.append(_longest(name, _find(rows, op, one), 15))
    block = "anchor block"
    made.append(_longest(f"{block}, batch {few}", _find(rows, block, few), 200))
    return [*made, _fastest(rows), *_network_bars(report)]


def _network_bars(report: Report) -> list[Report]:
    """The whole network: one picture against the published path, many against the matrix rate."""
    network, matrix = report.get("end_to_end", {}), report["ceilings"].get("matrix")
    speed = share = None
    if network:
        speed = _quotient(network["published"]["median"], network["disco_fast"]["median"])
    times = {
        point["batch"]: point["time"]["median"] / 1e3
        for point in report.get("engine", [])
        if point["precision"] == "bf16" and point["size"] == NETWORK_SIDE
    }
    if network and matrix and NETWORK_BATCH in times:
        rate = network["published_flop"] / times[NETWORK_BATCH]
        share = 100 * rate / matrix["flop_per_second"]
    many = f"whole network, batch {NETWORK_BATCH}, published operations, share of the matrix rate"
    return [
        _bar("published / disco_fast, whole network, one picture", speed, ">=", 40, "x"),
        _bar(many, share, ">=", 50, "%"),
    ]


def _fastest(rows: Sequence[Report]) -> Report:
    """Whether every op is faster than vectorised torch, and where that is closest."""
    name = "vectorised torch / disco_fast, least of all"
    ratios = {label(row): _ratio(row, "vectorised") for row in rows if "vectorised" in row}
    known = {where: ratio for where, ratio in ratios.items() if ratio}
    if not known:
        return _bar(name, None, ">", 1, "x")
    worst = min(known, key=lambda where: known[where])
    bar = _bar(f"{name} ({worst})", known[worst], ">", 1, "x")
    if bar["met"] and not all(map(measured, rows)):
        bar["met"] = None
    return bar


def _bar(
    name: str, value: float | None, compare: str = "", wanted: float | None = None, unit: str = "x"
) -> Report:
    met = None if value is None or wanted is None else COMPARE[compare](value, wanted)
    return {
        "name": name,
        "wanted": NONE if wanted is None else f"{compare} {wanted:g} {unit}",
        "measured": NOT_MEASURED if value is None else f"{digits(value)} {unit}",
        "value": value,
        "met": met,
    }


def _find(rows: Sequence[Report], op: str, batch: int, dtype: str = "") -> list[Report]:
    return [
        row
        for row in rows
        if row["op"] == op and row["batch"] == batch and dtype in ("", row["dtype"])
    ]


def _first(rows: Sequence[Report], op: str, batch: int) -> Report:
    """The op at its ordinary shape, which comes before its unusual ones."""
    return next(iter(_find(rows, op, batch)), {"error": NOT_MEASURED})


def _longest(name: str, rows: Sequence[Report], wanted: float) -> Report:
    """A bar on the longest time of rows."""
    by, times = _times_of(rows)
    bar = _bar(name, max(times, default=None), "<", wanted, "us")
    if times and by == "wall":
        bar["measured"] += ", eager"
    return bar


def _times_of(rows: Sequence[Report]) -> tuple[str, list[float]]:
    """The clock that timed all of them, and the times; none if one was not measured."""
    if not all(map(measured, rows)):
        return "wall", []
    by = "device" if all(clock(row) == "device" for row in rows) else "wall"
    return by, _all([median(row, "disco_fast", by) for row in rows])


def _all(values: Sequence[float | None]) -> list[float]:
    """The values, or nothing if one is missing."""
    known = [value for value in values if value is not None]
    return known if len(known) == len(values) else []


def _ratio(row: Report, name: str) -> float | None:
    return row.get("ratios", {}).get(name)


def label(row: Report) -> str:
    """Which case a row is about, in words."""
    return " ".join(filter(None, (row["op"], row["shape"], row["dtype"], row["layout"])))


# ---- Tables --------------------------------------------------------------------------------------


def pixel_cells(report: Report) -> Cells:
    """The ops over pixels, a column for each dtype and layout."""
    rows = [row for row in report["rows"] if row["layout"]]
    variants = list(dict.fromkeys((row["dtype"], row["layout"]) for row in rows))
    header = ["us (share of copy bandwidth)", *(f"{dtype} {layout}" for dtype, layout in variants)]
    header += ["against published, at least", "against vectorised, at least"]
    table = []
    for op, shape in dict.fromkeys((row["op"], row["shape"]) for row in rows):
        of = {(r["dtype"], r["layout"]): r for r in rows if (r["op"], r["shape"]) == (op, shape)}
        cells = [_time_cell(of.get(v), _l2(report)) for v in variants]
        least = [_least(of.values(), r) for r in ("published_wall_over_wall", "vectorised")]
        table.append([f"`{op}` {shape}", *cells, *least])
    return header, table


def other_cells(report: Report) -> Cells:
    """All other ops."""
    rows = [row for row in report["rows"] if not row["layout"]]
    here = [name for name in LIBRARIES if any("wall" in row.get(name, {}) for row in rows)]
    header = ["us", "device (share of copy bandwidth)", "eager call", "against published"]
    header += ["against vectorised", *(f"against {name}" for name in here)]
    ratios = [
        "published_wall_over_wall",
        "vectorised",
        *(f"{name}_wall_over_wall" for name in here),
    ]
    return header, [
        [
            f"`{row['op']}` {row['shape']}",
            _time_cell(row, _l2(report)),
            _us(median(row, "disco_fast", "wall")),
            *(_times(_ratio(row, ratio)) for ratio in ratios),
        ]
        for row in rows
    ]


def bar_cells(report: Report) -> Cells:
    """The bars."""
    said = {True: "met", False: "not met", None: NONE}
    return ["bar", "wanted", "measured", ""], [
        [bar["name"], bar["wanted"], bar["measured"], said[bar["met"]]] for bar in report["bars"]
    ]


def step_cells(report: Report) -> Cells:
    """The steps."""
    return ["step", "", "s", ""], [
        [name, verdict(step["ok"]), f"{step['seconds']:.0f}", step["note"]]
        for name, step in report["steps"].items()
    ]


def verdict(ok: bool | None) -> str:
    """How a step went."""
    return {True: "ok", False: "FAILED", None: "not here"}[ok]


def ceiling_sentence(report: Report) -> str:
    """The ceilings of this run."""
    ceilings = report.get("ceilings", {})
    if "copy" not in ceilings:
        return f"Ceilings: {NOT_MEASURED}."
    copy = ceilings["copy"]["bytes_per_second"] / 1e12
    rate = ceilings["matrix"]["flop_per_second"] / 1e12
    return f"Ceilings of this run: copy {digits(copy)} TB/s, bf16 matrices {digits(rate)} TFLOP/s."


def end_to_end_sentence(report: Report) -> str:
    """The whole network, where it was timed; else empty."""
    network = report.get("end_to_end")
    if not network:
        return ""
    published, fast = network["published"]["median"], network["disco_fast"]["median"]
    return (
        f"Whole network: published path {digits(published)} ms, disco_fast "
        f"{network['precision']} {digits(fast)} ms, {digits(published / fast)}x."
    )


def text(report: Report) -> str:
    """The report for a terminal."""
    parts = [
        _aligned(pixel_cells(report)),
        _aligned(other_cells(report)),
        "\n".join(_troubles(report)),
        "\n".join(filter(None, (ceiling_sentence(report), end_to_end_sentence(report)))),
        "\n".join(report["missing"]),
        _aligned(step_cells(report)),
        _aligned(bar_cells(report)),
    ]
    return "\n\n".join(part for part in parts if part)


def describe(name: str, record: Report) -> str:
    """A record of the measuring process in one line."""
    if name != "row":
        return f"{name}: {record.get('error', 'done')}"
    line = f"{label(record)}: {_time_cell(record, None)} us"
    trouble = _trouble(record)
    return f"{line}; {trouble}" if trouble else line


def _troubles(report: Report) -> list[str]:
    said = ((label(row), _trouble(row)) for row in report["rows"])
    return [f"{where}: {trouble}" for where, trouble in said if trouble]


def _trouble(row: Report) -> str:
    """What is wrong with a row or with a rival's part of it; empty if nothing is."""
    for failure in FAILURES:
        if failure in row:
            return f"{failure}: {row[failure]}"
    names = ("disco_fast", "vectorised")
    parts = [(name, row.get(name, {})) for name in names]
    return "; ".join(
        f"{name} {key.replace('_', ' ')}: {part[key]}"
        for name, part in parts
        for key in ("wrong", "not_captured")
        if key in part
    )


def _l2(report: Report) -> int | None:
    return report.get("context", {}).get("gpu", {}).get("l2_bytes")


def _time_cell(row: Report | None, l2_bytes: int | None) -> str:
    """Device time, share of the copy bandwidth, and whether all of it fits the L2 cache."""
    if row is None:
        return NONE
    for failure in FAILURES:
        if failure in row:
            return failure
    by = clock(row)
    notes = [] if by == "device" else ["eager"]
    if row.get("share_of_copy"):
        notes.append(f"{100 * row['share_of_copy']:.0f} %")
        notes += ["L2"] if l2_bytes and row["bytes"] < l2_bytes else []
    noted = f" ({', '.join(notes)})" if notes else ""
    return _us(median(row, "disco_fast", by)) + noted


def _us(value: float | None) -> str:
    return NONE if value is None else digits(value)


def _times(ratio: float | None) -> str:
    return NONE if ratio is None else f"{digits(ratio)}x"


def _least(rows: Any, name: str) -> str:
    """The smallest ratio of rows that have one."""
    ratios = [ratio for row in rows if (ratio := _ratio(row, name)) is not None]
    return _times(min(ratios, default=None))


def _aligned(cells: Cells) -> str:
    """Columns, left-aligned; empty where there is no row."""
    header, rows = cells
    if not rows:
        return ""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = (zip(line, widths, strict=True) for line in (header, *rows))
    return "\n".join("  ".join(cell.ljust(w) for cell, w in line).rstrip() for line in lines)
