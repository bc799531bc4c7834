"""Weights in and out of files: official `.pth.tar` pickles, safetensors; fixed random weights."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .files import whole_file
from .model import DISCO, assemble
from .readout import Readout, official

COMPACT = Path(__file__).parent / "weights" / "compact-0.25.safetensors"
_WIDEST = "repnet.conv4_3.0.weight_orig"  # 512 channels at width 1: tells the width to 1/512
_SHOWN = 5  # differences listed in an error


class CheckpointError(ValueError):
    """A file that holds no weights of this network; the message names what differs."""


def load_checkpoint(path: str | Path) -> DISCO:
    """Build the network that a checkpoint holds, in fp32 and in eval mode, on the CPU.

    Width, cell size, backbone and readout are read from the file; official checkpoints are width 1,
    cell size 16, the published backbone, and their readout is `readout.official`.

    Args:
        path: `.safetensors`, or a pickle of a state dict or of a dict with the entry `state_dict`
            (official `.pth.tar`), with or without the prefix `module.` on its keys. Pickles are
            read with `weights_only=True`.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: truncated, not a checkpoint, or keys or shapes of another network.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint: no file {path}")
    read = _read_safetensors if path.suffix == ".safetensors" else _read_pickle
    state, metadata = read(path)
    if state and all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    width = metadata.get("width") or (len(state[_WIDEST]) / 512 if _WIDEST in state else 1.0)
    cell_size = int(metadata.get("cell_size", 16))
    backbone = metadata.get("backbone", "published")
    try:
        with torch.device("meta"):
            expected = DISCO(float(width), cell_size, backbone).state_dict()
        text = metadata.get("readout")
        readout = official() if text is None else Readout.from_json(text)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None
    _check_fit(path, expected, state)
    wide = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
    return assemble(wide, float(width), cell_size, backbone, readout)


def save_checkpoint(
    network: DISCO,
    path: str | Path,
    dtype: torch.dtype = torch.float32,
    notes: Mapping[str, str] | None = None,
    replace: bool = True,
) -> None:
    """Write a network as safetensors, whole or not at all.

    Args:
        network: its floating tensors are stored in `dtype`, its counters as they are.
        path: the file.
        dtype: torch.float16 halves the file.
        notes: kept in the file's metadata, such as how the network was trained.
        replace: whether a file of that name is replaced.
    """
    state = {
        key: value.detach().to("cpu", dtype if value.is_floating_point() else None).contiguous()
        for key, value in network.state_dict().items()
    }
    metadata = {
        **(notes or {}),
        "width": repr(network.width),
        "cell_size": str(network.cell_size),
        "backbone": network.backbone,
        "readout": network.readout.to_json(),
    }
    with whole_file(path, replace) as partial:
        partial.write_bytes(safetensors.torch.save(state, metadata))


def random_network(width: float = 1.0, backbone: str = "published") -> DISCO:
    """A network with fixed random weights, for trying and timing; its colours mean nothing.

    Batch-norm statistics and spectral norms are calibrated on smooth noise, so that activations
    stay in a normal range and K-Means has clusters to find. The global random state is left alone.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        network = DISCO(width, backbone=backbone)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.5
        network.train()
        for _ in range(4):
            noise = F.interpolate(torch.randn(1, 1, 12, 12), size=(128, 128), mode="bicubic")
            network(0.5 * noise + 0.05 * torch.randn_like(noise))
    return network.eval()


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safetensors.safe_open(path, "pt") as file:
            keys = file.keys()
            return {key: file.get_tensor(key) for key in keys}, file.metadata() or {}
    except (safetensors.SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path}: not a complete safetensors file ({error})") from None


@contextmanager
def _numpy_scalars() -> Iterator[None]:
    """Lets a weights-only pickle hold NumPy numbers, such as the best loss of a training run."""
    core = np._core if hasattr(np, "_core") else np.core  # NumPy 2, NumPy 1
    number_types = [type(np.dtype(t)) for t in (np.float32, np.float64, np.int32, np.int64)]
    names = [f"numpy.{name}.multiarray.scalar" for name in ("core", "_core")]
    allowed: list[Any] = [(core.multiarray.scalar, name) for name in names]
    allowed += [np.dtype, *number_types]
    with torch.serialization.safe_globals(allowed):
        yield


def _read_pickle(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with _numpy_scalars():
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: not a complete PyTorch checkpoint ({reason})") from None
    state = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(f"{path}: holds no state dict of tensors")
    return state, {}


def _check_fit(path: Path, expected: dict[str, Tensor], got: dict[str, Tensor]) -> None:
    problems = [f"{key} is missing" for key in expected if key not in got]
    problems += [f"{key} is unknown" for key in got if key not in expected]
    problems += [
        f"{key} has shape {list(got[key].shape)}, not {list(value.shape)}"
        for key, value in expected.items()
        if key in got and got[key].shape != value.shape
    ]
    problems += [
        f"{key} holds values that are not finite"
        for key, value in got.items()
        if value.is_floating_point() and not bool(value.isfinite().all())
    ]
    if problems:
        rest = len(problems) - _SHOWN
        shown = "; ".join(problems[:_SHOWN]) + (f"; and {rest} more" if rest > 0 else "")
        raise CheckpointError(f"{path}: does not fit the DISCO network: {shown}")
