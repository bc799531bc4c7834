"""SPixNet beside the backbone: neither needs the other, and SPixNet alone does not fill a GPU."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ..model import DISCO
from .graphs import capture_streams


def extract_side_by_side(network: DISCO) -> None:
    """Make SPixNet a branch of its own in a CUDA graph; nothing changes elsewhere. In place."""
    network._extract = partial(_extract, network)  # type: ignore[method-assign]


def _extract(
    network: DISCO, gray: Tensor, rows: int, columns: int
) -> tuple[Tensor, Tensor, Tensor]:
    # Launched one by one, the host is what they wait for, and a second stream is no help.
    compiling = torch.compiler.is_compiling()
    if compiling or not gray.is_cuda or not torch.cuda.is_current_stream_capturing():
        return DISCO._extract(network, gray, rows, columns)
    trunk, (_, branch) = torch.cuda.current_stream(), capture_streams(gray.device.index)
    branch.wait_stream(trunk)
    with torch.cuda.stream(branch):
        association = network.segnet(gray)
        position = network._position(rows, columns, gray.device)
    features = network.repnet(gray)
    trunk.wait_stream(branch)
    return association, features, position
