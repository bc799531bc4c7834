"""Entry points of `torch.hub`.

import torch
colorizer = torch.hub.load("OWNER/disco_fast", "colorizer")
color = colorizer.colorize(gray)
"""

from __future__ import annotations

from pathlib import Path

import torch

from disco_fast import Colorizer

dependencies = ["torch", "numpy", "cv2", "safetensors"]


def colorizer(
    checkpoint: str | Path | None = None,
    device: torch.device | str | None = None,
    precision: str = "auto",
) -> Colorizer:
    """A network ready to colorize; see `disco_fast.Colorizer`.

    Without an installation the ops run on their PyTorch specification, slower; `pip install .` in
    the checkout builds them.

    Args:
        checkpoint: a file, or None for the compact network of the package.
        device: where to compute; CUDA where there is one, else the CPU, if None.
        precision: "auto", "fp32", "bf16" or "fp16".
    """
    return Colorizer(checkpoint, device, precision)
