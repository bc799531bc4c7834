"""The forward pass as a CUDA graph: one launch, where the host would make hundreds.

A graph is of one shape and one set of settings, and is captured when those come for the second
time: the first call may be the only one, and a capture costs as much as several.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, TypeAlias

import torch
from torch import Tensor

from .batching import out_of_memory

GRAPHS = 64  # kept; their memory is shared, so that they take what the largest one needs
SEEN = 512  # sets of shapes and settings remembered that are not captured, or no longer

Inputs: TypeAlias = tuple[Tensor, ...]
Settings: TypeAlias = tuple[Hashable, ...]
Function: TypeAlias = Callable[..., Tensor]  # (inputs, *settings)
Replay: TypeAlias = Callable[[Inputs], Tensor]  # its result lies in memory of its own

_lock = threading.RLock()

# cuDNN remembers for each thread what it chose for a shape, and tries nothing out for one that it
# knows, as the thread of an earlier call does. This thread does nothing but capture.
_capturing = ThreadPoolExecutor(1, "disco_fast-capture")

_kept: list[Tensor] = []  # what the capture under way reads beside its inputs


@contextmanager
def settled(device: torch.device) -> Iterator[None]:
    """No autocast; on a GPU: that device current, fp32 exact, one thread at a time.

    No TF32 but where a convolution asks for it itself, and the same bits in every run. torch has
    such settings for the whole process only: they are as before afterwards, but other threads see
    them meanwhile.
    """
    with torch.autocast(device.type, enabled=False):
        if device.type != "cuda":
            yield
            return
        convolution = torch.backends.cudnn.conv  # type: ignore[attr-defined]
        product = torch.backends.cuda.matmul
        with (
            _lock,
            torch.cuda.device(device),
            _set(torch.backends.cudnn, "deterministic", True),
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


@cache
def capture_streams(device: int) -> tuple[torch.cuda.Stream, torch.cuda.Stream]:
    """The streams of captures on a device, and of a branch within them; always the same two.

    torch hands its 32 usual streams out in turns to all who ask: a capture on one of them would
    record what another thread launches there. Hardly anybody asks for high priority. And graphs
    share memory, cuBLAS its workspace, only on one stream.

    Args:
        device: its index.
    """
    return torch.cuda.Stream(device, priority=-1), torch.cuda.Stream(device, priority=-1)


def captures_here(device: torch.device) -> bool:
    """Whether what is launched now is recorded by `CudaGraphs`, and not by a caller's capture."""
    stream, (own, _) = torch.cuda.current_stream(device), capture_streams(device.index)
    return stream == own and torch.cuda.is_current_stream_capturing()


def keep(tensor: Tensor) -> Tensor:
    """The same tensor, which the graph that `captures_here` records reads and so keeps.

    Args:
        tensor: computed by the call before the capture.
    """
    _kept.append(tensor)
    return tensor


class CaptureError(RuntimeError):
    """What was launched could not be recorded; the message is torch's."""


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
            CaptureError: it cannot be captured.
            RuntimeError: it cannot be computed; memory is short.
        """
        if self._last is None:
            self._pool, self._last = torch.cuda.graph_pool_handle(), torch.cuda.Event()
        captured = tuple(torch.empty_like(x).copy_(x) for x in inputs)
        torch.cuda.synchronize()  # they are there, and no replay is running when one is dropped
        here = torch.cuda.current_device()
        call = partial(function, captured, *settings)
        recording = _capturing.submit(_record, call, here, self._pool).result()
        return partial(_replay, recording, self._last, captured)


@dataclass(frozen=True)
class _Recording:
    """A graph and its result, and what it reads that would else be gone."""

    graph: torch.cuda.CUDAGraph
    result: Tensor
    kept: tuple[Tensor, ...]


@torch.inference_mode()
def _record(call: Callable[[], Tensor], device: int, pool: Any) -> _Recording:
    graph, (stream, _) = torch.cuda.CUDAGraph(), capture_streams(device)
    _kept.clear()
    with torch.cuda.device(device), _set(torch.backends.cudnn, "benchmark", True):
        with torch.cuda.stream(stream):
            call()  # tries cuDNN's algorithms out, which pays for a shape that comes again
        try:
            # Other threads may use the device meanwhile.
            with torch.cuda.graph(graph, pool, stream, capture_error_mode="thread_local"):
                result = call()
        except RuntimeError as error:
            raise CaptureError(str(error)) from error
    return _Recording(graph, result, tuple(_kept))


def _replay(
    recording: _Recording, last: torch.cuda.Event, captured: Inputs, inputs: Inputs
) -> Tensor:
    stream = torch.cuda.current_stream()
    stream.wait_event(last)
    for own, x in zip(captured, inputs, strict=True):
        own.copy_(x)
    recording.graph.replay()
    copy = recording.result.clone()
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
        self._calls = _CallsBefore()

    def __call__(self, inputs: Inputs, *settings: Hashable) -> Tensor:
        """What the function gives.

        Raises:
            RuntimeError: as the function; where memory ran out, no graph holds any afterwards.
        """
        key = (*((x.shape, x.dtype) for x in inputs), *settings)
        if self.refusal or (key not in self._replays and self._calls.another(key)):
            return self._function(inputs, *settings)
        if key not in self._replays:
            try:
                self._keep(key, self._capture(self._function, inputs, settings))
            except CaptureError as error:
                # For all shapes and for good: torch up to 2.11 leaves the memory pool of a failed
                # capture open.
                reason = str(error).partition("\n")[0]
                self.refusal = f"a capture failed ({reason})"
                self._replays.clear()
                return self._function(inputs, *settings)
            except RuntimeError as error:
                if out_of_memory(error):
                    self.release()
                raise
        self._replays.move_to_end(key)
        return self._replays[key](inputs)

    def release(self) -> None:
        """Drop all graphs, and give their memory back."""
        self._replays.clear()
        torch.cuda.empty_cache()

    def _keep(self, key: Hashable, replay: Replay) -> None:
        self._replays[key] = replay
        if len(self._replays) > GRAPHS:
            self._calls.evicted(self._replays.popitem(last=False)[0])


class _CallsBefore:
    """How many calls of a key come before its capture: one, and twice as many after each eviction.

    So where more keys take turns than there are graphs, captures, which cost as much as several
    calls, become rare.
    """

    def __init__(self) -> None:
        self._calls: OrderedDict[Hashable, tuple[int, int]] = OrderedDict()  # wanted, to go

    def another(self, key: Hashable) -> bool:
        """Whether this call comes before the capture. It is counted."""
        wanted, to_go = self._calls.pop(key, (1, 1))
        self._remember(key, wanted, max(0, to_go - 1))
        return to_go > 0

    def evicted(self, key: Hashable) -> None:
        """The key's capture has been dropped."""
        wanted, _ = self._calls.pop(key, (1, 0))
        self._remember(key, 2 * wanted, 2 * wanted)

    def _remember(self, key: Hashable, wanted: int, to_go: int) -> None:
        self._calls[key] = wanted, to_go
        if len(self._calls) > SEEN:
            self._calls.popitem(last=False)
