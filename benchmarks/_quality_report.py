"""The table of quality.py: the paper's Table 3 and Figure 11 for the compact checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

from _markdown import NONE, caption, table
from _measure import Report

FRECHET = "Frechet distance (EfficientNet-lite2, 64 axes)"
COLUMNS = {
    "colorfulness": 1, "PSNR": 2, "SSIM": 3, "CIEDE2000": 2, "wrong patches, %": 1, FRECHET: 2,
}  # decimals # fmt: skip
NAMES = {"automatic": "automatic", "Ours*": "Ours\\*: anchors of the true colours"}


def quality(reports: Sequence[Report], gpu: bool = False) -> str:
    """Every row of every checkpoint, gray and original once."""
    parts = []
    for report in reports:
        compact = report["found"]["compact"]
        rows = [_row(row) for row in compact["rows"]]
        if beside := report["found"].get("beside"):
            made = [row for row in beside["rows"] if row["anchors"]]
            rows += [_row(row, ", the other checkpoint") for row in made]
        settings = compact["settings"]
        checkpoints = ", the other ".join(
            f"{found['settings']['checkpoint']} (SHA-256 {found['settings']['sha256'][:8]})"
            for found in report["found"].values()
        )
        what = (
            f"{checkpoints}, {settings['precision']}, {settings['photographs']}"
            f" photographs, {settings['size']}x{settings['size']}."
            f" {' '.join(compact['left_out'])}"
        )
        parts += [table(["", "K", "vividness", *COLUMNS], rows), f"{what} {caption(report)}"]
    return "\n\n".join(parts)


def _row(row: Report, suffix: str = "") -> list[str]:
    figures = row["metrics"]
    cells = [
        NONE if figures.get(name) is None else f"{figures[name]:.{decimals}f}"
        for name, decimals in COLUMNS.items()
    ]
    anchors = NONE if row["anchors"] is None else str(row["anchors"])
    name: str = row["name"]
    read = NONE if row["vividness"] is None else f"{row['vividness']:g}"
    return [NAMES.get(name, name) + suffix, anchors, read, *cells]
