"""The training loop: steps, averages, checkpoints, going on after a stop, several processes."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset

from ..checkpoints import save_checkpoint
from ..io.atomic import whole_file
from ..model import DISCO
from .processes import Processes
from .stages import Stage
from .stream import Turns, batches

STATE, CARD = "state.pt", "card.json"
_REPORT_EVERY = 10  # steps; on a GPU every report waits for it
_SIGMAS = 6  # the largest of a layer's activations is that many deviations from their mean, or more


@dataclass(frozen=True)
class Schedule:
    """How a stage is trained; the same again in every run that continues it.

    Attributes:
        batch: crops of a step, all processes together.
        epochs: how often the stream shows each sample; fractions are fine.
        learning_rate, final_learning_rate: at the start and at the end, linear in between.
        warmup: steps over which the learning rate rises from 0.
        betas: of Adam.
        weight_decay: decoupled from the gradient (AdamW), of matrices and filters. RefineNet's
            lower levels end in a norm that makes them free in scale: without decay, and at a high
            rate, their filters only grow, until their activations are past what fp16 can hold.
        clip: largest norm of the gradient, 0 for any.
        average: decay, per step, of the moving average of the weights, which is the result.
        seed: of all that is random.
        encoder_rate: share of the learning rate at which a pretrained encoder learns; at 0 no
            gradient of it is computed.
    """

    batch: int
    epochs: float
    learning_rate: float = 2e-4
    final_learning_rate: float = 2e-6
    warmup: int = 0
    betas: tuple[float, float] = (0.0, 0.9)
    weight_decay: float = 0.0
    clip: float = 5.0
    average: float = 0.999
    seed: int = 0
    encoder_rate: float = 1.0

    def steps(self, count: int) -> int:
        """Steps of the whole training, with so many samples in an epoch."""
        return math.ceil(self.epochs * count / self.batch)

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of a step, 0 <= step < steps."""
        done = step / max(1, steps - 1)
        rate = self.learning_rate + done * (self.final_learning_rate - self.learning_rate)
        return rate * min(1.0, (step + 1) / (self.warmup + 1))


class Trainer:
    """Trains a stage, and writes its folder: the state to continue from, the weights, their card.

    Args:
        stage: what a step computes; its network is trained in place.
        samples: where its batches come from, an endless, numbered stream.
        count: samples of an epoch.
        schedule: how.
        folder: for `state.pt`, `<stage>.safetensors` (the averaged weights) and `card.json`.
        card: what the weights' card says besides what the trainer knows.
        processes: which one of how many this is.
        workers: processes that read photographs.
        half: fp16 scales its loss.
    """

    def __init__(
        self,
        stage: Stage,
        samples: Dataset[Tensor],
        count: int,
        schedule: Schedule,
        folder: Path,
        card: dict[str, Any],
        processes: Processes,
        workers: int = 2,
        half: bool = False,
    ):
        self.stage, self.schedule, self.folder = stage, schedule, folder
        self._samples, self._card, self._processes, self._workers = (
            samples,
            card,
            processes,
            workers,
        )
        self.step, self.steps, self.minutes = 0, schedule.steps(count), 0.0
        self._device = processes.device
        stage.to(self._device)
        stage.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if schedule.encoder_rate == 0:
            for weight in stage.slow_weights():
                weight.requires_grad_(False)  # most of a step's time is the encoder's gradient
        self._weights = [p for p in stage.parameters() if p.requires_grad]
        self.average = _copy(stage.network)
        self._optimizer = self._make_optimizer()
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=half)
        self._parallel: nn.Module = stage
        if processes.count > 1:
            self._parallel = DistributedDataParallel(stage)

    def _make_optimizer(self) -> torch.optim.Optimizer:
        slow = set(self.stage.slow_weights())
        groups = [
            {
                "params": [
                    p for p in self._weights if (p in slow) == slower and (p.ndim > 1) == decays
                ],
                "weight_decay": self.schedule.weight_decay if decays else 0.0,
                "share": self.schedule.encoder_rate if slower else 1.0,
            }
            for slower in (False, True)
            for decays in (True, False)
        ]
        return torch.optim.AdamW(groups, self.schedule.learning_rate, self.schedule.betas)

    def resume(self) -> None:
        """Continue where the folder's state stopped, as if it never had.

        Raises:
            FileNotFoundError: there is no state.
            ValueError: it is damaged or no state of a training, or it is of another one; the
                message names what differs.
        """
        path = self.folder / STATE
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            raise
        except Exception as error:  # what a damaged pickle can raise has no bound
            raise _no_state(path, error) from None
        if not isinstance(state, dict) or not isinstance(state.get("identity"), dict):
            raise _no_state(path, "it has no identity")
        mine, theirs = self._identity(), state["identity"]
        other = [key for key in mine if mine[key] != theirs.get(key)]
        if other:
            told = "; ".join(f"{key} was {theirs.get(key)!r}, now {mine[key]!r}" for key in other)
            raise ValueError(f"resume: {self.folder} is of another training: {told}")
        try:
            self.stage.trained().load_state_dict(state["trained"])
            self.average.load_state_dict(state["average"])
            self._optimizer.load_state_dict(state["optimizer"])
            self._scaler.load_state_dict(state["scaler"])
            self.step, self.minutes = int(state["step"]), float(state["minutes"])
        except Exception as error:  # torch raises many kinds
            raise _no_state(path, error) from None

    def run(
        self,
        should_stop: Callable[[], bool] = lambda: False,
        save_every: float = 10.0,
        report: Callable[[dict[str, float]], None] = lambda terms: None,
        after_save: Callable[[], None] = lambda: None,
    ) -> bool:
        """Train to the end, or until told to stop; the state is saved in either case.

        Args:
            should_stop: asked after every step.
            save_every: minutes between two saves.
            report: called in the first process every few steps, with the loss and its terms.
            after_save: called in the first process.

        Returns:
            Whether the training is finished.

        Raises:
            FloatingPointError: the loss is not finite; the last state that was saved is good.
        """
        began = saved = time.monotonic()
        before = self.minutes
        self._parallel.train()
        for batch in self._batches():
            with torch.random.fork_rng(self._gpus()):
                terms = self._take_step(batch.to(self._device, non_blocking=True))
            self.minutes = before + (time.monotonic() - began) / 60
            if self.step % _REPORT_EVERY == 0 or self.step == self.steps:
                numbers = {name: float(term) for name, term in terms.items()}
                self._check(numbers)
                if self._processes.first:
                    report(numbers)
            if self._processes.agree(should_stop()):
                break
            if time.monotonic() - saved > 60 * save_every:
                self._check({name: float(term) for name, term in terms.items()})
                self._save(after_save)
                saved = time.monotonic()
        self._save(after_save)
        return self.step == self.steps

    def _batches(self) -> DataLoader[Tensor]:
        count, rank = self._processes.count, self._processes.rank
        turns = Turns(self.step, self.steps, self.schedule.batch // count, rank, count)
        return batches(self._samples, turns, self._workers, self._device.type == "cuda")

    def _gpus(self) -> list[torch.device]:
        return [self._device] if self._device.type == "cuda" else []

    def _take_step(self, lab: Tensor) -> dict[str, Tensor]:
        # All that is random in a step follows from its number, so there is no state to restore.
        draw = (self.schedule.seed, self.step, self._processes.rank)
        torch.manual_seed(int(np.random.SeedSequence(draw).generate_state(1)[0]))
        rate = self.schedule.rate(self.step, self.steps)
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["share"]
        self._optimizer.zero_grad()
        loss, terms = self._parallel(lab)
        self._scaler.scale(loss).backward()
        if self.schedule.clip:
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(self._weights, self.schedule.clip)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        # Early weights are soon forgotten.
        decay = min(self.schedule.average, (1 + self.step) / (10 + self.step))
        _move_average(self.average, self.stage.network, decay)
        self.step += 1
        return {"loss": loss.detach(), **terms, "learning rate": torch.tensor(rate)}

    def _check(self, terms: dict[str, float]) -> None:
        wrong = [name for name, number in terms.items() if not math.isfinite(number)]
        if wrong:
            raise FloatingPointError(
                f"{', '.join(wrong)} not finite at step {self.step}; {self.folder / STATE} holds"
                " the last good state: continue with a smaller learning rate"
            )

    def _save(self, after_save: Callable[[], None]) -> None:
        if not self._processes.first:
            return
        state = {
            "identity": self._identity(),
            "trained": self.stage.trained().state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "step": self.step,
            "minutes": self.minutes,
        }
        with whole_file(self.folder / STATE) as partial:
            torch.save(state, partial)
        progress = {"steps": f"{self.step} of {self.steps}", "minutes": round(self.minutes, 1)}
        card = json.dumps({**self._identity(), **progress}, indent=2)
        _warn_of_growth(self.average)
        save_checkpoint(
            self.average, self.folder / f"{self.stage.name}.safetensors", notes={"card": card}
        )
        with whole_file(self.folder / CARD) as partial:
            partial.write_text(card + "\n")
        after_save()

    def _identity(self) -> dict[str, Any]:
        """What makes this training this one; as JSON would have it."""
        identity = {"stage": self.stage.name, **self._card, **asdict(self.schedule)}
        return json.loads(json.dumps(identity))


def _no_state(path: Path, why: object) -> ValueError:
    reason = str(why).partition("\n")[0] or type(why).__name__
    return ValueError(
        f"resume: {path} is damaged, or no state of a training ({reason}); put a good copy of it"
        " there, or begin anew in another folder"
    )


def _warn_of_growth(network: DISCO) -> None:
    """The norm behind a layer hides that its activations grow, until no fp16 can hold them."""
    limit = torch.finfo(torch.float16).max
    grown = [
        name
        for name, norm in network.named_modules()
        if isinstance(norm, nn.BatchNorm2d)
        and norm.running_mean is not None
        and norm.running_var is not None
        and bool((norm.running_mean.abs() + _SIGMAS * norm.running_var.sqrt() > limit).any())
    ]
    if grown:
        warnings.warn(
            f"activations before {', '.join(grown)} are past what fp16 can hold; --weight-decay"
            " keeps them small",
            stacklevel=3,
        )


def _copy(network: DISCO) -> DISCO:
    state = {key: value.clone() for key, value in network.state_dict().items()}
    return network.alike(state).requires_grad_(False)


@torch.no_grad()
def _move_average(average: DISCO, network: DISCO, decay: float) -> None:
    """One step of the average; counters, and the unit vectors of spectral norm, are copied."""
    mine, theirs = average.state_dict(), network.state_dict()
    moved = [key for key in mine if key.endswith(("weight_u", "weight_v", "num_batches_tracked"))]
    for key in moved:
        mine.pop(key).copy_(theirs.pop(key))
    torch._foreach_lerp_(list(mine.values()), list(theirs.values()), 1 - decay)
