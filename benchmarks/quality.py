"""The quality of the compact checkpoint's colours, as a report with its context.

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

import _quality_report
from _measure import Report, context, default_device, save

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
    found = {"compact": evaluation(a.truth, a.checkpoint, a.anchors, a.vividness, a.last)}
    if a.beside:
        found["beside"] = evaluation(a.truth, a.beside, a.anchors[:1], a.vividness, a.last)
    report = {
        "what": "quality",
        "context": context(default_device()),
        "settings": found["compact"]["settings"],
        "found": found,
    }
    print(_quality_report.quality([report]))
    if a.json:
        save(report, a.json)


if __name__ == "__main__":
    main()
