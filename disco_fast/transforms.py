"""Colour as a step of a data pipeline, after the rules of torchvision's transforms v2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import get_worker_info

from .colorizer import check_settings, colorize


class Colorize(nn.Module):
    """Colorizes pictures, uint8 0-255 or floating 0-1, (..., 1 or 3, H, W); see `colorize`.

    It computes where the picture is, in a worker of a `DataLoader` so on the CPU. It holds settings
    alone, so it is small to send to workers; each process reads the network when the first picture
    comes.

    Args:
        checkpoint: as for `disco_fast.colorize`, like the rest.
        n_anchors: see there.
        seed: see there.
        working_size: see there.
        vividness: see there.
        precision: see there.
        device: see there; on a GPU only in the main process.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """

    def __init__(
        self,
        checkpoint: str | Path | None = None,
        *,
        n_anchors: int | str = 8,
        seed: int = 0,
        working_size: int = 256,
        vividness: float | None = None,
        precision: str = "auto",
        device: torch.device | str | None = None,
    ):
        super().__init__()
        check_settings(n_anchors, 1, seed, working_size, "full", vividness=vividness)
        self.settings: dict[str, Any] = {
            "checkpoint": checkpoint,
            "n_anchors": n_anchors,
            "seed": seed,
            "working_size": working_size,
            "vividness": vividness,
            "precision": precision,
            "device": device,
        }

    def forward(self, image: Tensor) -> Tensor:
        """RGB of the same dtype, device, leading dimensions and size.

        Raises:
            TypeError, ValueError: it is no such picture.
            RuntimeError: a worker would use a GPU, which a process that was forked cannot.
        """
        device = self.settings["device"]
        where = torch.device(device) if device is not None else getattr(image, "device", None)
        if where is not None and where.type == "cuda" and get_worker_info() is not None:
            raise RuntimeError(
                f"device: expected the CPU in a worker of a DataLoader, got {where}; colour on a"
                " GPU what the loader gives"
            )
        return colorize(image, **self.settings)

    def extra_repr(self) -> str:
        """The settings, as torch shows modules."""
        return ", ".join(f"{name}={value!r}" for name, value in self.settings.items())
