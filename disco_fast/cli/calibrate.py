"""``disco-fast calibrate``: what int8 needs to know of a checkpoint, measured on photographs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from torch import Tensor

from ..checkpoints import load_checkpoint, save_with_ranges
from ..color import normalize_lightness
from ..console import DONE, positive, say
from ..engine.calibration import measure_ranges
from ..evaluate.colorings import labs, read
from ..io.atomic import remove_stale
from ..io.photographs import Photographs
from .options import add_conversion_arguments, check_target

_PICTURES = 32
_SIZE = 256


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The arguments of ``disco-fast calibrate``."""
    add_conversion_arguments(command)
    add = command.add_argument
    add("--data", type=Path, required=True, metavar="PATH", help="a folder of photographs")
    add(
        "--pictures",
        type=positive,
        default=_PICTURES,
        metavar="NUMBER",
        help="how many of them, spread over all; default %(default)s",
    )


def run(arguments: argparse.Namespace) -> int:
    """Measure, and write the checkpoint with what was found.

    Raises:
        UsageError, FileNotFoundError, CheckpointError: nothing was begun.
        ImageFileError: a photograph cannot be read; nothing was written.
    """
    source, target = arguments.source, arguments.target
    check_target(arguments, "calibrated")
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
        yield normalize_lightness(labs([read(photographs, index, _SIZE)])[:, :1])
