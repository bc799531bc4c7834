"""``disco-fast video``: a film in color; stopped, it goes on where it was."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import __version__
from ..console import DONE, UsageError, positive, reason, say, show_progress
from ..engine.memory import keep_memory
from ..io.atomic import remove_stale, whole_file
from ..options import ColorizeOptions
from ..video.coding import CODECS, Coding, choose, write_part
from ..video.film import FORMATS, Facts, FilmError, Frame, Losses, frames, look
from ..video.joining import check_target, join
from ..video.tracking import Tracker
from ..video.work import WorkFolder
from .options import add_network_options, add_picture_options, open_colorizer

PART = 100  # frames between two points to go on from
_QUALITY = 18  # hardly told from the original
_WHITE = 65535


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The arguments of ``disco-fast video``."""
    add = command.add_argument
    add("film", type=Path, metavar="IN", help="a film, of any kind that FFmpeg reads")
    add(
        *("-o", "--output"),
        required=True,
        type=Path,
        metavar="OUT",
        help=f"the file to write ({' '.join(FORMATS)}); sound, subtitles, chapters are copied",
    )
    add("--overwrite", action="store_true", help="replace OUT if it exists")
    add_network_options(command)
    add("--anchors", type=positive, default=8, metavar="N", help="color anchors; default 8")
    add_picture_options(command)
    add(
        "--codec",
        choices=CODECS,
        help="default h264, and hevc for films of more than 8 bits; prores (.mov, .mkv) and ffv1"
        " (.mkv, lossless) are for further work",
    )
    add(
        "--quality",
        type=int,
        default=_QUALITY,
        metavar="CRF",
        help=f"of H.264 and HEVC, 0 to 51, the lower the better and larger; default {_QUALITY}",
    )
    add(
        "--keep-interlaced",
        action="store_true",
        help="write an interlaced film as one; by default it is deinterlaced",
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
        facts, coding, left_out = _check(arguments)
    except (FilmError, ValueError) as error:
        raise UsageError(reason(error)) from error
    colorizer = open_colorizer(arguments)
    for sentence in _sentences(source, facts, coding, left_out):
        say(sentence)
    tracker = Tracker(
        colorizer.engine, arguments.anchors, arguments.seed, arguments.working_size,
        vividness=arguments.vividness,
    )  # fmt: skip
    remove_stale(target.absolute().parent)
    losses = Losses()
    with WorkFolder(target, _identity(arguments, coding, colorizer.precision)) as work:
        _make_parts(source, facts, tracker, work, coding, losses)
        with whole_file(target, arguments.overwrite) as partial:
            join(source, work.parts, facts, coding, partial, FORMATS[target.suffix.lower()])
        work.remove()
    if losses.packets:
        say(f"{source}: {losses.packets} damaged packets were passed over, with their frames")
    say(f"{target} is written")
    return DONE


def _make_parts(
    source: Path, facts: Facts, tracker: Tracker, work: WorkFolder, coding: Coding, losses: Losses
) -> None:
    if work.parts:
        say(f"{len(work.parts)} parts of {PART} frames are done already")
        tracker.load(work.state())
    stream = frames(source, len(work.parts) * PART, coding.interlaced, losses)
    while (first := next(stream, None)) is not None:
        part = chain([first], islice(stream, PART - 1))
        done, shown = len(work.parts) * PART, list[Frame]()
        with whole_file(work.path()) as partial:
            colored = _told(_colored(part, tracker, facts), done, facts, source)
            write_part(partial, facts, _noted(colored, shown), coding)
        work.finish([frame.time for frame in shown], shown[-1].duration, tracker.save())


def _check(arguments: argparse.Namespace) -> tuple[Facts, Coding, list[str]]:
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
    ColorizeOptions(
        n_anchors=arguments.anchors,
        seed=arguments.seed,
        working_size=arguments.working_size,
        vividness=arguments.vividness,
    )  # refuses what does not fit
    facts = look(source)
    coding = choose(facts, arguments.codec, arguments.quality, arguments.keep_interlaced)
    return facts, coding, check_target(source, target, facts, coding)


def _sentences(source: Path, facts: Facts, coding: Coding, left_out: list[str]) -> Iterator[str]:
    """What happens to a film besides colors."""
    if facts.hdr:
        yield f"{source} is HDR ({facts.hdr}); it is tone-mapped to BT.709"
    if facts.interlaced and not coding.interlaced:
        yield f"{source} is interlaced; it is deinterlaced, unless --keep-interlaced is given"
    if coding.size(facts) != (facts.width, facts.height):
        width, height = coding.size(facts)
        yield (
            f"{source}: {facts.width}x{facts.height} becomes {width}x{height}, the last column or"
            " row twice: few players show odd sizes"
        )
    for what in left_out:
        yield f"{source}: left out: {what}"


def _identity(arguments: argparse.Namespace, coding: Coding, precision: str) -> str:
    """A digest of all that the parts depend on."""
    status, names = (
        arguments.film.stat(),
        ("checkpoint", "anchors", "seed", "working_size", "vividness"),
    )
    known: dict[str, Any] = {name: getattr(arguments, name) for name in names}
    known |= {"film": str(arguments.film.resolve()), "size": status.st_size}
    known |= {"changed": status.st_mtime_ns, "precision": precision, "part": PART}
    known |= {"coding": coding, "program": __version__}
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]


def _colored(part: Iterator[Frame], tracker: Tracker, facts: Facts) -> Iterator[Frame]:
    at_once = tracker.at_once(facts.height, facts.width)
    while batch := list(islice(part, at_once)):
        pixels = torch.stack([_tensor(frame.pixels) for frame in batch])
        colored = tracker.colorize(pixels.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        for frame, picture in zip(batch, colored, strict=True):
            yield frame._replace(pixels=_samples(picture))


def _tensor(pixels: np.ndarray) -> torch.Tensor:
    """Samples of 8 bits as they are, of 16 bits as fp32 0-1."""
    if pixels.dtype == np.uint8:
        return torch.from_numpy(pixels)
    return torch.from_numpy(pixels.astype(np.float32) / _WHITE)


def _samples(picture: torch.Tensor) -> np.ndarray:
    if picture.is_floating_point():
        return np.rint(picture.clamp(0, 1).numpy() * _WHITE).astype(np.uint16)
    return picture.numpy()


def _noted(part: Iterator[Frame], shown: list[Frame]) -> Iterator[Frame]:
    """The same frames; without their pixels they are added to a list."""
    nothing = np.empty(0)
    for frame in part:
        shown.append(frame._replace(pixels=nothing))
        yield frame


def _told(part: Iterator[Frame], before: int, facts: Facts, source: Path) -> Iterator[Frame]:
    for number, frame in enumerate(part, before + 1):
        yield frame
        if facts.frames or number % PART == 0:
            show_progress(number, max(number, facts.frames), source, every=PART)
