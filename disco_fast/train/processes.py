"""One process or, under ``torchrun``, several that train together."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Processes:
    """Which process this is.

    Attributes:
        device: where this one computes.
        rank, count: 0 and 1 without ``torchrun``.
    """

    device: torch.device
    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this one writes files and shows progress."""
        return self.rank == 0

    def agree(self, stop: bool) -> bool:
        """Whether any process wants to stop."""
        if self.count == 1:
            return stop
        wish = torch.tensor(float(stop), device=self.device)
        dist.all_reduce(wish, dist.ReduceOp.MAX)
        return bool(wish)


def join(device: str | None) -> Processes:
    """Join the other processes that ``torchrun`` has started, if it has.

    Args:
        device: "cpu", "cuda", ...; None takes a GPU if there is one. Of several GPUs, each process
            of a machine takes its own.

    Raises:
        ValueError: the device cannot be had.
    """
    kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if kind.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device: expected cpu, for torch sees no GPU, got {device}")
    if "LOCAL_RANK" not in os.environ:
        return Processes(torch.device(kind))
    if kind == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        kind = f"cuda:{os.environ['LOCAL_RANK']}"
    dist.init_process_group("nccl" if kind.startswith("cuda") else "gloo")
    return Processes(torch.device(kind), dist.get_rank(), dist.get_world_size())


def leave(processes: Processes) -> None:
    """Undo `join`."""
    if processes.count > 1 or dist.is_initialized():
        dist.destroy_process_group()
