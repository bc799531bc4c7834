"""Color as a step of a data pipeline, after the rules of torchvision's transforms v2."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import get_worker_info

from .colorizer import colorize
from .options import AnchorSettings, ColorizeOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Colorize(nn.Module):
    """Colorizes pictures, uint8 0-255 or floating 0-1, (..., 1 or 3, H, W); see `colorize`.

    It computes where the picture is, in a worker of a `DataLoader` so on the CPU. It holds settings
    alone, so it is small to send to workers; each process reads the network when the first picture
    comes.

    Args:
        checkpoint: as for `disco_fast.colorize`.
        precision: as for `disco_fast.colorize`.
        device: as for `disco_fast.colorize`; a GPU only in the main process.
        settings: `ColorizeOptions` by name; one variant in mode "full".

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """

    def __init__(
        self,
        checkpoint: str | Path | None = None,
        *,
        precision: str = "auto",
        device: torch.device | str | None = None,
        **settings: Unpack[AnchorSettings],
    ):
        super().__init__()
        ColorizeOptions(**settings).only("in a transform", mode="full", variants=1)
        network = {"checkpoint": checkpoint, "precision": precision, "device": device}
        self.settings: dict[str, Any] = {**network, **settings}

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
                f"device: expected the CPU in a worker of a DataLoader, got {where}; color on a"
                " GPU what the loader gives"
            )
        return colorize(image, **self.settings)

    def extra_repr(self) -> str:
        """The settings, as torch shows modules."""
        return ", ".join(f"{name}={value!r}" for name, value in self.settings.items())
