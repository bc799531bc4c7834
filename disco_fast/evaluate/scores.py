"""Metrics gathered over a collection, batch by batch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import inf
from statistics import fmean

import torch
from torch import Tensor

from .colorings import ORIGINAL, Row
from .metrics import Embed, Metric, PictureMetric, SetMetric


class Scores:
    """The figures of every row.

    Args:
        metrics: which.
    """

    def __init__(self, metrics: Sequence[Metric]):
        self._of_pictures = [metric for metric in metrics if isinstance(metric, PictureMetric)]
        self._of_sets = [metric for metric in metrics if isinstance(metric, SetMetric)]
        self._rows: tuple[Row, ...] = ()
        self._figures: dict[tuple[Row, str], list[float]] = defaultdict(list)
        self._embeddings: dict[tuple[Row, Embed], list[Tensor]] = defaultdict(list)

    def add(self, rows: Mapping[Row, Tensor]) -> None:
        """A batch: of every row the same pictures [N,3,H,W] uint8, the row ORIGINAL among them."""
        truth, self._rows = rows[ORIGINAL], tuple(rows)
        for row, pictures in rows.items():
            for metric in self._of_pictures:
                if row != ORIGINAL or not metric.compares:
                    figures = metric.of(pictures, truth).tolist()
                    self._figures[row, metric.name] += figures
            for embed in {metric.embed for metric in self._of_sets}:
                self._embeddings[row, embed].append(embed(pictures).cpu())

    def figures(self) -> dict[Row, dict[str, float]]:
        """Of every row the figures that it has.

        A mean is over the pictures whose figure is finite: PSNR is infinite of a picture that
        equals the truth, as a gray photograph without colors does. `notes` counts them.
        """
        return {row: self._means(row) | self._distances(row) for row in self._rows}

    def notes(self) -> list[str]:
        """A sentence on each figure that some pictures of the row have no part in."""
        notes = []
        for (row, name), figures in self._figures.items():
            infinite = len(figures) - len(_finite(figures))
            if infinite:
                anchors = f" with {row.n_anchors} anchors" if row.n_anchors else ""
                if row.vividness is not None:
                    anchors += f" at vividness {row.vividness:g}"
                notes.append(
                    f"{name} of {row.name}{anchors} leaves out {infinite} of {len(figures)} "
                    "pictures, which equal the original."
                )
        return notes

    def _means(self, row: Row) -> dict[str, float]:
        names = (metric.name for metric in self._of_pictures)
        finite = {name: _finite(self._figures.get((row, name), ())) for name in names}
        return {name: fmean(figures) for name, figures in finite.items() if figures}

    def _distances(self, row: Row) -> dict[str, float]:
        found = {}
        for metric in self._of_sets:
            if row != ORIGINAL or not metric.compares:
                made, truth = (self._embeddings[r, metric.embed] for r in (row, ORIGINAL))
                found[metric.name] = metric.of(torch.cat(made), torch.cat(truth))
        return found


def _finite(figures: Sequence[float]) -> list[float]:
    return [figure for figure in figures if figure != inf]
