"""An endless, numbered stream of crops: crop n is the same in every run, process and worker.

A run that goes on needs to know only the number of its next step; several processes share a stream
by taking turns.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ..io.images import ImageFileError
from ..io.photographs import Photographs, resized, to_lab

_MOST_DAMAGED = 16  # photographs in a row, before it is no accident


def readable(photographs: Photographs, indices: Iterable[int]) -> Iterator[np.ndarray]:
    """The photographs of these indices, one by one; a damaged one is left out, with a warning."""
    for index in indices:
        try:
            yield photographs.read(index)
        except ImageFileError as error:
            warnings.warn(f"left out: {error}", stacklevel=2)


class Crops(Dataset[Tensor]):
    """Random squares of photographs, mirrored half of the time.

    Every photograph comes once before any comes again, in an order of its own each time.

    Args:
        photographs: where they come from.
        count: only the first so many are used, 1..len(photographs).
        size: side of a crop in pixels, after resizing.
        smallest: side of the smallest crop before that, as a share of the photograph's shorter
            side, in (0, 1]; the area is uniformly distributed.
        seed: of order and crops.
    """

    def __init__(self, photographs: Photographs, count: int, size: int, smallest: float, seed: int):
        self._photographs, self._count = photographs, count
        self._size, self._smallest, self._seed = size, smallest, seed

    def __getitem__(self, number: int) -> Tensor:
        """Crop `number` of the stream, [3,size,size] fp32 Lab; L 0-100.

        A photograph that cannot be read gives its turn to the next one, with a warning.

        Raises:
            ImageFileError: 16 in a row cannot be read.
        """
        draws = np.random.default_rng((self._seed, number))
        square = self._square(self._readable(number), draws)
        if draws.random() < 0.5:
            square = square[:, ::-1]
        return torch.from_numpy(to_lab(resized(square, self._size))).permute(2, 0, 1)

    def _readable(self, number: int) -> np.ndarray:
        turns = range(number, number + _MOST_DAMAGED)
        places = (shuffled(turn, self._count, self._seed) for turn in turns)
        found = next(readable(self._photographs, places), None)
        if found is None:
            raise ImageFileError(f"{_MOST_DAMAGED} photographs in a row cannot be read")
        return found

    def _square(self, pixels: np.ndarray, draws: np.random.Generator) -> np.ndarray:
        height, width = pixels.shape[:2]
        share = np.sqrt(draws.uniform(self._smallest**2, 1))
        side = max(1, round(min(height, width) * share))
        top, left = draws.integers(0, (height - side + 1, width - side + 1))
        return pixels[top : top + side, left : left + side]


def shuffled(number: int, count: int, seed: int) -> int:
    """Place `number` of an endless order in which each of `count` comes once before any again."""
    epoch, place = divmod(number, count)
    return int(_order(epoch, count, seed)[place])


@lru_cache(2)
def _order(epoch: int, count: int, seed: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch, count)).permutation(count)


class Turns(Sampler[list[int]]):
    """The crops of each step from `first` on, for one process of several.

    Args:
        first, last: steps, `last` not included.
        batch: crops of a step in this process.
        rank, processes: whose turn.
    """

    def __init__(self, first: int, last: int, batch: int, rank: int = 0, processes: int = 1):
        self._steps, self._batch = range(first, last), batch
        self._rank, self._processes = rank, processes

    def __len__(self) -> int:
        return len(self._steps)

    def __iter__(self) -> Iterator[list[int]]:
        for step in self._steps:
            start = (step * self._processes + self._rank) * self._batch
            yield list(range(start, start + self._batch))


def batches(
    samples: Dataset[Tensor], turns: Iterable[list[int]], workers: int, pinned: bool = False
) -> DataLoader[Tensor]:
    """The batches of numbered samples, read ahead.

    Args:
        samples: anything that can be pickled.
        turns: the numbers of each batch.
        workers: processes that read; 0: this one.
        pinned: whether batches lie in memory that a GPU copies from at once.
    """
    return DataLoader(
        samples,
        batch_sampler=turns,  # type: ignore[arg-type]
        num_workers=workers,
        pin_memory=pinned,
        generator=torch.Generator(),  # or it would draw from the global one
        # libvips has threads, which a forked process lacks and would wait for without end.
        multiprocessing_context="spawn" if workers else None,
    )
