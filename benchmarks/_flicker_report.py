"""The table of flicker.py."""

from __future__ import annotations

from collections.abc import Sequence

from _markdown import caption, digits, table
from _measure import Report


def flicker(reports: Sequence[Report], gpu: bool = False) -> str:
    """Flicker, and colorfulness in brackets, of every film in every way."""
    parts = []
    for report in reports:
        films: dict[str, dict[str, Report]] = {}
        for row in report["rows"]:
            films.setdefault(row["film"], {})[row["way"]] = row
        ways = list(next(iter(films.values())))
        rows = []
        for name, found in films.items():
            cells = [f"{found[w]['flicker']:.2f} ({found[w]['colorfulness']:.0f})" for w in ways]
            times = digits(found[ways[0]]["flicker"] / found[ways[-1]]["flicker"])
            rows.append([name, *cells, f"{times}x"])
        what = (
            "Mean change of ab from a frame to the next, along the optical flow (in brackets"
            " colorfulness)."
        )
        parts += [table(["", *ways, "less"], rows), f"{what} {caption(report)}"]
    return "\n\n".join(parts)
