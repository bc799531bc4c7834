"""Cells, tables and captions in Markdown, as every table of the README has them.

Plain figures in, plain text out: it imports no torch, for gpu_check.py does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _measure import Report

NOT_MEASURED = "not measured"
NONE = "-"


def digits(value: float) -> str:
    """Three significant digits."""
    return f"{value:.0f}" if value >= 99.5 else f"{value:#.3g}"


def milliseconds(times: Report | None) -> str:
    """Median (95th percentile) to three significant digits."""
    return f"{digits(times['median'])} ({digits(times['p95'])})" if times else NONE


def ratio(slow: Report | None, fast: Report | None) -> str:
    """How many times faster."""
    return f"{digits(slow['median'] / fast['median'])}x" if slow and fast else NONE


def table(header: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine(report: Report) -> str:
    """The device, and of a CPU how many threads."""
    here = report["context"]
    threads = f", {here['threads']} threads" if here["device_type"] == "cpu" else ""
    return here["device"] + threads


def measured_on_gpu(reports: Sequence[Report]) -> bool:
    """Whether any report is of a GPU."""
    return any(report["context"]["device_type"] == "cuda" for report in reports)


def gpu_note(reports: Sequence[Report], gpu: bool) -> list[str]:
    """Owns up, if `gpu`, to there being no report of a GPU."""
    return [f"On a GPU: {NOT_MEASURED}."] if gpu and not measured_on_gpu(reports) else []


def caption(report: Report) -> str:
    """Where, on what and by which command a report was measured."""
    here, size = report["context"], report["settings"].get("size")
    facts = [
        machine(report),
        f"torch {here['torch']}",
        f"commit {here['commit']}",
        here["date"],
        *([f"{size}x{size}"] if size else []),
        *([report["inputs"]] if "inputs" in report else []),
    ]
    return f"{', '.join(facts)}: `{here['command']}`."
