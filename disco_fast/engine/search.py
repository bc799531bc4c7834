"""Which of two ways to the same result is the faster one: tried out, as cuDNN does."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

CALLS = 3  # timed of each way, of which the fastest counts
HEAD_START = 2_000_000  # cycles, about a millisecond: what the host needs to launch them all


def is_time_to_search(device: torch.device) -> bool:
    """Whether the call under way is there for searches: the one before a capture."""
    on_gpu = device.type == "cuda" and torch.backends.cudnn.benchmark
    return on_gpu and not torch.cuda.is_current_stream_capturing()


def is_faster(way: Callable[[], Tensor], other: Callable[[], Tensor]) -> bool:
    """Whether `way` takes less time on the current device and stream than `other`."""
    return _milliseconds(way) < _milliseconds(other)


def _milliseconds(way: Callable[[], Tensor]) -> float:
    way()  # cuDNN searches, and memory is there afterwards
    events = [torch.cuda.Event(enable_timing=True) for _ in range(CALLS + 1)]
    torch.cuda._sleep(HEAD_START)  # else the time of a small kernel would be the host's
    events[0].record()
    for event in events[1:]:
        way()
        event.record()
    events[-1].synchronize()
    return min(start.elapsed_time(end) for start, end in pairwise(events))
