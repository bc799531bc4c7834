"""How everything here is timed, and what is written down beside a time."""

from __future__ import annotations

import datetime
import functools
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from disco_fast import _library

from .report import Report, command, commit

WARM_UP = 2
TELLING = ("OMP_", "MKL_", "MALLOC_", "DISCO_FAST_")  # variables that change times

Function = Callable[[], Any]


def synchronize(device: torch.device) -> None:
    """Wait until the device has nothing left to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(function: Function, device: torch.device) -> float:
    """Wall time of one call, its work on the device included."""
    synchronize(device)
    begin = time.perf_counter()
    function()
    synchronize(device)
    return time.perf_counter() - begin


def interleaved(
    functions: Mapping[str, Function],
    repeats: int,
    device: torch.device,
    budget: float = float("inf"),
) -> dict[str, Report]:
    """Time rivals in turns, the order reversed every time, so that noise hits all alike.

    Args:
        functions: the calls by name.
        repeats: how often each is timed.
        device: what to wait for.
        budget: seconds after which no further turn begins; there is one whatever it takes.
    """
    begin = time.perf_counter()
    for function in functions.values():
        for _ in range(WARM_UP):
            function()
    times: dict[str, list[float]] = {name: [] for name in functions}
    for repeat in range(repeats):
        if repeat and time.perf_counter() - begin > budget:
            break
        for name in list(functions)[:: -1 if repeat % 2 else 1]:
            times[name].append(seconds(functions[name], device))
    return {name: summary(values) for name, values in times.items()}


def summary(times: Iterable[float]) -> Report:
    """Milliseconds of times in seconds; the minimum tells a busy machine from a slow one."""
    ms = np.array(list(times)) * 1e3
    figures = {"median": np.median(ms), "p95": np.percentile(ms, 95), "min": ms.min()}
    return {**{name: round(float(x), 4) for name, x in figures.items()}, "runs": len(ms)}


# ---- Time on a GPU alone -------------------------------------------------------------------------

REPLAYS = 20
TARGET = 4e-3  # seconds of a replay, in which the launch of a graph, about 10 us, is lost
MOST_CALLS = 400  # in a graph
ALIKE = 1e-2  # of a replay's results and the eager ones: those of an empty graph are further off


def tensors(results: Any) -> tuple[Tensor, ...]:
    """The results of an op, one or several."""
    return (results,) if isinstance(results, Tensor) else tuple(results)


@functools.cache
def _side() -> torch.cuda.Stream:
    """The stream that is captured: one, because cuBLAS keeps a workspace for each."""
    return torch.cuda.Stream()


class Loop:
    """A CUDA graph of several calls of a function: no host between its kernels.

    Args:
        function: works on the current stream and never waits for the device.
        calls: how many of them the graph holds.
    """

    def __init__(self, function: Function, calls: int):
        self._calls = calls
        before, side = torch.cuda.current_stream(), _side()
        side.wait_stream(before)
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                function()
        torch.cuda.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(self._graph, stream=side):
                for _ in range(calls):
                    self.results: Any = None  # freed first: a loop needs the memory of one call
                    self.results = function()
        finally:
            torch.cuda.set_stream(before)  # a capture that fails leaves its own current

    def replay(self) -> float:
        """Seconds of the device per call."""
        return _between_events(self._graph.replay) / self._calls


def _between_events(function: Function) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    function()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3


def device_time(function: Function) -> Report:
    """Time of one call on the GPU, by replays of a graph that holds many.

    Raises:
        RuntimeError: the function cannot be captured, or its kernels were not. A process in which
            a capture failed should capture no more: torch up to 2.11 keeps the pool open.
    """
    once = Loop(function, 1)
    for result in tensors(once.results):
        result.fill_(77)
    once.replay()
    for replayed, eager in zip(tensors(once.results), tensors(function()), strict=True):
        if not torch.allclose(replayed.double(), eager.double(), rtol=ALIKE, atol=ALIKE):
            raise RuntimeError("a replay does not compute what the eager call does")
    time = min(once.replay() for _ in range(3))
    loop = Loop(function, min(max(round(TARGET / max(time, 1e-6)), 1), MOST_CALLS))
    return summary(loop.replay() for _ in range(REPLAYS))


def copy_bandwidth(device: torch.device, size: int = 1 << 31) -> float:
    """Bytes per second, read and written, of the fastest of a few copies on a GPU."""
    size = min(size, torch.cuda.mem_get_info(device)[0] // 4)
    source = torch.empty(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    times = [_between_events(lambda: target.copy_(source)) for _ in range(WARM_UP + REPLAYS)]
    return 2 * size / min(times[WARM_UP:])


# ---- Context -------------------------------------------------------------------------------------


def default_device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def context(device: torch.device) -> Report:
    """Where, on what and by which command something was measured."""
    gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if gpu else cpu_model(),
        "device_type": device.type,
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        **({"cuda": torch.version.cuda, "tf32": torch.backends.cudnn.allow_tf32} if gpu else {}),
        "environment": {k: v for k, v in os.environ.items() if k.startswith(TELLING)},
        "native": {half.name: half.why for half in _library.halves()},
        "commit": commit(),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "command": command(),
    }


def cpu_model() -> str:
    """The processor's name and its family and model numbers: clouds shorten the name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    info = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = info.get("model name", platform.machine())
    numbers = [
        f"{key.removeprefix('cpu ')} {info[key]}" for key in ("cpu family", "model") if key in info
    ]
    return f"{name} ({', '.join(numbers)})" if numbers else name
