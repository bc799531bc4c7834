"""What an evaluation found: a table in Markdown, and the same with its settings as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..io.atomic import whole_file
from .colorings import Row
from .metrics import NAMES

_DECIMALS = {"SSIM": 3, "LPIPS": 3}  # of the others 2, as in the paper's Table 3


@dataclass(frozen=True)
class Report:
    """An evaluation.

    Attributes:
        settings: whatever the figures depend on; of paths the last name only.
        figures: of every row the metrics that it has a figure of.
        left_out: a sentence on each metric that is missing, and on each figure that is of fewer
            pictures than the others.
    """

    settings: Mapping[str, Any]
    figures: Mapping[Row, Mapping[str, float]]
    left_out: Sequence[str]

    def markdown(self) -> str:
        """A table with a row for each coloring, and below it what is left out."""
        lines = [["", "K", "vividness", *NAMES], ["---"] * (len(NAMES) + 3)]
        for row, figures in self.figures.items():
            anchors = "-" if row.n_anchors is None else str(row.n_anchors)
            vividness = "-" if row.vividness is None else f"{row.vividness:g}"
            lines.append([row.name, anchors, vividness, *(_cell(name, figures) for name in NAMES)])
        table = [f"| {' | '.join(line)} |" for line in lines]
        return "\n".join([*table, *(f"\n{sentence}" for sentence in self.left_out)])

    def save(self, path: Path) -> None:
        """Write it as JSON, whole or not at all; a figure that there is none of is null."""
        content = {
            "what": "evaluate",
            "settings": dict(self.settings),
            "rows": [
                {
                    "name": row.name,
                    "anchors": row.n_anchors,
                    "vividness": row.vividness,
                    "metrics": {name: figures.get(name) for name in NAMES},
                }
                for row, figures in self.figures.items()
            ],
            "left_out": list(self.left_out),
        }
        with whole_file(path) as partial:
            partial.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


def _cell(name: str, figures: Mapping[str, float]) -> str:
    return f"{figures[name]:.{_DECIMALS.get(name, 2)}f}" if name in figures else "-"
