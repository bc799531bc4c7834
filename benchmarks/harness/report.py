"""Reports: how they are stored, and the cells and sentences that their tables are made of.

Imports neither torch nor disco_fast, so that `gpu_check.py` outlives both.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
NONE = "-"

Report = dict[str, Any]  # what a JSON file holds


def save(report: Report, path: Path) -> None:
    """Write a report as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(report, indent=1) + "\n")
    partial.replace(path)


def load(folder: Path = RESULTS) -> list[Report]:
    """All reports of a folder, by file name, which each gets as `file`."""
    files = sorted(folder.glob("*.json"))
    return [json.loads(file.read_text()) | {"file": file.name} for file in files]


# ---- Where a report comes from -------------------------------------------------------------------


def commit() -> str:
    """The commit of the code that ran, with "+dirty" if what ran was not exactly that.

    The variable DISCO_FAST_COMMIT says it for a copy whose git does not know.
    """
    if told := os.environ.get("DISCO_FAST_COMMIT"):
        return told
    code = ("disco_fast", "csrc", "benchmarks/*.py", "benchmarks/harness")
    try:
        head = _git("rev-parse", "--short", "HEAD")
        return head + ("+dirty" if _git("status", "--porcelain", "--", *code) else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    run = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip()


def command() -> str:
    """The command line, without the folders of this machine."""
    shown = [Path(a).name if Path(a).is_absolute() else a for a in sys.argv[1:]]
    return shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *shown])


def machine(report: Report) -> str:
    """The device, and for a CPU the number of threads."""
    here = report["context"]
    if here["device_type"] != "cpu":
        return here["device"]
    return f"{here['device']}, {here['threads']} thread{'s' * (here['threads'] != 1)}"


def heading(report: Report, reports: Sequence[Report]) -> list[str]:
    """The machine of one of several reports, if they come from different ones."""
    several = len({machine(other) for other in reports}) > 1
    return [f"On {machine(report)}:"] if several else []


def by_machine(make: Callable[[Sequence[Report]], str]) -> Callable[[Sequence[Report]], str]:
    """A table that is made for each machine apart, under its name if there are several."""

    def made(reports: Sequence[Report]) -> str:
        groups: dict[str, list[Report]] = {}
        for report in reports:
            groups.setdefault(machine(report), []).append(report)
        parts = [[*heading(own[0], reports), make(own)] for own in groups.values()]
        return "\n\n".join(part for own in parts for part in own)

    return made


def caption(report: Report) -> str:
    """On what and when a report was measured, for a table that stands alone."""
    return f"Measured on {machine(report)}, {report['context']['date']}."


# ---- Cells and tables ----------------------------------------------------------------------------


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
