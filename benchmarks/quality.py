"""The quality of the compact checkpoint's colors: the paper's Table 3 and Figure 11.

    python benchmarks/quality.py --truth data --last 500 --json benchmarks/results/quality.json

What `disco-fast evaluate` measures, for several numbers of anchors, and for another checkpoint
beside it where one is given.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.clock import context, default_device
from harness.report import NONE, Report, caption, save, table

from disco_fast.checkpoints import COMPACT
from disco_fast.cli.main import main as disco_fast

ANCHORS = (8, 3, 5, 11, 14)  # the paper's Figure 11, its own choice first


def evaluation(
    truth: Path,
    checkpoint: Path,
    anchors: Sequence[int],
    vividness: Sequence[float],
    last: int | None,
) -> Report:
    """The report of ``disco-fast evaluate``.

    Raises:
        SystemExit: it refuses, and has said why.
    """
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "report.json")
        options: list[Any] = ["--truth", truth, "--checkpoint", checkpoint, "--json", target]
        options += ["--anchors", *anchors, *(["--last", last] if last else [])]
        options += ["--vividness", *vividness] if vividness else []
        if status := disco_fast(["evaluate", *map(str, options)]):
            raise SystemExit(status)
        return json.loads(target.read_text())


def measure(a: argparse.Namespace) -> Report:
    """The evaluation of the checkpoint, and of the one beside it."""
    found = {"compact": evaluation(a.truth, a.checkpoint, a.anchors, a.vividness, a.last)}
    if a.beside:
        found["beside"] = evaluation(a.truth, a.beside, a.anchors[:1], a.vividness, a.last)
    return {
        "what": "quality",
        "context": context(default_device()),
        "settings": found["compact"]["settings"],
        "found": found,
    }


# ---- Table ---------------------------------------------------------------------------------------

FRECHET = "Frechet distance (EfficientNet-lite2, 64 axes)"
COLUMNS = {
    "colorfulness": 1,
    "PSNR": 2,
    "SSIM": 3,
    "CIEDE2000": 2,
    "wrong patches, %": 1,
    FRECHET: 2,
}  # decimals
NAMES = {"automatic": "automatic", "Ours*": "Ours\\*: anchors of the true colors"}


def quality_table(reports: Sequence[Report]) -> str:
    """Every row of every checkpoint, gray and original once."""
    parts = []
    for report in reports:
        compact = report["found"]["compact"]
        rows = [_row(row) for row in compact["rows"]]
        if beside := report["found"].get("beside"):
            name = f", {beside['settings']['checkpoint']}"
            rows += [_row(row, name) for row in beside["rows"] if row["anchors"]]
        settings = compact["settings"]
        checkpoints = " and ".join(
            f"{found['settings']['checkpoint']} (SHA-256 {found['settings']['sha256'][:8]})"
            for found in report["found"].values()
        )
        what = (
            f"{checkpoints}, {settings['precision']}, {settings['photographs']} photographs, "
            f"{settings['size']}x{settings['size']}."
        )
        parts += [table(["", "K", "vividness", *COLUMNS], rows), f"{what} {caption(report)}"]
    return "\n\n".join(parts)


TABLES = {"quality": quality_table}


def _row(row: Report, suffix: str = "") -> list[str]:
    figures = row["metrics"]
    cells = [
        NONE if figures.get(name) is None else f"{figures[name]:.{decimals}f}"
        for name, decimals in COLUMNS.items()
    ]
    anchors = NONE if row["anchors"] is None else str(row["anchors"])
    read = NONE if row["vividness"] is None else f"{row['vividness']:g}"
    name: str = NAMES.get(row["name"]) or row["name"]
    return [name + suffix, anchors, read, *cells]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--truth", type=Path, required=True, metavar="DIR")
    parser.add_argument("--last", type=int, metavar="N", help="only the last N photographs")
    parser.add_argument("--checkpoint", type=Path, default=COMPACT, metavar="FILE")
    parser.add_argument("--anchors", type=int, nargs="+", default=ANCHORS, metavar="K")
    parser.add_argument("--vividness", type=float, nargs="+", default=[], metavar="V")
    parser.add_argument("--beside", type=Path, metavar="FILE", help="another one, first K only")
    parser.add_argument("--json", type=Path, metavar="FILE")
    a = parser.parse_args(argv)
    report = measure(a)
    print(quality_table([report]))
    if a.json:
        save(report, a.json)


if __name__ == "__main__":
    main()
