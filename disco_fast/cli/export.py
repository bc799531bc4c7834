"""``disco-fast export``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..checkpoints import COMPACT, load_checkpoint, random_network
from ..console import DONE, UsageError, say
from ..export.networks import export_onnx
from ..io.atomic import remove_stale


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The arguments of ``disco-fast export``."""
    add = command.add_argument
    add("folder", type=Path, metavar="FOLDER", help="where the four .onnx files are written")
    add(
        "--checkpoint",
        metavar="FILE",
        help="the weights, or 'random'; default: the compact network that comes with the package",
    )
    add("--overwrite", action="store_true", help="replace files that exist")


def run(arguments: argparse.Namespace) -> int:
    """Write the files; each is checked with onnxruntime first.

    Raises:
        UsageError, FileNotFoundError, ImportError: nothing was begun.
        MismatchError: a file would compute something else; it is not there.
    """
    folder, checkpoint = arguments.folder, arguments.checkpoint
    there = sorted(folder.glob("*.onnx")) if folder.is_dir() else []
    if there and not arguments.overwrite:
        raise UsageError(f"{there[0]} exists; choose another folder, or add --overwrite")
    network = random_network() if checkpoint == "random" else load_checkpoint(checkpoint or COMPACT)
    folder.mkdir(parents=True, exist_ok=True)
    remove_stale(folder)
    for path in export_onnx(network, folder, replace=arguments.overwrite):
        say(f"{path} is written, and equals the original in onnxruntime")
    return DONE
