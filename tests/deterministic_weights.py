"""The weights behind the golden activations, made from each tensor's key and shape alone.

NumPy's legacy generator, seeded with the CRC of the key, is frozen for good: the same numbers
everywhere.
"""

from __future__ import annotations

import json
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from disco_fast import DISCO

DATA = Path(__file__).parent / "data"


def manifest() -> dict[str, list[int]]:
    """Official key to shape, in the order of the official module."""
    return json.loads((DATA / "manifest.json").read_text())


def _leading_singular_vectors(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What spectral norm keeps of a weight: 50 power iterations from ones, in double."""
    matrix = weight.reshape(len(weight), -1).astype(np.float64)
    left = np.full(len(matrix), len(matrix) ** -0.5)
    for _ in range(50):
        right = matrix.T @ left
        right /= np.linalg.norm(right)
        left = matrix @ right
        left /= np.linalg.norm(left)
    return left.astype(np.float32), right.astype(np.float32)


def _random(key: str, shape: list[int]) -> np.ndarray:
    normal = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape)
    if len(shape) == 1:
        return (1 + 0.1 * normal if key.endswith("weight") else 0.05 * normal).astype(np.float32)
    scale = np.sqrt(2 / np.prod(shape[1:]))
    if key in ("mid_word_prj.weight", "trg_word_prj.weight"):
        scale *= 2  # well separated color bins
    if key.endswith(("out_proj.weight", "linear2.weight")):
        scale *= 0.1  # well separated clusters
    return (scale * normal).astype(np.float32)


def untrained(width: float = 1.0, cell_size: int = 16) -> DISCO:
    """A network as its constructor leaves it, without moving the global generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return DISCO(width, cell_size)


@cache
def golden_state() -> dict[str, Tensor]:
    """The state dict of the published network's shapes that the golden files were recorded with."""
    shapes, state = manifest(), {}
    with np.load(DATA / "bn_stats.npz") as statistics:
        calibrated = dict(statistics)
    for key, shape in shapes.items():
        if key in calibrated:
            state[key] = calibrated[key]
        elif key.endswith("num_batches_tracked"):
            state[key] = np.zeros((), np.int64)
        elif not key.endswith(("weight_u", "weight_v")):
            state[key] = _random(key, shape)
    for key in [key for key in shapes if key.endswith("weight_u")]:
        stem = key.removesuffix("_u")
        state[key], state[f"{stem}_v"] = _leading_singular_vectors(state[f"{stem}_orig"])
    return {key: torch.from_numpy(np.asarray(state[key])) for key in shapes}
