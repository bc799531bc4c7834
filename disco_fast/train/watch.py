"""What a person sees of a training: a progress bar, and TensorBoard's curves and pictures."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import islice
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import ops
from .._extras import need
from ..color import AB_SCALE, normalize_lightness
from ..io.images import ImageFileError
from ..io.photographs import Photographs, middle_square, to_lab
from ..model import DISCO
from .processes import Processes
from .stream import readable
from .trainer import Trainer

_SAMPLES = 8


class Interruption:
    """A context in which Ctrl-C and SIGTERM are noted, for what ends after the step under way.

    Attributes:
        came: whether there was one.
    """

    def __init__(self) -> None:
        self.came, self._resources = False, ExitStack()

    def __enter__(self) -> Interruption:
        for number in (signal.SIGINT, signal.SIGTERM):
            before = signal.signal(number, self._note)
            self._resources.callback(signal.signal, number, before)
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.came = True


def progress_bar(total: int, unit: str, done: int = 0, shown: bool = True) -> Any:
    """A progress bar of tqdm.

    Raises:
        MissingExtraError: the extra ``train`` is not installed.
    """
    tqdm = need("train", "tqdm").tqdm
    return tqdm(total=total, initial=done, unit=f" {unit}", smoothing=0.02, disable=not shown)


class Watch:
    """A context in which a trainer runs; only the first process shows anything.

    Ctrl-C and SIGTERM end the training after the step that is under way.

    Args:
        trainer: the training.
        samples: pictures to show after each save, or none.
        processes: which one this is.

    Raises:
        MissingExtraError: the extra ``train`` is not installed.
    """

    def __init__(self, trainer: Trainer, samples: Samples | None, processes: Processes):
        curves = need("train", "torch.utils.tensorboard")
        self._trainer, self._resources = trainer, ExitStack()
        self._samples = samples
        batch = trainer.schedule.batch
        self._bar = progress_bar(
            trainer.steps * batch, "images", trainer.step * batch, processes.first
        )
        self._resources.callback(self._bar.close)
        if processes.first:
            self._writer = curves.SummaryWriter(str(trainer.folder), purge_step=trainer.step)
            self._resources.callback(self._writer.close)

    def __enter__(self) -> Watch:
        self._interruption = self._resources.enter_context(Interruption())
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C or SIGTERM came."""
        return self._interruption.came

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
        """For `Trainer.run`: the pictures by the averaged weights."""
        if self._samples is not None:
            picture = self._samples.colorized(self._trainer.average)
            self._writer.add_image("samples", picture, self._trainer.step)


class Samples:
    """The last eight photographs of a collection that can be read, to look at.

    Args:
        photographs: the collection.
        size: side of a sample in pixels.

    Raises:
        ImageFileError: none of the last photographs can be read.
    """

    def __init__(self, photographs: Photographs, size: int):
        labs = [to_lab(middle_square(pixels, size)) for pixels in _last(photographs)]
        self._labs = torch.stack([torch.from_numpy(lab).permute(2, 0, 1) for lab in labs])

    @torch.inference_mode()
    def colorized(self, network: DISCO) -> Tensor:
        """From above, gray, colorized, original; [3,3*size,8*size] uint8."""
        lab = self._labs.to(next(network.parameters()).device)
        lightness, truth = lab[:, :1].contiguous(), lab[:, 1:].contiguous()
        cells = lab.shape[2] // network.cell_size * 2
        out = network(normalize_lightness(lightness), min(8, cells))
        rows = (truth * 0, AB_SCALE * out.ab, truth)
        pictures = [_side_by_side(ops.lab_to_rgb(lightness, ab, True)) for ab in rows]
        return torch.cat(pictures, dim=1).cpu()


def _last(photographs: Photographs) -> list[np.ndarray]:
    """The last ones that can be read, in their order."""
    last = range(len(photographs))[-2 * _SAMPLES :]
    found = list(islice(readable(photographs, reversed(last)), _SAMPLES))
    if not found:
        raise ImageFileError(f"none of the last {len(last)} photographs can be read")
    return found[::-1]


def _side_by_side(pictures: Tensor) -> Tensor:
    return torch.cat(list(pictures), dim=2)
