"""``disco-fast train`` with its stages: spixnet, backbone, tokens, colorizer; and cache."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ..checkpoints import load_checkpoint
from ..console import INTERRUPTED, say
from ..engine.memory import keep_memory
from ..evaluate.features import FEATURES, load_features
from ..io.photographs import Photographs
from ..model import DISCO
from ..model.readout import Readout, official, rebalancing
from ..model.scale import scaled
from ..train.cache import Cache, start_of
from ..train.checks import need
from ..train.losses import L1, Distillation, Perceptual, color_prior
from ..train.processes import Processes, join, leave
from ..train.stages import (
    Anchoring,
    BackboneStage,
    ColorizerStage,
    SPixNetStage,
    Stage,
    TokensStage,
)
from ..train.stream import Crops
from ..train.trainer import STATE, Schedule, Trainer
from ..train.transplant import transplant
from ..train.watch import Samples, Watch
from . import train_cache

_PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
_TERMS = {**dict.fromkeys(FEATURES, 5.0), "l1": 20.0}  # factors: beta, and one of its size
_PRIOR_PHOTOGRAPHS = 2000  # enough for the frequencies of 313 colors


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The command's arguments; defaults are the paper's (sections 4.4 and 5.1)."""
    stages = command.add_subparsers(metavar="STAGE", dest="stage", required=True)
    for name, purpose, batch, epochs in (
        ("spixnet", "stage 1: superpixels, on equation 3", 256, 20),
        ("backbone", "between them, not the paper's: what a classifier sees", 96, 20),
        ("tokens", "the token path alone, on the superpixels that cache has kept", 64, 10),
        ("colorizer", "stage 2: all the rest, on equations 4 and 5", 96, 60),
    ):
        stage = stages.add_parser(name, help=purpose, description=f"Training {purpose}.")
        _common_arguments(stage, batch, epochs)
        if name != "tokens":
            _photograph_arguments(stage)
        if name != "spixnet":
            _precision_argument(stage)
        if name == "backbone":
            stage.add_argument(
                "--distill",
                choices=FEATURES,
                default="efficientnet-lite0",
                help="the classifier; default efficientnet-lite0",
            )
        if name == "colorizer":
            _colorizer_arguments(stage)
        if name in ("tokens", "colorizer"):
            _anchor_arguments(stage)
    purpose = "superpixels of a pretrained backbone, pooled once for the stage tokens"
    train_cache.add_arguments(
        stages.add_parser("cache", help=purpose, description=f"Keeps {purpose}.")
    )


def _common_arguments(stage: argparse.ArgumentParser, batch: int, epochs: float) -> None:
    add = stage.add_argument
    add(
        "--data",
        type=Path,
        required=True,
        help="a folder of photographs or of tar shards; for tokens that of cache",
    )
    add("--out", type=Path, required=True, help="the folder for state, weights, card and events")
    add("--resume", action="store_true", help="go on exactly where OUT stopped")
    add("--init", type=Path, metavar="FILE", help="weights to start from; default: random ones")
    add("--batch", type=int, default=batch, help=f"crops of a step; default {batch}")
    add("--epochs", type=float, default=epochs, help=f"fractions are fine; default {epochs}")
    add("--learning-rate", type=float, default=2e-4, help="at the start; default 2e-4")
    add("--final-learning-rate", type=float, default=2e-6, help="linear to it; default 2e-6")
    add("--warmup", type=int, default=0, metavar="STEPS", help="rise from 0 at first; default 0")
    add("--betas", type=float, nargs=2, default=(0.0, 0.9), help="of Adam; default 0 0.9")
    add("--weight-decay", type=float, default=0.0, help="as AdamW has it; default 0")
    add("--clip", type=float, default=5.0, help="largest norm of the gradient, 0 any; default 5")
    add("--average", type=float, default=0.999, help="decay of averaged weights; default 0.999")
    add("--seed", type=int, default=0, help="of all that is random; default 0")
    add("--device", help="cpu or cuda; default: cuda if there is one")
    add("--workers", type=int, default=2, help="processes that read photographs; default 2")
    add("--save-every", type=float, default=10, metavar="MINUTES", help="default 10")
    add("--max-minutes", type=float, default=math.inf, help="stop then, to be resumed")


def _photograph_arguments(stage: argparse.ArgumentParser) -> None:
    add = stage.add_argument
    add("--width", type=float, default=1.0, help="of a network that starts from random; default 1")
    add("--cell-size", type=int, default=16, help="likewise; default 16")
    add("--hold-out", type=int, default=0, metavar="N", help="never train on the last N; default 0")
    add("--first", type=int, metavar="N", help="train on the first N only; default: all")
    add("--size", type=int, default=256, help="side of a crop; default 256")
    add(
        "--smallest-crop",
        type=float,
        default=0.6,
        metavar="SHARE",
        help="of a photograph's shorter side, before the crop is resized; default 0.6",
    )


def _precision_argument(stage: argparse.ArgumentParser) -> None:
    stage.add_argument(
        "--precision",
        choices=tuple(_PRECISIONS),
        default="fp32",
        help="of backbone and RefineNet; default fp32",
    )


def _colorizer_arguments(stage: argparse.ArgumentParser) -> None:
    add = stage.add_argument
    add(
        "--reconstruction",
        type=_term,
        nargs="+",
        default=[("vgg19", _TERMS["vgg19"])],
        metavar="NAME[:FACTOR]",
        help="what RefineNet's output is compared by: vgg19, efficientnet-lite0 (features) or l1;"
        " several add up; default vgg19:5, the paper's",
    )
    add(
        "--distill",
        type=_distillation,
        metavar="NAME[:FACTOR]",
        help="have the backbone also learn the deep features of vgg19 or efficientnet-lite0;"
        " default: not, as in the paper",
    )
    add("--balance", type=float, default=0.5, help="lambda of the class weights; default 0.5")
    add(
        "--encoder-rate",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="of the learning rate, for a pretrained encoder; default 0.1, 0 freezes it",
    )
    add(
        "--refinenet",
        type=Path,
        metavar="FILE",
        help="start with the RefineNet of this checkpoint, adapted to the tokens of --init",
    )


def _anchor_arguments(stage: argparse.ArgumentParser) -> None:
    add = stage.add_argument
    add("--anchors", type=int, nargs="+", default=[8], help="K, or fewest and most; default 8")
    add(
        "--cluster",
        choices=("color", "feature", "both"),
        default="color",
        help="what places the anchors: true colors as in the paper, features as at inference, or"
        " one of them for each batch; default color",
    )
    add("--dropout", type=float, default=0.1, help="in the encoders of tokens; default 0.1")


def _term(text: str) -> tuple[str, float]:
    return _weighted(text, _TERMS)


def _distillation(text: str) -> tuple[str, float]:
    return _weighted(text, dict.fromkeys(FEATURES, 2.0))


def _weighted(text: str, known: Mapping[str, float]) -> tuple[str, float]:
    """NAME:FACTOR, or NAME with its usual factor."""
    name, _, factor = text.partition(":")
    if name not in known:
        raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
    try:
        return name, float(factor) if factor else known[name]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{factor!r} is not a number") from None


def run(arguments: argparse.Namespace) -> int:
    """Train; 0 when finished or out of time, 130 when interrupted (the state is saved).

    Raises:
        ValueError, OSError: an argument does not fit; nothing was begun.
        ImportError: the extra is not installed.
    """
    if arguments.stage == "cache":
        return train_cache.run(arguments)
    _check(arguments)
    keep_memory()
    prepare = _on_cache if arguments.stage == "tokens" else _on_photographs
    task = prepare(arguments)
    processes = join(arguments.device)
    try:
        return _train(arguments, task, processes)
    finally:
        leave(processes)


def _check(arguments: argparse.Namespace) -> None:
    """Refuse what does not fit, before any work is done."""
    if arguments.stage != "tokens":
        cell = arguments.cell_size
        size_fits = arguments.size >= 32 and arguments.size % max(16, cell) == 0
        need(arguments, "size", size_fits, "multiples of 16")
        need(arguments, "smallest_crop", 0 < arguments.smallest_crop <= 1, "a share in (0, 1]")
        need(arguments, "hold_out", arguments.hold_out >= 0, "at least 0")
        need(arguments, "first", arguments.first is None or arguments.first >= 1, "at least 1")
    need(arguments, "batch", arguments.batch >= 1, "at least 1")
    need(arguments, "epochs", arguments.epochs > 0, "more than 0")
    need(arguments, "learning_rate", arguments.learning_rate > 0, "more than 0")
    need(arguments, "final_learning_rate", arguments.final_learning_rate >= 0, "at least 0")
    need(arguments, "weight_decay", arguments.weight_decay >= 0, "at least 0")
    need(arguments, "average", 0 <= arguments.average < 1, "a decay in [0, 1)")
    if arguments.stage not in ("spixnet", "tokens"):
        need(arguments, "init", arguments.init is not None, "the weights that stage 1 has trained")
    if arguments.stage == "colorizer":
        need(arguments, "balance", 0 < arguments.balance <= 1, "lambda in (0, 1]")
        need(arguments, "encoder_rate", 0 <= arguments.encoder_rate <= 1, "a share in [0, 1]")
    if arguments.stage in ("tokens", "colorizer"):
        need(arguments, "dropout", 0 <= arguments.dropout < 1, "a share in [0, 1)")
        anchors = arguments.anchors
        sound = len(anchors) <= 2 and 1 <= anchors[0] <= anchors[-1]
        need(arguments, "anchors", sound, "one number, or fewest and most")
    state = arguments.out / STATE
    need(arguments, "resume", arguments.resume == state.exists(), _resume_wish(state))


def _resume_wish(state: Path) -> str:
    if state.exists():
        return f"it, for {state} is there (or name another --out)"
    return f"a training to go on with, but there is no {state}"


@dataclass
class _Task:
    """What is trained on what."""

    stage: Callable[[str], Stage]  # for a type of device
    samples: Dataset[Tensor]
    count: int  # of samples in an epoch
    card: dict[str, Any]
    photographs: Photographs | None = None  # to show some of


def _on_photographs(arguments: argparse.Namespace) -> _Task:
    photographs = Photographs(arguments.data)
    available = len(photographs) - arguments.hold_out
    count = min(available, arguments.first or available)
    if count < 1:
        raise ValueError(
            f"--hold-out: expected fewer than the {len(photographs)} photographs, got"
            f" {arguments.hold_out}"
        )
    network = _network(arguments)
    if arguments.size % network.stride:
        raise ValueError(
            f"--size: expected multiples of {network.stride} for {arguments.init}, got"
            f" {arguments.size}"
        )
    distilling = arguments.stage == "backbone" or getattr(arguments, "distill", None)
    if distilling and network.backbone != "published":
        raise ValueError(
            "--init: expected the published backbone, which learns from a classifier;"
            f" {network.backbone}"
            " is one"
        )
    donor = getattr(arguments, "refinenet", None)
    if donor is not None and not arguments.resume:
        anchors = arguments.anchors[0], arguments.anchors[-1]
        share = transplant(
            *(network, load_checkpoint(donor), photographs, count, arguments.size, anchors),
            arguments.seed,
        )
        say(f"RefineNet of {donor}: a linear map explains {share:.0%} of its tokens")
    few = range(0, count, -(-count // _PRIOR_PHOTOGRAPHS))
    return _Task(
        lambda kind: _stage(arguments, network, lambda: color_prior(photographs, few), kind),
        Crops(photographs, count, arguments.size, arguments.smallest_crop, arguments.seed),
        count,
        _card(arguments, network, {"photographs": count}),
        photographs,
    )


def _on_cache(arguments: argparse.Namespace) -> _Task:
    cache = Cache(arguments.data, arguments.seed)
    given = arguments.init
    network = start_of(arguments.data, cache) if given is None else load_checkpoint(given)
    network.readout = replace(official(), balance=None)
    return _Task(
        lambda kind: TokensStage(
            network, _anchoring(arguments), arguments.dropout, _autocast(arguments, kind)
        ),
        cache,
        len(cache),
        _card(arguments, network, {"cache": cache.card}),
    )


def _train(arguments: argparse.Namespace, task: _Task, processes: Processes) -> int:
    if arguments.batch % processes.count:
        raise ValueError(f"--batch: expected multiples of {processes.count} processes")
    schedule = Schedule(
        arguments.batch,
        arguments.epochs,
        arguments.learning_rate,
        arguments.final_learning_rate,
        arguments.warmup,
        tuple(arguments.betas),
        arguments.weight_decay,
        arguments.clip,
        arguments.average,
        arguments.seed,
        getattr(arguments, "encoder_rate", 1.0),
    )
    stage = task.stage(processes.device.type)
    arguments.out.mkdir(parents=True, exist_ok=True)
    half = getattr(arguments, "precision", "fp32") == "fp16"
    trainer = Trainer(
        stage,
        task.samples,
        task.count,
        schedule,
        arguments.out,
        task.card,
        processes,
        arguments.workers,
        half,
    )
    if arguments.resume:
        trainer.resume()
    shown = None if task.photographs is None else Samples(task.photographs, arguments.size)
    with Watch(trainer, shown, processes) as watch:
        finished = trainer.run(
            watch.should_stop(arguments.max_minutes),
            arguments.save_every,
            watch.report,
            watch.show_samples,
        )
    if processes.first:
        state = "finished" if finished else "stopped; --resume goes on"
        print(f"disco-fast: {state}; step {trainer.step} of {trainer.steps} in {arguments.out}")
    return watch.interrupted * INTERRUPTED


def _network(arguments: argparse.Namespace) -> DISCO:
    if arguments.init is not None:
        return load_checkpoint(arguments.init)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(arguments.seed)
        return DISCO(arguments.width, arguments.cell_size)


def _stage(
    arguments: argparse.Namespace, network: DISCO, prior: Callable[[], Tensor], kind: str
) -> Stage:
    if arguments.stage == "spixnet":
        return SPixNetStage(network)
    autocast = _autocast(arguments, kind)
    width = scaled(512, network.width)
    if arguments.stage == "backbone":
        return BackboneStage(
            network, Distillation(load_features(arguments.distill), width), autocast
        )
    distillation = None
    if arguments.distill:
        name, factor = arguments.distill
        distillation = Distillation(load_features(name), width), factor
    shares = prior()
    # Weights that are all 1 leave no trace in the logits.
    balance = None if arguments.balance == 1 else arguments.balance
    network.readout = Readout(tuple(shares.tolist()), balance)
    return ColorizerStage(
        network,
        rebalancing(shares, arguments.balance),
        {name: (_term_module(name), factor) for name, factor in arguments.reconstruction},
        _anchoring(arguments),
        arguments.dropout,
        autocast,
        distillation,
    )


def _autocast(arguments: argparse.Namespace, kind: str) -> tuple[str, torch.dtype] | None:
    dtype = _PRECISIONS[arguments.precision]
    return None if dtype is None else (kind, dtype)


def _anchoring(arguments: argparse.Namespace) -> Anchoring:
    return Anchoring(arguments.anchors[0], arguments.anchors[-1], arguments.cluster)


def _term_module(name: str) -> nn.Module:
    return L1() if name == "l1" else Perceptual(load_features(name))


_NOT_IN_CARD = {
    *("data", "out", "init", "resume", "device", "workers", "save_every", "max_minutes"),
    *("run", "stage", "first", "hold_out", "width", "cell_size"),
}


def _card(arguments: argparse.Namespace, network: DISCO, data: dict[str, Any]) -> dict[str, Any]:
    """What was trained, on what and how, without the places on this machine."""
    chosen = {
        key: value.name if isinstance(value, Path) else value
        for key, value in vars(arguments).items()
        if key not in _NOT_IN_CARD
    }
    return {
        **chosen,
        "width": network.width,
        "cell_size": network.cell_size,
        "data": arguments.data.resolve().name,
        "backbone": network.backbone,
        **data,
        "init": arguments.init and arguments.init.name,
    }
