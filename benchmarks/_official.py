"""Loads the official repository from a checkout.

https://github.com/MenghanXia/DisentangledImageColorization. Nothing of it is copied. It is made to
run where it otherwise would not: on a CPU its hard-coded `.cuda()` calls become the identity, and
packages that its inference never calls (torchvision, matplotlib, skimage) may be absent.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock

import torch
from torch import nn

UNUSED = ("torchvision", "matplotlib", "matplotlib.pyplot", "skimage", "skimage.segmentation")


@dataclass(frozen=True)
class Official:
    """The official modules and its network in eval mode.

    Attributes:
        basic: holds `poolfeat`, `upfeat` and `get_spixel_size`.
        clusterkit: holds `kmeans` and `batch_kmeans_pytorch`.
        network: `AnchorColorProb` as its `inference.py` builds it.
    """

    basic: ModuleType
    clusterkit: ModuleType
    network: nn.Module


def load(folder: Path, state: dict[str, torch.Tensor], device: torch.device) -> Official:
    """Import the checkout and build its network with the given weights.

    Raises:
        FileNotFoundError: the folder is no checkout of the official repository.
    """
    if not (folder / "models" / "clusterkit.py").is_file():
        raise FileNotFoundError(f"--official: no models/clusterkit.py in {folder}")
    _stand_in_for_unused()
    if device.type == "cpu":
        torch.Tensor.cuda = torch.nn.Module.cuda = lambda self, *_, **__: self  # type: ignore
    sys.path[:0] = [str(folder.resolve()), str(folder.resolve() / "models")]
    basic, clusterkit = importlib.import_module("basic"), importlib.import_module("clusterkit")
    basic.ColorLabel = functools.partial(_color_label, basic.ColorLabel, device)  # type: ignore
    with _inside(folder / "main" / "colorizer"):  # it loads ../../utils/*.npy
        network = importlib.import_module("model").AnchorColorProb(enhanced=True)
    network.load_state_dict(state)
    return Official(basic, clusterkit, network.to(device).eval())


def _color_label(original: type, here: torch.device, device: object = None) -> object:
    return original(device=here)


def _stand_in_for_unused() -> None:
    for name in UNUSED:
        try:
            importlib.import_module(name)
        except ImportError:
            sys.modules[name] = MagicMock()


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
