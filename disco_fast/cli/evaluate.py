"""``disco-fast evaluate``: options, checks, and the order of work."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from ..checkpoints import COMPACT, load_checkpoint
from ..color import check_vividness
from ..colorizer import usable_device
from ..console import DONE, FAILED, say
from ..download import file_sha256
from ..engine import Engine
from ..engine.batching import enough
from ..engine.graphs import settled
from ..engine.precision import PRECISIONS
from ..evaluate import metrics
from ..evaluate.colorings import (
    GRAY,
    ORIGINAL,
    Colors,
    FromFiles,
    FromNetwork,
    labs,
    painted,
    read,
    stacked,
)
from ..evaluate.report import Report
from ..evaluate.scores import Scores
from ..io.images import ImageFileError
from ..io.photographs import Photographs

Batch = TypeVar("Batch")

_SMALLEST, _STEP = 32, 16  # sides of pictures


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The options of the command."""
    add = command.add_argument
    add(
        "--truth",
        required=True,
        type=Path,
        metavar="DIR",
        help="color photographs: a folder of pictures or of tar shards, or one of these",
    )
    colors = command.add_mutually_exclusive_group()
    colors.add_argument(
        "--pred",
        type=Path,
        metavar="DIR",
        help="pictures colored by any program, with the names of their photographs but for the "
        "suffix",
    )
    colors.add_argument(
        "--checkpoint",
        type=Path,
        default=COMPACT,
        metavar="FILE",
        help="the weights to color the photographs with; default: the compact network that comes "
        "with the package",
    )
    add(
        "--anchors",
        type=int,
        nargs="+",
        default=[8],
        metavar="K",
        help="how many anchors; of several numbers each is evaluated; default 8",
    )
    add(
        "--vividness",
        type=float,
        nargs="+",
        default=[],
        metavar="V",
        help="from 0, the most likely colors, to 1, vivid ones; of several numbers each is "
        "evaluated; default: what the checkpoint names",
    )
    add("--last", type=int, metavar="N", help="only the last N photographs")
    add(
        "--size",
        type=int,
        default=256,
        metavar="PIXELS",
        help="side of the middle square that is compared, a multiple of 16; default 256; "
        "0: whole pictures as large as they are, without metrics of sets such as FID",
    )
    add("--seed", type=int, default=0, help="of the anchors' placement and of IS; default 0")
    add("--device", help="cpu, cuda, cuda:1, ...; default: cuda if there is one")
    add("--precision", choices=PRECISIONS, default="auto", help="default auto")
    add("--json", type=Path, metavar="FILE", help="write the figures and settings there too")
    command.set_defaults(refuse=command.error)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate, and print the table; 0 all done, 1 some photographs could not be read.

    Raises:
        SystemExit: status 2, with a message on standard error: the request makes no sense.
        ImageFileError: no photograph can be read.
    """
    try:
        _check(arguments)
        device = usable_device(arguments.device)
        truth = Photographs(arguments.truth)
        numbers = _last(len(truth), arguments.last)
        colors, described, multiple = _colors(arguments, device, truth, numbers)
    except (ValueError, OSError) as error:
        arguments.refuse(str(error))
    found, left_out = metrics.available(
        device, len(numbers), arguments.seed, one_size=arguments.size > 0
    )
    scores = Scores(found)
    at_once = enough(device, arguments.size**2) if arguments.size else 1
    batches = [numbers[start : start + at_once] for start in range(0, len(numbers), at_once)]
    used = 0
    for batch in _with_progress(batches):
        pictures = dict(_readable(truth, batch, arguments.size, multiple))
        if pictures:
            _add(scores, colors, list(pictures), list(pictures.values()), device)
        used += len(pictures)
    if not used:
        raise ImageFileError(f"none of {len(numbers)} photographs can be read")
    settings = {
        "truth": arguments.truth.resolve().name,
        "photographs": used,
        "size": arguments.size,
        "seed": arguments.seed,
        **described,
        "torch": torch.__version__,
        "device": _name(device),
    }
    left_out += scores.notes()
    report = Report(settings, scores.figures(), left_out)
    print(report.markdown())
    if arguments.json:
        report.save(arguments.json)
    return DONE if used == len(numbers) else FAILED


def _readable(
    truth: Photographs, numbers: Sequence[int], size: int, multiple: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Photographs by their numbers, without those that cannot be read, which are named."""
    for number in numbers:
        try:
            yield number, read(truth, number, size, multiple)
        except ImageFileError as error:
            say(f"left out: {error}")


def _check(arguments: argparse.Namespace) -> None:
    size, anchors = arguments.size, arguments.anchors
    if size and (size < _SMALLEST or size % _STEP):
        wanted = f"0 or a multiple of {_STEP} from {_SMALLEST}"
        raise ValueError(f"--size: expected {wanted}, got {size}")
    if min(anchors) < 1 or len(set(anchors)) < len(anchors):
        raise ValueError(f"--anchors: expected distinct numbers from 1, got {anchors}")
    for vividness in arguments.vividness:
        check_vividness(vividness)
    if len(set(arguments.vividness)) < len(arguments.vividness):
        raise ValueError(f"--vividness: expected distinct numbers, got {arguments.vividness}")
    if arguments.last is not None and arguments.last < 1:
        raise ValueError(f"--last: expected a number from 1, got {arguments.last}")
    if arguments.json and not arguments.json.resolve().parent.is_dir():
        raise ValueError(f"--json: there is no folder {arguments.json.resolve().parent}")


def _last(count: int, wanted: int | None) -> Sequence[int]:
    if wanted is not None and wanted > count:
        raise ValueError(f"--last: there are {count} photographs, fewer than {wanted}")
    return range(count)[-wanted if wanted else 0 :]


def _colors(
    arguments: argparse.Namespace,
    device: torch.device,
    truth: Photographs,
    numbers: Sequence[int],
) -> tuple[Colors, dict[str, Any], int]:
    """Where the colors come from, settings that say so, and what sides must be multiples of."""
    if arguments.pred:
        names = {number: truth.name(number) for number in numbers}
        files = FromFiles(Photographs(arguments.pred), names, arguments.size)
        return files, {"pred": arguments.pred.resolve().name}, 1
    network = load_checkpoint(arguments.checkpoint)
    size, stride = arguments.size, network.stride
    if size % stride:
        raise ValueError(f"--size: this checkpoint takes multiples of {stride}, got {size}")
    most = (size // network.cell_size) ** 2
    if size and max(arguments.anchors) > most:
        raise ValueError(f"--anchors: at size {size} there are {most} superpixels")
    engine = Engine(network, arguments.precision, device)
    described = {
        "checkpoint": arguments.checkpoint.name,
        "sha256": file_sha256(arguments.checkpoint),
        "anchors": arguments.anchors,
        "precision": engine.precision,
    }
    made = FromNetwork(engine, arguments.anchors, arguments.seed, arguments.vividness)
    return made, described, stride


@torch.inference_mode()
def _add(
    scores: Scores,
    colors: Colors,
    numbers: Sequence[int],
    pictures: Sequence[Any],
    device: torch.device,
) -> None:
    lab = labs(pictures).to(device)
    made = colors.rows(numbers, lab)
    gray = painted(lab, torch.zeros_like(lab[:, 1:]))
    with settled(device):
        scores.add({GRAY: gray, **made, ORIGINAL: stacked(pictures).to(device)})


def _with_progress(batches: Sequence[Batch]) -> Iterable[Batch]:
    """With a bar on standard error, if the package for that is there."""
    try:
        from tqdm import tqdm
    except ImportError:
        return batches
    return tqdm(batches, unit="batch", dynamic_ncols=True)


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
