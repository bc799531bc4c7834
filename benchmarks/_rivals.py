"""Other ways to run the whole network, one picture at a time."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import _official
import torch
from _extras import MissingExtraError, need
from torch import Tensor, nn

from disco_fast import reference
from disco_fast.engine import Engine
from disco_fast.engine.convolutions import fold_spectral_norm
from disco_fast.model import DISCO
from disco_fast.model.scale import TOKEN_DIM

CONVOLUTIONAL = {"segnet": 1, "repnet": 1, "enhanceNet": 1 + TOKEN_DIM}  # input channels
HINTS = {"fp32": "f32", "bf16": "bf16"}

# From gray [1,1,H,W] and first centers [1,K] to a DISCOOutput, or to ab alone.
Forward = Callable[[Tensor, Tensor], Any]
Build = Callable[[DISCO, int, torch.device], Forward]  # of a network, for pictures of one side


class LeftOutError(RuntimeError):
    """A rival that cannot run here; the message says why."""


def published(network: DISCO, size: int, device: torch.device) -> Forward:
    """The published eager path: `disco_fast.reference`."""
    eager = _copy(network, device)
    eager.ops = reference
    return _forward(eager)


def compiled(network: DISCO, size: int, device: torch.device) -> Forward:
    """The published path, torch.compile around its three convolutional networks."""
    eager = _copy(network, device)
    eager.ops = reference
    for name in CONVOLUTIONAL:
        setattr(eager, name, torch.compile(getattr(eager, name), dynamic=False))
    forward = _forward(eager)
    try:
        with torch.inference_mode():
            side = torch.zeros(1, 1, size, size, device=device)
            forward(side, torch.arange(1, device=device)[None])
    except RuntimeError as error:  # no C++ compiler, no Triton, no header of Python
        raise LeftOutError(f"torch.compile: {str(error).strip().splitlines()[0]}") from error
    return forward


def openvino(precision: str) -> Build:
    """The engine, its three convolutional networks run by OpenVINO."""

    def build(network: DISCO, size: int, device: torch.device) -> Forward:
        if device.type != "cpu":
            raise LeftOutError("runs on CPUs only")
        try:
            # It would report this use to OpenVINO's makers.
            sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
            vino = need("openvino")
        except MissingExtraError as error:
            raise LeftOutError(str(error)) from error
        folded = _copy(network, device)
        fold_spectral_norm(folded)
        fast = Engine(network, "fp32", device).network
        for name, channels in CONVOLUTIONAL.items():
            example = torch.zeros(1, channels, size, size)
            setattr(fast, name, _InOpenVINO(vino, getattr(folded, name), example, precision))
        return _forward(fast)

    return build


class _InOpenVINO(nn.Module):
    """A network converted for inputs shaped as an example; as many threads as torch has."""

    def __init__(self, vino: Any, network: nn.Module, example: Tensor, precision: str):
        super().__init__()
        model = vino.convert_model(network, example_input=example, input=[list(example.shape)])
        settings = {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        self._request = vino.Core().compile_model(model, "CPU", settings)

    def forward(self, x: Tensor) -> Tensor:
        """As the network."""
        return torch.from_numpy(self._request(x.numpy())[0])


def official(folder: Path) -> Build:
    """The official network, which gives ab alone; see `_official`."""

    def build(network: DISCO, size: int, device: torch.device) -> Forward:
        code = _official.load(folder, network.state_dict(), device)

        def forward(gray: Tensor, kmeans_init: Tensor) -> Any:
            def start(points: Tensor, _: int) -> Tensor:
                return points[kmeans_init[0]]

            with patch.object(code.clusterkit, "initialize", start):
                colors = gray.new_zeros(1, 2, *gray.shape[-2:])
                return code.network(gray, colors, test_mode=True)[2]

        return forward

    return build


def _copy(network: DISCO, device: torch.device) -> DISCO:
    weights = {key: value.clone() for key, value in network.state_dict().items()}
    return network.alike(weights).requires_grad_(False).to(device)


def engine(fast: Engine) -> Forward:
    """The engine, for comparison: everything it computes."""
    return _forward(fast)


def chroma(fast: Engine) -> Forward:
    """The engine, for timing: ab alone, as a user gets it."""

    def forward(gray: Tensor, kmeans_init: Tensor) -> Tensor:
        return fast.chroma(gray, kmeans_init.shape[1], kmeans_init)

    return forward


def _forward(network: nn.Module) -> Forward:
    def forward(gray: Tensor, kmeans_init: Tensor) -> Any:
        return network(gray, kmeans_init.shape[1], kmeans_init)

    return forward
