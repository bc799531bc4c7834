"""``disco-fast video``: a film in colour; stopped, it goes on where it was."""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from ..colorizer import check_settings
from ..console import DONE, UsageError, positive, reason, say, show_progress
from ..files import whole_file
from ..memory import keep_memory
from ..options import add_network_options, add_picture_options, open_colorizer
from .film import FORMATS, Facts, FilmError, Frame, check_target, frames, join, look, write_part
from .tracking import Tracker

PART = 100  # frames between two points to go on from
_QUALITY = 18  # of H.264; hardly told from the original


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The arguments of ``disco-fast video``."""
    add = command.add_argument
    add("film", type=Path, metavar="IN", help="a film, of any kind that FFmpeg reads")
    add(
        *("-o", "--output"),
        required=True,
        type=Path,
        metavar="OUT",
        help=f"the file to write ({' '.join(FORMATS)}); sound and subtitles are copied",
    )
    add("--overwrite", action="store_true", help="replace OUT if it exists")
    add_network_options(command)
    add("--anchors", type=positive, default=8, metavar="N", help="colour anchors; default 8")
    add_picture_options(command)
    add(
        "--quality",
        type=int,
        default=_QUALITY,
        metavar="CRF",
        help=f"of H.264, 0 to 51, the lower the better and larger; default {_QUALITY}",
    )


def run(arguments: argparse.Namespace) -> int:
    """Colorize a film.

    A run that was stopped leaves its finished parts in a folder beside OUT; the same command goes
    on from there, and ends with the same file as if it had not been stopped.

    Raises:
        UsageError: nothing was begun.
    """
    keep_memory()
    source, target = arguments.film, arguments.output
    try:
        facts = _check(arguments)
    except (FilmError, ValueError) as error:
        raise UsageError(reason(error)) from error
    colorizer = open_colorizer(arguments)
    tracker = Tracker(
        colorizer.engine, arguments.anchors, arguments.seed, arguments.working_size,
        vividness=arguments.vividness,
    )  # fmt: skip
    work = _WorkFolder(target, _identity(arguments, colorizer.precision))
    _make_parts(source, facts, tracker, work, arguments.quality)
    if not work.finished:
        raise UsageError(f"{source}: no frame of it can be decoded")
    with whole_file(target) as partial:
        join(source, work.parts(), arguments.quality, partial, FORMATS[target.suffix.lower()])
    work.remove()
    say(f"{target} is written")
    return DONE


def _make_parts(
    source: Path, facts: Facts, tracker: Tracker, work: _WorkFolder, quality: int
) -> None:
    if work.finished:
        say(f"{work.finished} parts of {PART} frames are done already")
        tracker.load(load_file(work.state(work.finished - 1)))
    stream = frames(source, skip=work.finished * PART)
    while (first := next(stream, None)) is not None:
        part = chain([first], islice(stream, PART - 1))
        done = work.finished * PART
        with whole_file(work.part(work.finished)) as partial:
            colored = _told(_colored(part, tracker, facts), done, facts, source)
            write_part(partial, facts, colored, quality)
        with whole_file(work.state(work.finished)) as partial:
            save_file(tracker.save(), partial)
        work.finished += 1


def _check(arguments: argparse.Namespace) -> Facts:
    source, target = arguments.film, arguments.output
    if not source.is_file():
        raise UsageError(f"{source}: there is no such file")
    if not 0 <= arguments.quality <= 51:
        raise UsageError(f"--quality: expected 0..51, got {arguments.quality}")
    if target.exists() and not arguments.overwrite:
        raise UsageError(f"{target} exists; choose another output, or add --overwrite")
    if target.exists() and target.samefile(source):
        raise UsageError(f"{target} is the input, and would be overwritten")
    if not target.absolute().parent.is_dir():
        raise UsageError(f"{target.parent}: there is no such folder")
    check_settings(
        arguments.anchors, 1, arguments.seed, arguments.working_size, "full",
        vividness=arguments.vividness,
    )  # fmt: skip
    check_target(source, target)
    return look(source)


def _identity(arguments: argparse.Namespace, precision: str) -> str:
    """A digest of all that the parts depend on."""
    status, names = (
        arguments.film.stat(),
        ("checkpoint", "anchors", "seed", "working_size", "vividness", "quality"),
    )
    known: dict[str, Any] = {name: getattr(arguments, name) for name in names}
    known |= {"film": str(arguments.film.resolve()), "size": status.st_size}
    known |= {"changed": status.st_mtime_ns, "precision": precision, "part": PART}
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]


class _WorkFolder:
    """The finished parts of a film, in a hidden folder beside it.

    Parts of other settings, or of another film of that name, are removed.

    Attributes:
        finished: how many parts there are; a part counts once its state is there.
    """

    def __init__(self, target: Path, identity: str):
        self._folder = target.absolute().with_name(f".{target.name}.disco-fast-{identity}")
        for other in self._folder.parent.glob(f".{target.name}.disco-fast-*"):
            if other != self._folder:
                shutil.rmtree(other)
        self._folder.mkdir(exist_ok=True)
        self.finished = 0
        while self.state(self.finished).exists():
            self.finished += 1

    def part(self, number: int) -> Path:
        return self._folder / f"{number:06}.nut"

    def state(self, number: int) -> Path:
        return self._folder / f"{number:06}.safetensors"

    def parts(self) -> list[Path]:
        return [self.part(number) for number in range(self.finished)]

    def remove(self) -> None:
        shutil.rmtree(self._folder)


def _colored(part: Iterator[Frame], tracker: Tracker, facts: Facts) -> Iterator[Frame]:
    at_once = tracker.at_once(facts.height, facts.width)
    while batch := list(islice(part, at_once)):
        pixels = torch.stack([torch.from_numpy(frame.pixels) for frame in batch])
        colored = tracker.colorize(pixels.permute(0, 3, 1, 2))
        for frame, picture in zip(batch, colored, strict=True):
            yield Frame(picture.permute(1, 2, 0).numpy(), frame.time)


def _told(part: Iterator[Frame], before: int, facts: Facts, source: Path) -> Iterator[Frame]:
    for number, frame in enumerate(part, before + 1):
        yield frame
        show_progress(number, max(number, facts.frames), source, every=PART)
