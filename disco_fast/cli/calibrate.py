"""``disco-fast calibrate``: what int8 needs to know of a checkpoint, measured on photographs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..checkpoints import load_checkpoint, save_with_ranges
from ..console import DONE, UsageError, positive, say
from ..engine.calibration import measure_ranges
from ..io.atomic import remove_stale
from ..io.photographs import Photographs, middle_square, to_lab

_PICTURES = 32
_SIZE = 256


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The arguments of ``disco-fast calibrate``."""
    add = command.add_argument
    add("source", type=Path, metavar="SOURCE", help="the checkpoint to read, of any kind")
    add("target", type=Path, metavar="TARGET", help="the .safetensors file to write")
    add("--data", type=Path, required=True, metavar="PATH", help="a folder of photographs")
    add(
        "--pictures",
        type=positive,
        default=_PICTURES,
        metavar="NUMBER",
        help="how many of them, spread over all; default %(default)s",
    )
    add("--overwrite", action="store_true", help="replace TARGET if it exists")


def run(arguments: argparse.Namespace) -> int:
    """Measure, and write the checkpoint with what was found.

    Raises:
        UsageError, FileNotFoundError, CheckpointError: nothing was begun.
        ImageFileError: a photograph cannot be read; nothing was written.
    """
    source, target = arguments.source, arguments.target
    if target.suffix.lower() != ".safetensors":
        raise UsageError(f"{target}: the name of a calibrated checkpoint ends in .safetensors")
    if target.exists() and not arguments.overwrite:
        raise UsageError(f"{target} exists; choose another name, or add --overwrite")
    network, photographs = load_checkpoint(source), Photographs(arguments.data)
    chosen = np.linspace(0, len(photographs) - 1, min(arguments.pictures, len(photographs)))
    ranges = measure_ranges(network, _lightness(photographs, np.rint(chosen).astype(int).tolist()))
    remove_stale(target.parent)
    save_with_ranges(source, target, ranges, replace=arguments.overwrite)
    say(f"{target} is written, with what {len(chosen)} photographs say")
    return DONE


def _lightness(photographs: Photographs, indices: list[int]) -> Iterator[Tensor]:
    """As the network takes it, [1,1,256,256]."""
    for index in indices:
        lightness = to_lab(middle_square(photographs.read(index), _SIZE))[..., 0]
        yield torch.from_numpy((lightness - 50) / 50)[None, None]
