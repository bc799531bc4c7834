"""How many pictures go through the network at once, and what happens when they do not fit."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import torch

Item = TypeVar("Item")

# Working pixels at once. With as many, even the backbone's smallest layers (an eighth of the side,
# 512 channels) are 256 tiles of 128 x 128, more than a GPU has multiprocessors to compute them.
_ENOUGH_PIXELS = 8 * 256 * 256
_SHARE = 0.5  # of the free memory; cuDNN's workspaces and a second stream need some too
_NO_MEMORY = (
    "out of memory",
    "allocate memory",
    "not enough memory",
    "bad_alloc",
    # Those that keep the reason to themselves: oneDNN, and torch under the native kernels, which
    # call it for nothing but their outputs and scratch.
    "could not create a primitive",
    "could not execute a primitive",
    '"aten::empty"',
    '"aten::contiguous"',
)


def activation_bytes(width: float, precision: str) -> float:
    """Most bytes of activations alive at once in a forward pass, per working pixel and variant.

    The peak is in RefineNet's last up block. Its terms were found by counting the bytes of all live
    tensors of prepared networks of four widths in two precisions, which they meet to 1 % for one
    variant; of three, which share the first half of the network, each takes a little less.
    """
    return 37 + (132 + 336 * width) * (4 if precision == "fp32" else 2)


def free_bytes(device: torch.device) -> float:
    """Memory of a GPU that nothing occupies, torch's own reserve included; infinite elsewhere.

    What CUDA graphs have reserved is theirs, even where it is unused at present.
    """
    if device.type != "cuda":
        return float("inf")
    index = torch.cuda.current_device() if device.index is None else device.index
    reserve = sum(
        segment["total_size"] - segment["allocated_size"]
        for segment in torch.cuda.memory_snapshot()
        if segment["device"] == index and tuple(segment["segment_pool_id"]) == (0, 0)
    )
    return torch.cuda.mem_get_info(device)[0] + reserve


def enough(device: torch.device, pixels: int) -> int:
    """Pictures at once of which more would bring nothing.

    One on a CPU: its convolutions round differently for different batch sizes, which in bf16 can
    move an anchor, and several at a time are no faster there.

    Args:
        device: where they are computed.
        pixels: working pixels of a picture, times variants.

    Returns:
        A power of two, so that few batch sizes occur: what a GPU prepares, it prepares for each.
    """
    return 1 if device.type == "cpu" else _power_of_two(_ENOUGH_PIXELS // pixels)


def fitting(device: torch.device, picture_bytes: float) -> int:
    """Pictures that the memory free at present should hold at once, at least 1; a power of two."""
    return _power_of_two(min(free_bytes(device) * _SHARE / picture_bytes, _ENOUGH_PIXELS))


def _power_of_two(number: float) -> int:
    """The largest that is not above `number`, at least 1."""
    return 1 << max(1, int(number)).bit_length() - 1


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory ran out, on whatever device."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in _NO_MEMORY)


class Batches:
    """Computes items a few at a time, and fewer at a time where memory runs out.

    It may be used from several threads.
    """

    def __init__(self) -> None:
        self._fitted: dict[Hashable, int] = {}

    def run(
        self,
        items: Sequence[Item],
        compute: Callable[[Sequence[Item]], None],
        at_once: int,
        kind: Hashable,
        describe: Callable[[Item], str],
    ) -> None:
        """Compute all items, in order.

        When memory runs out, the same items are tried again in halves, down to one. What fitted is
        remembered.

        Args:
            items: what to compute.
            compute: computes neighbouring items; may be called again for the same ones.
            at_once: how many items to begin with, at least 1.
            kind: what is remembered holds for items of this kind.
            describe: says of an item that it does not fit, and what to do.

        Raises:
            MemoryError: an item alone does not fit; its description.
        """
        done = 0
        while done < len(items):
            left, most = len(items) - done, min(at_once, self._fitted.get(kind, at_once))
            # Powers of two at the end, too: what a GPU prepares, it prepares for each batch size.
            batch = items[done : done + (most if left >= most else _power_of_two(left))]
            if self._fits(batch, compute, describe):
                done += len(batch)
            else:
                self._fitted[kind] = min(self._fitted.get(kind, at_once), len(batch) // 2)

    @staticmethod
    def _fits(
        batch: Sequence[Item],
        compute: Callable[[Sequence[Item]], None],
        describe: Callable[[Item], str],
    ) -> bool:
        # The error is gone on return, and with it the tensors that its traceback kept alive.
        try:
            compute(batch)
        except Exception as error:
            if not out_of_memory(error):
                raise
            if len(batch) == 1:
                raise MemoryError(describe(batch[0])) from error
            return False
        return True
