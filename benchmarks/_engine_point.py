"""One measurement of engine.py in a process of its own, so that its peak memory is its own.

Takes its settings as JSON on the command line, prints its report as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import _photographs
import torch
from _measure import Report, seconds, summary

import disco_fast
from disco_fast import Colorizer
from disco_fast.checkpoints import load_checkpoint
from disco_fast.engine import Engine

N_ANCHORS = 8
MOST_RUNS = 50
STATUS = Path("/proc/self/status")


class PeakMemory:
    """The most memory that the process takes from here on, beyond what it holds now.

    Of the GPU, what torch has allocated on it; else resident memory. Not `ru_maxrss`, in which a
    process on Linux inherits the peak of the one that started it.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self._before = None if device.type == "cuda" else _resident("VmRSS")

    def megabytes(self) -> float | None:
        """In 10^6 bytes; None where the system does not tell."""
        if self._device.type == "cuda":
            return round(torch.cuda.max_memory_allocated(self._device) / 1e6, 1)
        peak = _resident("VmHWM")
        return None if peak is None or self._before is None else round(peak - self._before, 1)


def _resident(entry: str) -> float | None:
    """An entry of Linux's table of a process, in 10^6 bytes."""
    if not STATUS.is_file():
        return None
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return int(lines[entry].removesuffix("kB")) * 1024 / 1e6


def sweep(
    checkpoint: str, device: torch.device, precision: str, batch: int, size: int, budget: float
) -> Report:
    """Time of a picture and peak memory of the engine, at one batch and size.

    Args:
        checkpoint: file of the network.
        device: where to run.
        precision: of the engine.
        batch: pictures in a pass.
        size: their side in pixels.
        budget: seconds after which no further pass is begun; there is one of warm-up and one timed
            whatever they take.
    """
    memory = PeakMemory(device)
    engine = Engine(load_checkpoint(checkpoint), precision, device)
    gray = _photographs.load(batch, size)[0].to(device)
    # Prepares kernels and memory for this shape, up to three times as slow; a GPU's graph is
    # captured in the second pass and replayed from the third on.
    for _ in range(1 if device.type == "cpu" else 3):
        _pass(engine, gray)
    times = [_pass(engine, gray)]
    while sum(times) < budget and len(times) < MOST_RUNS:
        times.append(_pass(engine, gray))
    return {
        "time": summary(time / batch for time in times),
        "peak_memory_mb": memory.megabytes(),
    }


def _pass(engine: Engine, gray: torch.Tensor) -> float:
    return seconds(lambda: engine.chroma(gray, N_ANCHORS), engine.device)


def picture(checkpoint: str, device: torch.device, precision: str, size: int) -> Report:
    """Peak memory of what a user does: a checkpoint file, a `Colorizer`, one picture."""
    memory = PeakMemory(device)
    colorizer = Colorizer(checkpoint, device, precision)
    gray = _photographs.load(1, size)[0]
    colorizer.colorize((gray + 1) / 2, n_anchors=N_ANCHORS)
    return {"peak_memory_mb": memory.megabytes()}


MEASUREMENTS: dict[str, Callable[..., Report]] = {"sweep": sweep, "picture": picture}


def main() -> None:
    settings = json.loads(sys.argv[1])
    measure = MEASUREMENTS[settings.pop("measure")]
    if settings.pop("keep_memory"):
        disco_fast.keep_memory()
    if threads := settings.pop("threads"):
        torch.set_num_threads(threads)
    device = torch.device(settings.pop("device"))
    print(json.dumps(measure(device=device, **settings)))


if __name__ == "__main__":
    main()
