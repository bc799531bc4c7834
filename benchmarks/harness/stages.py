"""Where the time of one forward pass goes: hooks on its modules, timed ops, the network unchanged.

The blocks are those of the paper's Figure 13. Anchor construction is what the other two leave; it
is split into lines.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from disco_fast.model import DISCO

Shape = list[int]

FEATURES, ANCHORS, GENERATION = BLOCKS = (
    "feature extraction",
    "anchor construction",
    "color generation",
)
MODULES = {
    "segnet": FEATURES,
    "repnet": FEATURES,
    "enhanceNet": GENERATION,
    "wildpath": "color modeler",
    "mid_word_prj": "color modeler",
    "trg_word_emb": "color generator",
    "hintpath": "color generator",
    "trg_word_prj": "color generator",
}
OPS = {
    "sp_pool_with_size": "SP-Pooling",
    "kmeans_init": "K-Means",
    "kmeans": "K-Means",
    "choose_anchors": "choice and colors",
    "select_anchors": "choice and colors",
    "anchor_bins": "choice and colors",
    "sp_diffuse": "SP-Diffusion",
}
LINES = (
    "SP-Pooling",
    "color modeler",
    "K-Means",
    "choice and colors",
    "color generator",
    "SP-Diffusion",
)
REST = "rest"


def _packed_flops(x: Shape, weight: Shape, *_: object, out_shape: Shape, **__: object) -> int:
    return conv_flop_count(x, weight, out_shape)


def _packed_transposed_flops(
    x: Shape, weight: Shape, *_: object, out_shape: Shape, **__: object
) -> int:
    return conv_flop_count(x, weight, out_shape, transposed=True)


# Convolutions that PyTorch does not count.
UNCOUNTED = {
    torch.ops.mkldnn._convolution_pointwise: _packed_flops,
    torch.ops.mkldnn._convolution_transpose_pointwise: _packed_transposed_flops,
    torch.ops.disco_fast.convolve: _packed_flops,
}


class Stopwatch:
    """Adds up the time between marks, by name.

    On a GPU the marks are events in its stream, so that nothing waits for them. A span inside
    another span is part of the outer one.
    """

    def __init__(self, device: torch.device):
        self._gpu = device.type == "cuda"
        self._spans: dict[str, list[tuple]] = defaultdict(list)
        self._open: list[tuple] = []

    def _mark(self) -> float | torch.cuda.Event:
        if not self._gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def start(self, name: str) -> None:
        """Open a span."""
        self._open.append((name, self._mark()))

    def stop(self) -> None:
        """Close the span opened last."""
        name, begin = self._open.pop()
        if not self._open:
            self._spans[name].append((begin, self._mark()))

    def timed(self, name: str, function: Callable) -> Callable:
        """The function, every call of it a span."""

        def call(*args, **kwargs):
            self.start(name)
            try:
                return function(*args, **kwargs)
            finally:
                self.stop()

        return call

    def read(self) -> dict[str, float]:
        """Seconds by name since the last reading."""
        if self._gpu:
            torch.cuda.synchronize()
        spans = {name: sum(map(self._length, pairs)) for name, pairs in self._spans.items()}
        self._spans.clear()
        return spans

    def _length(self, span: tuple) -> float:
        begin, end = span
        return begin.elapsed_time(end) / 1e3 if self._gpu else end - begin


class TimedOps(ModuleType):
    """A namespace of ops, timed; remembers the iteration counts of K-Means."""

    def __init__(self, ops: ModuleType, watch: Stopwatch):
        super().__init__(ops.__name__)
        self._ops, self._watch = ops, watch
        self._counts: list[Tensor] = []

    def __getattr__(self, name: str) -> object:
        function = getattr(self._ops, name)
        if name == "kmeans":
            function = self._counted(function)
        return self._watch.timed(OPS[name], function) if name in OPS else function

    def _counted(self, kmeans: Callable) -> Callable:
        def call(*args, **kwargs):
            result = kmeans(*args, **kwargs)
            self._counts.append(result[2])
            return result

        return call

    def iterations(self) -> list[int]:
        """Of every image since the last reading."""
        counts = [count for batch in self._counts for count in batch.tolist()]
        self._counts.clear()
        return counts


@contextmanager
def timed_modules(network: nn.Module, watch: Stopwatch) -> Iterator[None]:
    """Every call of a block's or line's module is a span, while the context lasts."""
    handles = []
    for name, line in MODULES.items():
        module = network.get_submodule(name)
        handles.append(module.register_forward_pre_hook(lambda *_, line=line: watch.start(line)))
        handles.append(module.register_forward_hook(lambda *_: watch.stop()))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def timed_network(network: DISCO, watch: Stopwatch) -> Iterator[TimedOps]:
    """As `timed_modules`, and the ops too."""
    before = network.ops
    network.ops = TimedOps(before, watch)
    try:
        with timed_modules(network, watch):
            yield network.ops
    finally:
        network.ops = before


def breakdown(total: float, spans: dict[str, float]) -> dict[str, float]:
    """A pass's time by block, and that of anchor construction by line."""
    anchors = total - spans[FEATURES] - spans[GENERATION]
    lines = {line: spans.get(line, 0.0) for line in LINES}
    return {
        FEATURES: spans[FEATURES],
        ANCHORS: anchors,
        GENERATION: spans[GENERATION],
        **lines,
        REST: anchors - sum(lines.values()),
    }


def parameters(network: DISCO) -> dict[str, int]:
    """Weights by block."""
    return _by_block(lambda name: sum(p.numel() for p in network.get_submodule(name).parameters()))


def multiply_accumulates(network: DISCO, gray: Tensor) -> dict[str, int]:
    """Multiply-accumulates of a forward pass by block.

    PyTorch counts matrix products and convolutions. The ops are not among them (0.08 G of pooling
    and spreading at 256x256), nor are they in the paper's figures.
    """
    plain_attention = sdpa_kernel(SDPBackend.MATH)  # fused attention is not counted on a CPU
    counting = FlopCounterMode(display=False, custom_mapping=UNCOUNTED)
    with counting as counter, plain_attention, torch.no_grad():
        network(gray)
    flops = counter.get_flop_counts()
    whole = type(network).__name__
    return _by_block(lambda name: sum(flops.get(f"{whole}.{name}".rstrip("."), {}).values()) // 2)


def _by_block(count: Callable[[str], int]) -> dict[str, int]:
    """Counts of the modules, gathered to blocks; "" is the whole network."""
    features = count("segnet") + count("repnet")
    generation = count("enhanceNet")
    return {FEATURES: features, ANCHORS: count("") - features - generation, GENERATION: generation}
