"""How many images go through the network at once, and what happens when they do not fit."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, MutableMapping, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

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
    variant; of three, which share the first half of the network, each takes a little less. Where
    the published backbone is narrower than half, its result is more, by up to a quarter: there is
    room for that, see `_SHARE`.
    """
    return 37 + (67 + 336 * width) * (4 if precision == "fp32" else 2)


def full_bytes(images: Tensor, variants: int) -> int:
    """Most memory that one of some images takes at full size while it is colorized.

    Itself (floating: also clamped), its lightness (of several variants: also once for each), and
    twice its results, in the type of the arithmetic and in its own.

    Args:
        images: [N,C,H,W].
        variants: of each.
    """
    _, channels, height, width = images.shape
    item, floating = images.element_size(), images.is_floating_point()
    arithmetic = max(4, item)
    image = channels * (item + arithmetic if floating else item)
    lightness = arithmetic * (1 + variants if variants > 1 else 1)
    results = 3 * variants * (item + (arithmetic if floating else item))
    return height * width * (image + lightness + results)


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


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on whatever device."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in _NO_MEMORY)


class Attempt(Generic[Item]):
    """A context in which a batch is computed; running out of memory ends it without an error.

    An image alone that does not fit is an error.
    """

    def __init__(self, batch: Sequence[Item], where: str):
        self._batch, self._where, self.fitted = batch, where, True

    def __enter__(self) -> Sequence[Item]:
        return self._batch

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        # The error is not kept, for its traceback keeps tensors alive.
        if error is None or not out_of_memory(error):
            return False
        if len(self._batch) == 1:
            raise MemoryError(f"{self._batch[0]} does not fit into {self._where}") from error
        self.fitted = False
        return True


def retry_smaller(
    items: Sequence[Item],
    at_once: int,
    fitted: MutableMapping[Hashable, int],
    kind: Hashable,
    where: str,
) -> Iterator[Attempt[Item]]:
    """Go through all items in batches, again in halves where memory runs out, down to one.

        for attempt in retry_smaller(items, 8, fitted, kind, "the memory"):
            with attempt as batch:
                compute(batch)

    It may be used from several threads.

    Args:
        items: what to compute, in order; as a string an item is named in errors.
        at_once: how many items to begin with, at least 1.
        fitted: what fitted of each kind; kept by the caller from call to call.
        kind: of these items.
        where: in words, what they must fit into.

    Yields:
        A context for every try. Within it MemoryError is raised for an item that alone is too
        large.
    """
    done = 0
    while done < len(items):
        left, most = len(items) - done, min(at_once, fitted.get(kind, at_once))
        # Powers of two at the end, too: what a GPU prepares, it prepares for each batch size.
        size = most if left >= most else _power_of_two(left)
        attempt = Attempt(items[done : done + size], where)
        yield attempt
        if attempt.fitted:
            done += size
        else:
            fitted[kind] = min(fitted.get(kind, at_once), size // 2)
