"""The ``disco-fast`` command: colorize pictures, see what is installed, get and convert weights."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from .. import __version__, _library
from ..checkpoints import load_checkpoint, save_checkpoint
from ..colorizer import Colorizer
from ..console import (
    DONE,
    FAILED,
    INTERRUPTED,
    USAGE,
    UsageError,
    reason,
    say,
    second_interrupt_ends,
)
from ..download import OFFICIAL, cache_folder, download, file_sha256
from ..engine import precision
from ..io.atomic import remove_stale
from ..io.libvips import pyvips
from ..io.opencv import opencv
from . import calibrate, colorize, evaluate, export, train, video, web
from .options import add_conversion_arguments, check_target


def main(argv: list[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: the arguments; by default those of the process.

    Returns:
        The exit status: 0 all done, 1 some of it failed, 2 wrong usage, 130 interrupted.
    """
    if sys.stderr is None:  # closed; its number must not go to a file that is written to
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    arguments = _parser().parse_args(argv)
    try:
        with second_interrupt_ends():
            return arguments.run(arguments)
    except UsageError as error:
        say(str(error))
        return USAGE
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        say(reason(error))
        return FAILED
    except KeyboardInterrupt:
        say("interrupted")
        return INTERRUPTED


def _run_info(arguments: argparse.Namespace) -> int:
    for name, fact in _facts():
        print(f"{name:14} {fact}")
    return DONE


def _facts() -> Iterator[tuple[str, str]]:
    yield "disco_fast", __version__
    yield "python", platform.python_version()
    yield "torch", str(torch.__version__)
    yield "numpy", np.__version__
    yield "libvips", ".".join(str(pyvips.version(part)) for part in range(3))
    yield "opencv", _opencv()
    yield "processor", f"{_processor()}, {torch.get_num_threads()} threads"
    yield "gpu", ", ".join(_gpus()) or "none that torch can use"
    for half in _library.halves():
        yield f"{half.name} kernels", f"{'active' if half.active else 'not active'}: {half.why}"
    for kind in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        meaning = precision.resolve("auto", torch.device(kind))
        yield f"{kind} precision", f"auto means {meaning}"
    yield "launches", _launches()
    yield "downloads", str(cache_folder())


def _opencv() -> str:
    try:
        return opencv("this").__version__
    except ImportError as error:
        return f"none: {error.__cause__}"


def _launches() -> str:
    """How a picture's steps reach the device, found out by a small one that comes twice."""
    try:
        colorizer = Colorizer()
        for _ in range(2):
            colorizer.colorize(torch.zeros(1, 32, 32), working_size=32)
    except (RuntimeError, OSError) as error:
        return f"fail: {reason(error)}"
    return colorizer.launching


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):  # no Linux, or a processor that Linux does not name there
        return platform.processor() or platform.machine()


def _gpus() -> Iterator[str]:
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        major, minor = torch.cuda.get_device_capability(index)
        yield f"{torch.cuda.get_device_name(index)} (compute capability {major}.{minor})"


def _run_convert(arguments: argparse.Namespace) -> int:
    source, target = arguments.source, arguments.target
    if not source.is_file():
        raise UsageError(f"{source}: there is no such file")
    check_target(arguments, "converted")
    remove_stale(target.parent)
    save_checkpoint(load_checkpoint(source), target, replace=arguments.overwrite)
    say(f"{target} is written")
    return DONE


def _run_download(arguments: argparse.Namespace) -> int:
    path = download(arguments.name, arguments.folder, arguments.sha256)
    say(f"SHA-256 {file_sha256(path)}")
    say(f"use it by: disco-fast colorize --checkpoint {path} ...")
    print(path)
    return DONE


def _sha256(text: str) -> str:
    if len(text) != 64 or not set(text.lower()) <= set("0123456789abcdef"):
        raise argparse.ArgumentTypeError(f"{text!r} is not 64 hexadecimal digits")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="disco-fast",
        description="Colorize gray photographs with the DISCO network.",
        epilog="Exit status: 0 all done, 1 some of it failed, 2 wrong usage, 130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"disco_fast {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, purpose, add_arguments, run in (
        ("colorize", "colorize pictures", colorize.add_arguments, colorize.run),
        (
            "anchors",
            "write a picture's anchors, to edit them and give them to colorize",
            colorize.add_anchors_arguments,
            colorize.run_anchors,
        ),
        ("video", "colorize a film", video.add_arguments, video.run),
        ("web", "open a page to colorize on", web.add_arguments, web.run),
        ("info", "show what is installed, and which kernels run and why", None, _run_info),
        ("convert", "convert a checkpoint to safetensors", add_conversion_arguments, _run_convert),
        ("download", "fetch an official checkpoint", _download_arguments, _run_download),
        (
            "calibrate",
            "measure what int8 needs to know of a checkpoint",
            calibrate.add_arguments,
            calibrate.run,
        ),
        ("export", "write the networks around the ops as ONNX", export.add_arguments, export.run),
        ("train", "train a network", train.add_arguments, train.run),
        ("evaluate", "measure the quality of colors", evaluate.add_arguments, evaluate.run),
    ):
        command = commands.add_parser(name, help=purpose, description=purpose.capitalize() + ".")
        command.set_defaults(run=run)
        if add_arguments:
            add_arguments(command)
    return parser


def _download_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add(
        "name",
        nargs="?",
        choices=tuple(OFFICIAL),
        default="disco",
        help="default disco, the recommended one; disco-c0.2 gives less saturated colors, "
        "disco-rand bears any placing of the anchors",
    )
    add("--folder", type=Path, metavar="DIR", help="where to put it; default: see info")
    add("--sha256", type=_sha256, metavar="HEX", help="refuse a file of another SHA-256")
