"""Colorizing picture files: reading, computing, writing."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from .. import pipeline
from ..colorizer import Colorizer
from ..console import reason, say, show_progress
from ..engine.batching import enough
from ..image_files import (
    ImageFileError,
    Picture,
    read_image,
    to_pixels,
    to_tensor,
    write_image,
)
from .coloring import Coloring
from .failures import Failures
from .plan import Job


class Loaded(NamedTuple):
    """A picture that was read: the tensor that Colorizer takes, and what goes around it."""

    image: torch.Tensor
    alpha: np.ndarray | None
    dtype: np.dtype


class Colorizing(pipeline.Steps[Job, Loaded, torch.Tensor]):
    """Colorizes picture files; alpha, depth and size stay as they are.

    Args:
        colorizer: the network to use.
        coloring: how it is used.
        options: keyword arguments of ``Colorizer.colorize``.
        total: how many jobs there are.
        failures: where failed jobs are noted, if anywhere.

    Attributes:
        failed: how many jobs have failed so far.
    """

    def __init__(
        self,
        colorizer: Colorizer,
        coloring: Coloring,
        options: dict[str, Any],
        total: int,
        failures: Failures | None = None,
    ):
        self._colorizer, self._coloring, self._options = colorizer, coloring, options
        self._total, self._finished, self.failed = total, 0, 0
        self._failures = failures
        self._on_gpu = colorizer.device.type == "cuda"

    def limits(self) -> pipeline.Limits:
        """Two computing threads on a GPU, so that one copies while the other computes."""
        pixels = self._options["working_size"] ** 2 * self._options["variants"]
        batch = enough(self._colorizer.device, pixels)
        return pipeline.Limits(batch, computing=2 if self._on_gpu else 1)

    def read(self, job: Job) -> Loaded:
        """See `pipeline.Steps`."""
        picture = read_image(job.source)
        image = to_tensor(picture.pixels)
        if self._on_gpu:
            image = image.pin_memory()
        return Loaded(image, picture.alpha, picture.pixels.dtype)

    def pixels(self, picture: Loaded) -> int:
        """Those of its results, which are as many as its variants."""
        return picture.image.shape[1] * picture.image.shape[2] * self._options["variants"]

    def group(self, picture: Loaded) -> tuple[int, int]:
        """See `pipeline.Steps`."""
        height, width = picture.image.shape[1:]
        return self._colorizer.working_shape(height, width, self._options["working_size"])

    def begin_computing(self) -> None:
        """See `pipeline.Steps`."""
        if self._on_gpu:
            stream = torch.cuda.Stream(self._colorizer.device)
            # The weights may still be on their way.
            stream.wait_stream(torch.cuda.current_stream(self._colorizer.device))
            torch.cuda.set_stream(stream)

    def compute(self, pictures: list[Loaded]) -> list[torch.Tensor]:
        """See `pipeline.Steps`."""
        return self._coloring([picture.image for picture in pictures])

    def write(self, job: Job, picture: Loaded, result: torch.Tensor) -> None:
        """See `pipeline.Steps`."""
        variants = result.reshape(-1, *result.shape[-3:])
        for number, target in zip(job.numbers, job.targets, strict=True):
            image = variants[number]
            target.parent.mkdir(parents=True, exist_ok=True)
            write_image(target, Picture(to_pixels(image, picture.dtype), picture.alpha))

    def finished(self, job: Job, error: Exception | None) -> None:
        """See `pipeline.Steps`."""
        self._finished += 1
        if error is not None:
            if not isinstance(error, (OSError, ValueError, RuntimeError, MemoryError)):
                raise error
            self.failed += 1
            named = isinstance(error, ImageFileError)
            say(str(error) if named else f"{job.source}: {reason(error)}")
            if self._failures is not None:
                self._failures.add(job.source, reason(error))
        show_progress(self._finished, self._total, job.source)
