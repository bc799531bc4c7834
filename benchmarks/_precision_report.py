"""The table of precision.py."""

from __future__ import annotations

from collections.abc import Sequence

from _markdown import NONE, caption, gpu_note, table
from _measure import Report

KINDS = {"forced": "anchors and their colours of fp32", "free": "its own anchors"}
FIGURES = ("mean", "median", "p95", "pixels_p95")
BARS = {("bf16", "forced"): {"mean": 1.0, "pixels_p95": 3.0}}  # most that is wanted
SHARES = {
    "picture": "all anchors of a picture the same: {}",
    "superpixel": "of single anchors: {}",
    "color": "of those the same colour bin: {}",
}
HEADER = ["CIEDE2000 from fp32", "mean", "median picture", "95 % of pictures", "95 % of pixels"]


def precision(reports: Sequence[Report], gpu: bool = False) -> str:
    """Colour differences by precision, the wanted ones beside them, and shares of anchors."""
    parts = []
    for report in reports:
        rows = [
            [f"{row['precision']}, {of}", *_cells(row, kind)]
            for row in report["rows"]
            for kind, of in KINDS.items()
        ]
        shares = " ".join(map(_shares, report["rows"]))
        what = (
            "CIEDE2000 between RGB pictures, of a picture its mean over pixels; 95 % of all pixels "
            f"of all pictures are below the last. Network {report['settings']['checkpoint']}."
        )
        parts += [table(HEADER, rows), f"{what} {shares} {caption(report)}"]
    return "\n\n".join(parts + gpu_note(reports, gpu))


def _cells(row: Report, kind: str) -> list[str]:
    bars = BARS.get((row["precision"], kind), {})
    return [_cell(row[kind][name], bars.get(name)) for name in FIGURES]


def _cell(value: float, wanted: float | None) -> str:
    if wanted is None:
        return f"{value:.2f}"
    met = "met" if value <= wanted else "missed"
    return f"{value:.2f} (wanted {wanted:.1f}: {met})"


def _shares(row: Report) -> str:
    parts = [
        text.format(NONE if share is None else f"{share:.1%}")
        for name, text in SHARES.items()
        for share in [row["same"][name]]
    ]
    return f"In {row['precision']}, {'; '.join(parts)}."
