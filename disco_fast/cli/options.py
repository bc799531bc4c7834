"""Command line options that several commands have: which network, where, and how large it works."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..colorizer import Colorizer
from ..console import UsageError, positive, reason, say
from ..engine.precision import PRECISIONS
from ..options import ColorizeOptions


def add_network_options(command: argparse.ArgumentParser) -> None:
    """Options that `open_colorizer` reads."""
    add = command.add_argument
    add(
        "--checkpoint",
        metavar="FILE",
        help="the weights to use, or 'random' for fixed random ones, to try and to time; "
        "default: the compact network that comes with the package",
    )
    add("--device", help="cpu, cuda, cuda:1, ...; default: cuda if there is one")
    add(
        "--precision",
        choices=PRECISIONS,
        default="auto",
        help="the arithmetic of the network; default auto, see 'disco-fast info'",
    )


def add_conversion_arguments(command: argparse.ArgumentParser) -> None:
    """What a command takes that writes a checkpoint anew; `check_target` reads some of it."""
    add = command.add_argument
    add("source", type=Path, metavar="SOURCE", help="the checkpoint to read, of any kind")
    add("target", type=Path, metavar="TARGET", help="the .safetensors file to write")
    add("--overwrite", action="store_true", help="replace TARGET if it exists")


def check_target(arguments: argparse.Namespace, made: str) -> None:
    """Refuse a checkpoint's name before any work.

    Args:
        arguments: of `add_conversion_arguments`.
        made: what the checkpoint is then, as in "converted".

    Raises:
        UsageError: it has another suffix, or exists and is not to be replaced.
    """
    target = arguments.target
    if target.suffix.lower() != ".safetensors":
        raise UsageError(f"{target}: the name of a {made} checkpoint ends in .safetensors")
    if target.exists() and not arguments.overwrite:
        raise UsageError(f"{target} exists; choose another name, or add --overwrite")


def add_picture_options(command: argparse.ArgumentParser) -> None:
    """Settings of `Colorizer.colorize` of the same name."""
    add = command.add_argument
    default = ColorizeOptions()
    add(
        "--seed",
        type=int,
        default=default.seed,
        help="another seed gives other colors; default %(default)s",
    )
    add(
        "--working-size",
        type=positive,
        default=default.working_size,
        metavar="PIXELS",
        help="the side of the square that colors are decided on; default %(default)s",
    )
    add(
        "--vividness",
        type=float,
        metavar="SHARE",
        help="from 0, the most likely colors, to 1, vivid ones; default: what suits the weights",
    )


def open_colorizer(arguments: argparse.Namespace) -> Colorizer:
    """The network that was asked for, announced on standard error.

    Raises:
        UsageError: it cannot be had.
    """
    checkpoint = arguments.checkpoint
    try:
        colorizer = Colorizer(checkpoint, arguments.device, arguments.precision)
    except (OSError, ValueError) as error:
        raise UsageError(reason(error)) from error
    if checkpoint is None:
        weights = "the compact network of the package"
    elif checkpoint == "random":
        weights = "random weights: the colors mean nothing"
    else:
        weights = checkpoint
    say(f"device {colorizer.device}, precision {colorizer.precision}, {weights}")
    return colorizer
