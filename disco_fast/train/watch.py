"""What a person sees of a training: a progress bar, and TensorBoard's curves and pictures."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import islice
from types import FrameType

import numpy as np
import torch
from torch import Tensor

from .. import ops
from ..color import AB_SCALE, normalize_lightness
from ..image_files import ImageFileError
from ..photographs import Photographs, middle_square, to_lab
from .processes import Processes
from .stream import readable
from .trainer import Trainer

_SAMPLES = 8


class Watch:
    """A context in which a trainer runs; only the first process shows anything.

    Ctrl-C and SIGTERM end the training after the step that is under way.

    Args:
        trainer: the training.
        photographs: the last eight that can be read are the sample pictures.
        size: side of a sample in pixels.
        processes: which one this is.

    Attributes:
        interrupted: whether a signal came.

    Raises:
        ImageFileError: none of the last photographs can be read.
        ModuleNotFoundError: the extra ``train`` is not installed.
    """

    def __init__(self, trainer: Trainer, photographs: Photographs, size: int, processes: Processes):
        try:
            from torch.utils.tensorboard import SummaryWriter
            from tqdm import tqdm
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"training needs {error.name}: pip install 'disco_fast[train]'"
            ) from None
        self.interrupted = False
        self._trainer, self._resources = trainer, ExitStack()
        labs = [to_lab(middle_square(pixels, size)) for pixels in _last(photographs)]
        self._samples = torch.stack([torch.from_numpy(lab).permute(2, 0, 1) for lab in labs])
        batch = trainer.schedule.batch
        self._bar = tqdm(
            total=trainer.steps * batch,
            initial=trainer.step * batch,
            unit=" images",
            smoothing=0.02,
            disable=not processes.first,
        )
        self._resources.callback(self._bar.close)
        if processes.first:
            self._writer = SummaryWriter(str(trainer.folder), purge_step=trainer.step)
            self._resources.callback(self._writer.close)

    def __enter__(self) -> Watch:
        for number in (signal.SIGINT, signal.SIGTERM):
            before = signal.signal(number, self._interrupt)
            self._resources.callback(signal.signal, number, before)
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.interrupted = True

    def should_stop(self, max_minutes: float) -> Callable[[], bool]:
        """For `Trainer.run`: a signal came, or the minutes from now on are up."""
        end = time.monotonic() + 60 * max_minutes
        return lambda: self.interrupted or time.monotonic() > end

    def report(self, terms: dict[str, float]) -> None:
        """For `Trainer.run`: the bar and the curves."""
        done = self._trainer.step * self._trainer.schedule.batch
        shown = {name: f"{term:.3g}" for name, term in terms.items()}
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(done - self._bar.n)
        for name, term in terms.items():
            self._writer.add_scalar(f"train/{name}", term, self._trainer.step)

    def show_samples(self) -> None:
        """For `Trainer.run`: from above, gray, colorized by the averaged weights, original."""
        device = next(self._trainer.average.parameters()).device
        with torch.inference_mode():
            lab = self._samples.to(device)
            lightness, truth = lab[:, :1].contiguous(), lab[:, 1:].contiguous()
            cells = lab.shape[2] // self._trainer.average.cell_size * 2
            out = self._trainer.average(normalize_lightness(lightness), min(8, cells))
            rows = (truth * 0, AB_SCALE * out.ab, truth)
            pictures = [_side_by_side(ops.lab_to_rgb(lightness, ab, True)) for ab in rows]
        self._writer.add_image("samples", torch.cat(pictures, dim=1).cpu(), self._trainer.step)


def _last(photographs: Photographs) -> list[np.ndarray]:
    """The last ones that can be read, in their order."""
    last = range(len(photographs))[-2 * _SAMPLES :]
    found = list(islice(readable(photographs, reversed(last)), _SAMPLES))
    if not found:
        raise ImageFileError(f"none of the last {len(last)} photographs can be read")
    return found[::-1]


def _side_by_side(pictures: Tensor) -> Tensor:
    return torch.cat(list(pictures), dim=2)
