"""``disco-fast train cache``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..checkpoints import COMPACT, load_checkpoint
from ..console import DONE, INTERRUPTED
from ..engine.memory import keep_memory
from ..io.photographs import Photographs
from ..model import DISCO
from ..train.cache import CARD, fill, with_pretrained
from ..train.checks import need
from ..train.stream import Crops
from ..train.watch import Interruption, progress_bar


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    add = command.add_argument
    add("--data", type=Path, required=True, help="a folder of photographs or of tar shards")
    add(
        "--out", type=Path, required=True, help="the folder for the cache, 150 kB a crop of 192x192"
    )
    add("--resume", action="store_true", help="go on where OUT stopped")
    add(
        "--init",
        type=Path,
        metavar="FILE",
        default=COMPACT,
        help="weights whose SPixNet and RefineNet are taken; default: those of the package",
    )
    add(
        "--backbone",
        choices=("pretrained", "init"),
        default="pretrained",
        help="EfficientNet-lite0 as its authors trained it, with a token path begun anew, or that"
        " of --init with its token path, to train on; default pretrained",
    )
    add("--hold-out", type=int, default=0, metavar="N", help="never cache the last N; default 0")
    add("--views", type=int, default=2, help="crops of each photograph; default 2")
    add("--size", type=int, default=192, help="side of a crop; default 192")
    add(
        "--smallest-crop",
        type=float,
        default=0.75,
        metavar="SHARE",
        help="of a photograph's shorter side, before the crop is resized; default 0.75",
    )
    add("--batch", type=int, default=32, help="crops at a time; default 32")
    add("--seed", type=int, default=1, help="of crops and new weights; default 1")
    add(
        "--precision", choices=("fp32", "bf16"), default="fp32", help="of the encoder; default fp32"
    )
    add("--workers", type=int, default=1, help="processes that read photographs; default 1")


def run(arguments: argparse.Namespace) -> int:
    """Fill the cache; 0 when it is complete, 130 when interrupted (what is done is kept).

    Raises:
        ValueError, OSError: an argument does not fit; nothing was begun.
        ImportError: the extra is not installed.
    """
    network = _network(arguments)
    photographs = Photographs(arguments.data)
    used = len(photographs) - arguments.hold_out
    _check(arguments, used, network.stride)
    keep_memory()
    crops = Crops(photographs, used, arguments.size, arguments.smallest_crop, arguments.seed)
    count = used * arguments.views
    card = {
        "data": arguments.data.resolve().name,
        "photographs": used,
        "views": arguments.views,
        "size": arguments.size,
        "smallest_crop": arguments.smallest_crop,
        "seed": arguments.seed,
        "precision": arguments.precision,
        "init": arguments.init.name,
        "backbone": arguments.backbone,
        "cell_size": network.cell_size,
    }
    with Interruption() as interruption, progress_bar(count, "crops") as bar:
        complete = fill(
            arguments.out,
            network,
            crops,
            count,
            card,
            batch=arguments.batch,
            workers=arguments.workers,
            narrow=arguments.precision == "bf16",
            should_stop=lambda: interruption.came,
            report=lambda done: bar.update(done - bar.n),
        )
    print(f"disco-fast: {'complete' if complete else 'stopped; --resume goes on'}: {arguments.out}")
    return DONE if complete else INTERRUPTED


def _network(arguments: argparse.Namespace) -> DISCO:
    network = load_checkpoint(arguments.init)
    if arguments.backbone == "pretrained":
        return with_pretrained(network, arguments.seed)
    fits = network.backbone == "efficientnet-lite0"
    need(arguments, "init", fits, "the backbone efficientnet-lite0 with --backbone init")
    return network


def _check(arguments: argparse.Namespace, used: int, stride: int) -> None:
    need(arguments, "hold_out", arguments.hold_out >= 0 and used > 0, "fewer than the photographs")
    need(arguments, "views", arguments.views >= 1, "at least 1")
    need(arguments, "batch", arguments.batch >= 1, "at least 1")
    need(arguments, "smallest_crop", 0 < arguments.smallest_crop <= 1, "a share in (0, 1]")
    size_fits = arguments.size > 0 and arguments.size % stride == 0
    need(arguments, "size", size_fits, f"multiples of {stride}")
    there = (arguments.out / CARD).exists()
    need(
        arguments,
        "resume",
        arguments.resume == there,
        "it exactly where OUT holds a part of a cache",
    )
