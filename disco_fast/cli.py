"""The ``disco-fast`` command: colorize pictures, see what is installed, get and convert weights."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from . import __version__, _library
from .checkpoints import load_checkpoint, save_checkpoint
from .colorizer import Colorizer
from .download import OFFICIAL, DownloadError, cache_folder, download, file_sha256
from .engine import precision
from .image_files import SUFFIXES, ImageFileError, Picture, read_image, write_image

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
"""Exit statuses: all done, some of it failed, nothing was begun, Ctrl-C."""


class UsageError(Exception):
    """The request makes no sense or is refused; nothing was begun."""


@dataclass(frozen=True)
class Job:
    """A picture file to colorize, and the file to write for each variant."""

    source: Path
    targets: tuple[Path, ...]


def main(argv: list[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: the arguments; by default those of the process.

    Returns:
        The exit status: 0 all done, 1 some of it failed, 2 wrong usage, 130 interrupted.
    """
    arguments = _parser().parse_args(argv)
    try:
        return arguments.run(arguments)
    except UsageError as error:
        _say(str(error))
        return USAGE
    except (DownloadError, ImageFileError, OSError, ValueError) as error:
        _say(_reason(error))
        return FAILED
    except KeyboardInterrupt:
        _say("interrupted")
        return INTERRUPTED
