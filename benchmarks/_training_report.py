"""The table of training.py."""

from __future__ import annotations

from collections.abc import Sequence

from _markdown import caption, gpu_note, milliseconds, ratio, table
from _measure import Report

PUBLISHED, FUSED = "published ops", "fused ops"


def training(reports: Sequence[Report], gpu: bool = False) -> str:
    """Milliseconds of a step on either kind of ops, and their ratio."""
    parts = []
    for report in reports:
        settings = report["settings"]
        rows = [
            [
                f"{row['stage']}, {row['precision']}",
                *(milliseconds(row["times"][rival]) for rival in (PUBLISHED, FUSED)),
                ratio(row["times"][PUBLISHED], row["times"][FUSED]),
            ]
            for row in report["rows"]
        ]
        what = (
            f"Width {settings['width']:g}, {settings['batch']} crops of {settings['size']} pixels,"
            f" K={settings['anchors']}: forward, backward, update."
        )
        header = ["ms a training step", PUBLISHED, FUSED, "times faster"]
        parts += [table(header, rows), f"{what} {caption(report)}"]
    return "\n\n".join(parts + gpu_note(reports, gpu))
