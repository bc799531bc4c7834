"""Renders the tables and the plot of README.md and docs/ from benchmarks/results/*.json.

    python benchmarks/render_tables.py          # rewrite the documents, and the plot if it is stale
    python benchmarks/render_tables.py --check  # fail if that would change anything

A table stands between `<!-- table:NAME -->` and `<!-- /table -->`; names as in `_tables.TABLES`.
Only drawing needs matplotlib: the plot's file names the digest of what it was made of.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path

import _plot
from _engine_report import PLOT
from _markdown import NOT_MEASURED
from _measure import ROOT, Report
from _tables import TABLES

DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
RESULTS = ROOT / "benchmarks" / "results"
MARKED = re.compile(r"(<!-- table:(\w+) -->\n).*?(<!-- /table -->)", re.DOTALL)


def load(results: Path) -> list[Report]:
    """All reports, by file name."""
    return [json.loads(path.read_text()) for path in sorted(results.glob("*.json"))]


def render(text: str, reports: Sequence[Report]) -> str:
    """The text with its tables made anew.

    Raises:
        ValueError: a marker names no known table.
    """

    def table(match: re.Match) -> str:
        begin, name, end = match.groups()
        if name not in TABLES:
            raise ValueError(f"table:{name}: unknown; known are {', '.join(TABLES)}")
        what, make = TABLES[name]
        measured = [report for report in reports if report["what"] == what]
        return begin + (make(measured, gpu=True) if measured else f"*{NOT_MEASURED}*") + "\n" + end

    return MARKED.sub(table, text)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="change nothing, fail if stale")
    check = parser.parse_args(argv).check
    reports, plot = load(RESULTS), RESULTS / Path(PLOT).name
    plotted = [report for report in reports if report["what"] == "engine"]
    texts = {document: document.read_text() for document in DOCUMENTS}
    rendered = {document: render(text, reports) for document, text in texts.items()}
    stale = [document for document in DOCUMENTS if rendered[document] != texts[document]]
    stale += [] if _plot.is_fresh(plot, plotted) else [plot]
    if check:
        for file in stale:
            print(f"{file.name} is stale: run python benchmarks/render_tables.py")
        return int(bool(stale))
    for document in set(stale) & set(DOCUMENTS):
        document.write_text(rendered[document])
    if plot in stale:
        _plot.draw(plot, plotted)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
