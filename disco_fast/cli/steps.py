"""Colorizing picture files: reading, computing, writing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ..colorizer import Colorizer
from ..console import reason, say, show_progress
from ..engine.batching import enough
from ..io import pipeline
from ..io.bounds import MEGAPIXELS, largest_file
from ..io.images import (
    ImageFileError,
    Pages,
    Picture,
    decode_pages,
    encode_pages,
    read_pages,
    to_pixels,
    to_tensor,
    write_pages,
)
from ..io.kinds import kind_of
from ..io.metadata import Kept
from ..options import ColorizeOptions
from .coloring import Coloring
from .failures import Failures
from .plan import STREAM, Job

_SUFFIXES = {"JPEG": ".jpg", "TIFF": ".tif", "BigTIFF": ".tif", "WebP": ".webp", "GIF": ".gif"}


@dataclass(frozen=True)
class Writing:
    """How results are written.

    Attributes:
        suffix: of what goes to standard output; None: that of what came in, or ``.png``.
        quality: of lossy formats, see `write_image`.
        mark: whether they say that an algorithm made their colors.
        replace: whether a file is replaced that exists when they are written.
        megapixels: the most that a picture may have.
    """

    suffix: str | None = None
    quality: int | None = None
    mark: bool = True
    replace: bool = False
    megapixels: float = MEGAPIXELS


_AS_USUAL = Writing()


class Around(NamedTuple):
    """What goes around the colors of a picture."""

    alpha: np.ndarray | None
    dtype: np.dtype
    kept: Kept


class Loaded(NamedTuple):
    """A file that was read: the tensors that Colorizer takes, and what goes around each."""

    images: list[torch.Tensor]
    around: list[Around]
    times: tuple[int, ...] | None
    loops: int
    suffix: str

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the first picture."""
        height, width = self.images[0].shape[1:]
        return height, width


class Colorizing(pipeline.Steps[Job, Loaded, list[torch.Tensor]]):
    """Colorizes picture files; alpha, depth, size and what they say besides stay as they are.

    Args:
        colorizer: the network to use.
        coloring: how it is used.
        options: those of ``coloring``.
        total: how many jobs there are.
        failures: where failed jobs are noted, if anywhere.
        writing: how results are written.

    Attributes:
        failed: how many jobs have failed so far.
    """

    def __init__(
        self,
        colorizer: Colorizer,
        coloring: Coloring,
        options: ColorizeOptions,
        total: int,
        failures: Failures | None = None,
        writing: Writing = _AS_USUAL,
    ):
        self._colorizer, self._coloring, self._options = colorizer, coloring, options
        self._total, self._finished, self.failed = total, 0, 0
        self._failures, self._writing = failures, writing
        self._on_gpu = colorizer.device.type == "cuda"

    def limits(self) -> pipeline.Limits:
        """Two computing threads on a GPU, so that one copies while the other computes."""
        pixels = self._options.working_size**2 * self._options.variants
        batch = enough(self._colorizer.device, pixels)
        return pipeline.Limits(batch, computing=2 if self._on_gpu else 1)

    def read(self, job: Job) -> Loaded:
        """See `pipeline.Steps`."""
        suffix = self._writing.suffix or ".png"
        if job.source == STREAM:
            data = sys.stdin.buffer.read(largest_file(self._writing.megapixels) + 1)
            suffix = self._writing.suffix or _SUFFIXES.get(kind_of(data) or "", ".png")
            pages = decode_pages(data, self._writing.megapixels)
        else:
            pages = read_pages(job.source, self._writing.megapixels)
        images = [to_tensor(picture.pixels) for picture in pages.pictures]
        if self._on_gpu:
            images = [image.pin_memory() for image in images]
        around = [Around(p.alpha, p.pixels.dtype, p.kept) for p in pages.pictures]
        return Loaded(images, around, pages.times, pages.loops, suffix)

    def pixels(self, picture: Loaded) -> int:
        """Those of its results, which are as many as its variants."""
        pixels = sum(image.shape[1] * image.shape[2] for image in picture.images)
        return pixels * self._options.variants

    def group(self, picture: Loaded) -> tuple[int, int]:
        """See `pipeline.Steps`."""
        return self._colorizer.working_shape(*picture.size, self._options.working_size)

    def begin_computing(self) -> None:
        """See `pipeline.Steps`."""
        if self._on_gpu:
            stream = torch.cuda.Stream(self._colorizer.device)
            # The weights may still be on their way.
            stream.wait_stream(torch.cuda.current_stream(self._colorizer.device))
            torch.cuda.set_stream(stream)

    def compute(self, pictures: list[Loaded]) -> list[list[torch.Tensor]]:
        """See `pipeline.Steps`."""
        still = [image for p in pictures if not p.times for image in p.images]
        colored = iter(self._coloring(still) if still else [])
        return [
            self._coloring.animation(p.images) if p.times else list(islice(colored, len(p.images)))
            for p in pictures
        ]

    def write(self, job: Job, picture: Loaded, result: list[torch.Tensor]) -> None:
        """See `pipeline.Steps`."""
        variants = [image.reshape(-1, *image.shape[-3:]) for image in result]
        for number, target in zip(job.numbers, job.targets, strict=True):
            made = tuple(self._pictures(picture, [images[number] for images in variants]))
            self._write(target, Pages(made, picture.times, picture.loops), picture.suffix)

    def _pictures(self, picture: Loaded, images: list[torch.Tensor]) -> Iterator[Picture]:
        for image, (alpha, dtype, kept) in zip(images, picture.around, strict=True):
            said = kept.marked() if self._writing.mark else kept
            yield Picture(to_pixels(image, dtype), alpha, said)

    def _write(self, target: Path, pages: Pages, suffix: str) -> None:
        if target == STREAM:
            sys.stdout.buffer.write(encode_pages(pages, suffix, self._writing.quality))
            sys.stdout.buffer.flush()
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        write_pages(target, pages, self._writing.quality, self._writing.replace)

    def finished(self, job: Job, error: Exception | None) -> None:
        """See `pipeline.Steps`."""
        self._finished += 1
        if error is not None:
            if not isinstance(error, (ImportError, OSError, ValueError, RuntimeError, MemoryError)):
                raise error
            self.failed += 1
            named = isinstance(error, ImageFileError) and job.source != STREAM
            say(str(error) if named else f"{job.source}: {reason(error)}")
            if self._failures is not None:
                self._failures.add(job.source, reason(error))
        show_progress(self._finished, self._total, job.source)
