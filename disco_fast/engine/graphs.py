"""The forward pass as a CUDA graph: one launch, where the host would make hundreds.

A graph is of one shape and one set of settings, and is captured when those come for the second
time: the first call may be the only one, and a capture costs as much as several.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor

GRAPHS = 8  # kept; their memory is shared, so that they take what the largest one needs
SEEN = 64  # sets of shapes and settings remembered as having come once

Inputs: TypeAlias = tuple[Tensor, ...]
Settings: TypeAlias = tuple[Hashable, ...]
Function: TypeAlias = Callable[..., Tensor]  # (inputs, *settings)
Replay: TypeAlias = Callable[[Inputs], Tensor]  # its result lies in memory of its own
Entry = TypeVar("Entry")

_lock = threading.RLock()


@contextmanager
def settled(device: torch.device) -> Iterator[None]:
    """On a GPU: that device current, fp32 exact, one thread at a time.

    No TF32 in what picks anchors, nor where fp32 was asked for. torch has such settings for the
    whole process only: they are as before afterwards, but other threads see them meanwhile.
    """
    if device.type != "cuda":
        yield
        return
    convolution = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    product = torch.backends.cuda.matmul
    with (
        _lock,
        torch.cuda.device(device),
        _set(convolution, "fp32_precision", "ieee"),
        _set(product, "fp32_precision", "ieee"),
    ):
        yield


@contextmanager
def _set(settings: Any, name: str, value: object) -> Iterator[None]:
    before = getattr(settings, name)
    setattr(settings, name, value)
    try:
        yield
    finally:
        setattr(settings, name, before)


class CudaGraphs:
    """Captures calls of one function at a time; the graphs share their memory.

    So replays follow one another, whatever streams they are on. All of this within `settled`.
    """

    def __init__(self) -> None:
        self._pool: Any = None  # torch gives its type no public name
        self._last: torch.cuda.Event | None = None  # when the latest replay has ended

    def capture(self, function: Function, inputs: Inputs, settings: Settings) -> Replay:
        """The function for inputs of these shapes, and with these settings, as one launch.

        Raises:
            RuntimeError: it cannot be captured, or memory is short.
        """
        if self._last is None:
            self._pool, self._last = torch.cuda.graph_pool_handle(), torch.cuda.Event()
        captured = tuple(torch.empty_like(x).copy_(x) for x in inputs)
        graph = torch.cuda.CUDAGraph()
        before, stream = torch.cuda.current_stream(), torch.cuda.Stream()
        torch.cuda.synchronize()  # no replay is running when the caller drops one
        try:
            # cuDNN tries its algorithms out, which pays for a shape that comes again. Its choices
            # belong to this thread, cuBLAS's workspace to this stream.
            with _set(torch.backends.cudnn, "benchmark", True):
                with torch.cuda.stream(stream):
                    function(captured, *settings)
                # Other threads may use the device meanwhile.
                with torch.cuda.graph(graph, self._pool, stream, capture_error_mode="thread_local"):
                    result = function(captured, *settings)
        finally:
            torch.cuda.set_stream(before)  # a capture that fails leaves its own current
        return partial(_replay, graph, self._last, captured, result)


def _replay(
    graph: torch.cuda.CUDAGraph,
    last: torch.cuda.Event,
    captured: Inputs,
    result: Tensor,
    inputs: Inputs,
) -> Tensor:
    stream = torch.cuda.current_stream()
    stream.wait_event(last)
    for own, x in zip(captured, inputs, strict=True):
        own.copy_(x)
    graph.replay()
    copy = result.clone()
    last.record(stream)
    return copy


class Replays:
    """A function whose repeated calls are replays.

    Args:
        function: called with inputs and settings.
        capture: makes a replay of a call, as `CudaGraphs.capture`.

    Attributes:
        refusal: why nothing is captured any more, in words; None as long as all goes well.
    """

    def __init__(self, function: Function, capture: Callable[[Function, Inputs, Settings], Replay]):
        self.refusal: str | None = None
        self._function, self._capture = function, capture
        self._replays: OrderedDict[Hashable, Replay] = OrderedDict()
        self._seen: OrderedDict[Hashable, None] = OrderedDict()

    def __call__(self, inputs: Inputs, *settings: Hashable) -> Tensor:
        """What the function gives."""
        key = (*((x.shape, x.dtype) for x in inputs), *settings)
        if self.refusal or (key not in self._replays and not self._comes_again(key)):
            return self._function(inputs, *settings)
        if key not in self._replays:
            try:
                self._replays[key] = self._capture(self._function, inputs, settings)
            except RuntimeError as error:
                # For all shapes and for good: torch up to 2.11 leaves the memory pool of a failed
                # capture open.
                reason = str(error).partition("\n")[0]
                self.refusal = f"a capture failed ({reason})"
                self._replays.clear()
                return self._function(inputs, *settings)
        replay = _use(self._replays, key, GRAPHS)
        return replay(inputs)

    def _comes_again(self, key: Hashable) -> bool:
        known = key in self._seen
        self._seen[key] = None
        _use(self._seen, key, SEEN)
        return known


def _use(entries: OrderedDict[Hashable, Entry], key: Hashable, length: int) -> Entry:
    """The entry, from now on the most recent one; of more than `length` the oldest is dropped."""
    entries.move_to_end(key)
    if len(entries) > length:
        entries.popitem(last=False)
    return entries[key]
