"""Times on a device: calls replayed from a CUDA graph, eager calls by the wall clock, ceilings.

A graph has no host between its kernels, so a replay takes what the device needs. Eager calls are
what a user waits for: host, launch and synchronisation included. Microseconds throughout.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from _measure import Report, seconds
from torch import Tensor

Function = Callable[[], Any]

WARM_UP = 2  # calls before anything is recorded or timed
REPLAYS = 20
FEW_REPLAYS = 5  # of a graph that takes longer than SLOW
SLOW = 0.05  # seconds
TARGET = 4e-3  # seconds of a replay, in which the graph's own launch of about 10 us is lost
MOST_CALLS = 400  # in a graph
MOST_RUNS = 50  # of an eager call
ALIKE = 1e-2  # of a replay's results and the eager ones: an empty graph is further off


def microseconds(times: list[float]) -> Report:
    """Median, 95th percentile and minimum of times in seconds."""
    us = np.array(times) * 1e6
    figures = {"median": np.median(us), "p95": np.percentile(us, 95), "min": us.min()}
    return {**{name: round(float(x), 3) for name, x in figures.items()}, "runs": len(us)}


def tensors(results: Any) -> tuple[Tensor, ...]:
    """The results of an op, one or several."""
    return (results,) if isinstance(results, Tensor) else tuple(results)


# ---- Replays of a graph --------------------------------------------------------------------------


@functools.cache
def _side() -> torch.cuda.Stream:
    """The stream that is captured: one, for cuBLAS keeps a workspace for each it has seen."""
    return torch.cuda.Stream()


class Loop:
    """A CUDA graph of several calls of a function, replayed.

    Args:
        function: works on the current stream and never waits for the device.
        calls: how many of them a graph holds.
    """

    def __init__(self, function: Function, calls: int):
        self.calls = calls
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
                    # Freed before the next call, so that a loop needs the memory of one.
                    self.results: Any = None
                    self.results = function()
        finally:
            torch.cuda.set_stream(before)  # a capture that fails leaves its own current

    def replay(self) -> float:
        """Seconds of the device per call."""
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        self._graph.replay()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3 / self.calls


def _verified_loop(function: Function) -> tuple[Loop, int]:
    """A loop that takes about TARGET, and how often to replay it.

    Raises:
        RuntimeError: the function cannot be captured, or its kernels were not.
    """
    once = Loop(function, 1)
    for result in tensors(once.results):
        result.fill_(77)
    once.replay()
    for replayed, eager in zip(tensors(once.results), tensors(function()), strict=True):
        if not torch.allclose(replayed.double(), eager.double(), rtol=ALIKE, atol=ALIKE):
            raise RuntimeError("a replay does not compute what the eager call does")
    time = min(once.replay() for _ in range(3))
    del once, result, replayed, eager
    calls = min(max(round(TARGET / max(time, 1e-6)), 1), MOST_CALLS)
    return Loop(function, calls), REPLAYS if time < SLOW else FEW_REPLAYS


def device_times(functions: Mapping[str, Function]) -> tuple[dict[str, Report], dict[str, str]]:
    """Time of one call on the device, of each function, by replays in turns.

    A run is a replay of `calls` calls, its time divided by them. A process in which a capture
    failed should capture nothing more: torch up to 2.11 keeps the capture's memory pool open.

    Returns:
        (times by name, reasons by name of those that could not be captured).
    """
    loops: dict[str, tuple[Loop, int]] = {}
    failed = {}
    for name, function in functions.items():
        try:
            loops[name] = _verified_loop(function)
        except RuntimeError as error:
            failed[name] = first_line(error.__context__ or error)
            break
    times: dict[str, list[float]] = {name: [] for name in loops}
    for run in range(REPLAYS):
        for name in list(loops)[:: -1 if run % 2 else 1]:
            loop, runs = loops[name]
            if run < runs:
                times[name].append(loop.replay())
    reports = {
        name: {**microseconds(t), "calls": loops[name][0].calls} for name, t in times.items()
    }
    return reports, failed


# ---- Eager calls ---------------------------------------------------------------------------------


def wall_times(
    functions: Mapping[str, Function], share: float, device: torch.device
) -> dict[str, Report]:
    """Time of one eager call, synchronised, of each function, in turns.

    Args:
        functions: by name.
        share: seconds that each may take, two calls at least.
        device: what to wait for.
    """
    runs = {}
    for name, function in functions.items():
        first = seconds(function, device)
        if first < share / 4:
            first = min(first, *(seconds(function, device) for _ in range(WARM_UP)))
        runs[name] = min(max(int(share / first), 1), MOST_RUNS)
    times: dict[str, list[float]] = {name: [] for name in functions}
    for run in range(max(runs.values(), default=0)):
        for name in list(functions)[:: -1 if run % 2 else 1]:
            if run < runs[name]:
                times[name].append(seconds(functions[name], device))
    return {name: microseconds(values) for name, values in times.items()}


# ---- Ceilings ------------------------------------------------------------------------------------


def copy_bandwidth(device: torch.device, size: int) -> Report:
    """Bytes per second, read and written, of copying `size` bytes on the device."""
    source = torch.empty(size // 4, dtype=torch.int32, device=device).random_()
    target = torch.empty_like(source)
    times = _durations(lambda: target.copy_(source), device)
    moved = 2 * source.numel() * source.element_size()
    return {"bytes_per_second": moved / min(times), "bytes": moved, **microseconds(times)}


def matrix_rate(device: torch.device, side: int) -> Report:
    """Floating-point operations per second of a square bf16 matrix product of random values."""
    a, b = (torch.randn(side, side, device=device).bfloat16() for _ in range(2))
    product = torch.empty_like(a)
    times = _durations(lambda: torch.matmul(a, b, out=product), device)
    return {"flop_per_second": 2 * side**3 / min(times), "side": side, **microseconds(times)}


def _durations(function: Function, device: torch.device) -> list[float]:
    """Seconds of a few calls, each long enough to be timed alone."""
    time = functools.partial(_between_events if device.type == "cuda" else _by_wall, function)
    for _ in range(WARM_UP):
        time()
    return [time() for _ in range(REPLAYS)]


def _between_events(function: Function) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    function()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3


def _by_wall(function: Function) -> float:
    return seconds(function, torch.device("cpu"))


# ---- Sound state ---------------------------------------------------------------------------------


def first_line(error: BaseException) -> str:
    """An error in one line."""
    text = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {text}"[:300]


def context_lives(device: torch.device) -> bool:
    """Whether the device still answers: after an illegal access, say, it never does."""
    try:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return math.isclose(torch.ones(3, device=device).sum().item(), 3)
    except Exception:  # whatever it is, nothing can be measured here
        return False
