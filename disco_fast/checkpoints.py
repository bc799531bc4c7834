"""Weights in and out of files: official `.pth.tar` pickles, safetensors; fixed random weights."""

from __future__ import annotations

import json
import math
import zipfile
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

from .io.atomic import whole_file
from .model import DISCO, Ranges, assemble
from .model.readout import Readout, official

COMPACT = Path(__file__).parent / "weights" / "compact.safetensors"
_WIDEST = "repnet.conv4_3.0.weight_orig"  # 512 channels at width 1: tells the width to 1/512
_SHOWN = 5  # differences listed in an error
_FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_LARGEST = 1e15  # of a weight; far larger ones give no colors, but NaN


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
        CheckpointError: truncated, not a checkpoint, keys or shapes of another network, or weights
            that cannot be computed with.
    """
    return _network(Path(path), *_read(Path(path)))


def _network(path: Path, state: dict[str, Tensor], metadata: Mapping[str, str]) -> DISCO:
    """The network of what was read from a path."""
    try:
        width = metadata.get("width") or (len(state[_WIDEST]) / 512 if _WIDEST in state else 1.0)
        cell_size = int(metadata.get("cell_size", 16))
        with torch.device("meta"):
            backbone = metadata.get("backbone", "published")
            expected = DISCO(float(width), cell_size, backbone).state_dict()
    except Exception as error:  # whatever somebody's file says
        raise CheckpointError(f"{path}: no DISCO network has its size ({_first(error)})") from None
    try:
        text = metadata.get("readout")
        readout = official() if text is None else Readout.from_json(text)
        ranges = _ranges(metadata.get("ranges"))
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None
    _check_fit(path, expected, state)
    wide = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
    network = assemble(wide, float(width), cell_size, backbone, readout)
    network.ranges = ranges
    return network


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
    _write(path, state, {**(notes or {}), **_described(network)}, replace)


def save_with_ranges(
    source: str | Path, path: str | Path, ranges: Ranges, replace: bool = True
) -> None:
    """Write a checkpoint once more, with the ranges that int8 needs, whole or not at all.

    Args:
        source: of any kind; its weights and notes stay as they are.
        path: the safetensors file.
        ranges: by `engine.calibration.measure_ranges`, of the same network.
        replace: whether a file of that name is replaced.

    Raises:
        As `load_checkpoint`.
    """
    state, notes = _read(Path(source))
    network = _network(Path(source), state, notes)
    network.ranges = ranges
    plain = {key: value.contiguous() for key, value in state.items()}
    _write(path, plain, {**notes, **_described(network)}, replace)


def _write(
    path: str | Path, state: dict[str, Tensor], metadata: dict[str, str], replace: bool
) -> None:
    with whole_file(path, replace) as partial:
        partial.write_bytes(safetensors.torch.save(state, metadata))


def _described(network: DISCO) -> dict[str, str]:
    """What a file says of a network besides its weights."""
    described = {
        "width": repr(network.width),
        "cell_size": str(network.cell_size),
        "backbone": network.backbone,
        "readout": network.readout.to_json(),
    }
    return described if network.ranges is None else {**described, "ranges": _text(network.ranges)}


def _text(ranges: Ranges) -> str:
    return json.dumps(
        {name: [float(f"{end:.4g}") for end in ends] for name, ends in ranges.items()}
    )


def _ranges(text: str | None) -> Ranges | None:
    """From text that `_text` wrote.

    Raises:
        ValueError: it is something else.
    """
    if text is None:
        return None
    try:
        ranges = {
            str(name): (float(low), float(high)) for name, (low, high) in json.loads(text).items()
        }
    except (AttributeError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"ranges: expected two numbers for each convolution ({error})") from None
    if not all(-math.inf < low <= 0 <= high < math.inf for low, high in ranges.values()):
        raise ValueError("ranges: expected finite ones with 0 in them")
    return ranges


def random_network(width: float = 1.0, backbone: str = "published") -> DISCO:
    """A network with fixed random weights, for trying and timing; its colors mean nothing.

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


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a checkpoint by their plain names, and its notes."""
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint: no file {path}")
    read = _read_safetensors if path.suffix == ".safetensors" else _read_pickle
    state, notes = read(path)
    if state and all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return state, notes


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safetensors.safe_open(path, "pt") as file:
            keys = file.keys()
            return {key: file.get_tensor(key) for key in keys}, file.metadata() or {}
    except Exception as error:  # safetensors and torch raise many kinds
        raise CheckpointError(
            f"{path}: not a complete safetensors file ({_first(error)})"
        ) from None


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
        _check_unpacked(path)
        with _numpy_scalars():
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a pickle can raise has no bound
        raise CheckpointError(
            f"{path}: not a complete PyTorch checkpoint ({_first(error)})"
        ) from None
    state = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise CheckpointError(f"{path}: holds no state dict of tensors")
    return state, {}


def _check_unpacked(path: Path) -> None:
    """Refuse a zip that unpacks to more than it is: PyTorch writes them without compression."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > path.stat().st_size:
            raise ValueError(f"its parts unpack to {unpacked} bytes, which is more than it has")


def _first(error: Exception) -> str:
    """The first line of what an error says, or its kind where it says nothing."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _check_fit(path: Path, expected: dict[str, Tensor], got: dict[str, Tensor]) -> None:
    problems = [f"{key} is missing" for key in expected if key not in got]
    problems += [f"{key} is unknown" for key in got if key not in expected]
    problems += [
        f"{key} has shape {list(got[key].shape)}, not {list(value.shape)}"
        for key, value in expected.items()
        if key in got and got[key].shape != value.shape
    ]
    problems += [
        f"{key} {problem}"
        for key, value in expected.items()
        if key in got
        and got[key].shape == value.shape
        and (problem := _unusable(key, got[key], value))
    ]
    if problems:
        rest = len(problems) - _SHOWN
        shown = "; ".join(problems[:_SHOWN]) + (f"; and {rest} more" if rest > 0 else "")
        raise CheckpointError(f"{path}: does not fit the DISCO network: {shown}")


def _unusable(key: str, got: Tensor, expected: Tensor) -> str | None:
    """Why a tensor of the right shape is no weight, if so."""
    if got.layout != torch.strided or got.is_nested or got.is_quantized or got.device.type != "cpu":
        return "is not a plain tensor"
    if not expected.is_floating_point():
        fits = got.dtype in (torch.int64, torch.int32)
        return None if fits else f"has type {got.dtype}, not {expected.dtype}"
    if got.dtype not in _FLOATING:
        return f"has type {got.dtype}, not one of {', '.join(map(str, _FLOATING))}"
    if not got.numel():
        return None
    low, high = (float(value) for value in got.aminmax())
    if not -float("inf") < low <= high < float("inf"):  # false for NaN too
        return "holds values that are not finite"
    if max(-low, high) > _LARGEST:
        return f"holds values beyond {_LARGEST:g}"
    if key.endswith("running_var") and low < 0:
        return "holds variances below 0"
    return None
