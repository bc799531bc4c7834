"""Frames of a film in any order: the same as in their own."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from random import Random

import numpy as np
import pytest
import torch
from torch import Tensor

from disco_fast import Colorizer
from disco_fast.integrations import vapoursynth
from disco_fast.video.seeking import Seeker
from disco_fast.video.tracking import Tracker

pytest.importorskip("av")

from films import pan

CUT = 40


@pytest.fixture(scope="module")
def colorizer() -> Colorizer:
    return Colorizer(device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def frames() -> Tensor:
    """Two scenes, of 40 and 15 frames."""
    both = np.concatenate([pan("coffee", CUT), pan("rocket", 15)])
    return torch.from_numpy(both)[:, None]


class Film:
    """A film that notes which frames were read."""

    def __init__(self, colorizer: Colorizer, frames: Tensor, ahead: int = 4):
        self.noted: list[int] = []
        self._frames = frames
        self._seeker = Seeker(lambda: tracker(colorizer), ahead)

    def read(self, n: int) -> Tensor:
        self.noted.append(n)
        return self._frames[n]

    def __getitem__(self, n: int) -> Tensor:
        return self._seeker.colorize(n, self.read)


def tracker(colorizer: Colorizer) -> Tracker:
    return Tracker(colorizer.engine, working_size=48)


@pytest.fixture(scope="module")
def through(colorizer: Colorizer, frames: Tensor) -> Tensor:
    """All frames, as one tracker colorizes them."""
    whole = tracker(colorizer)
    colored = torch.cat([whole.colorize(frame[None]) for frame in frames])
    assert whole.cuts == 1
    return colored


def test_in_any_order_each_frame_is_as_in_the_whole_film(
    colorizer: Colorizer, frames: Tensor, through: Tensor
) -> None:
    film, order = Film(colorizer, frames), [*range(len(frames)), 3, CUT, CUT - 1, 0]
    Random(0).shuffle(order)
    for n in order[:20]:
        assert torch.equal(film[n], through[n]), n


def test_in_their_order_each_is_read_once(
    colorizer: Colorizer, frames: Tensor, through: Tensor
) -> None:
    film = Film(colorizer, frames)
    assert all(torch.equal(film[n], through[n]) for n in range(CUT - 5, CUT + 5))
    first = film.noted.index(CUT - 4, 2 * CUT - 9)  # after those that frame CUT - 5 has cost
    assert film.noted[first:] == list(range(CUT - 4, CUT + 5))


def test_a_jump_costs_what_lies_after_the_cut(colorizer: Colorizer, frames: Tensor) -> None:
    film = Film(colorizer, frames)
    film[CUT + 5]
    looked_at = list(range(CUT + 5 - 32, CUT + 6))
    assert film.noted == [*looked_at, *range(CUT, CUT + 6)]
    film.noted.clear()
    film[CUT + 8]  # what it goes on from is known
    assert film.noted[-3:] == [CUT + 6, CUT + 7, CUT + 8]
    assert min(film.noted) == CUT + 6


def test_from_several_threads(colorizer: Colorizer, frames: Tensor, through: Tensor) -> None:
    film = Film(colorizer, frames)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(film.__getitem__, range(12)))
    assert torch.equal(torch.stack(found), through[:12])


def test_without_vapoursynth_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vapoursynth", None)
    with pytest.raises(ImportError, match=r"disco_fast\[vapoursynth\]"):
        vapoursynth.colorize(object())
