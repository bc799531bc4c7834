"""What a fixed backbone makes of many crops, pooled and kept: the token path trains on it alone.

A pretrained encoder need not run again in every step, and what is kept of a crop is a few hundred
kilobytes of superpixels instead of its pixels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.lib.format import open_memmap
from torch import Tensor
from torch.utils.data import Dataset

from ..checkpoints import load_checkpoint, save_checkpoint
from ..color import AB_SCALE, normalize_lightness
from ..io.atomic import whole_file
from ..model import DISCO
from ..model.efficientnet import CHANNELS, gray_picture, pyramid_of
from .pretrained import load_pretrained
from .stream import Crops, Turns, batches, shuffled

ROWS, CARD, START = "superpixels.npy", "cache.json", "start.safetensors"
SCALES = sum(CHANNELS)  # channels of the scales; behind them: a and b over 110, and the size
WIDTH = SCALES + 3
_POOLED_AT = 4  # pixels along each side whose average association scales are pooled by
_SAMPLE = 400  # crops that the scales' mean and deviation are taken of
_SAVE_EVERY = 64  # batches


class CacheError(ValueError):
    """A folder that holds no cache, or that of another one; the message says which."""


class Cache(Dataset[Tensor]):
    """Cached crops in an endless, numbered stream, as `Crops` is one of photographs.

    Args:
        folder: as `fill` wrote it.
        seed: of the order, which is another one in each pass.

    Attributes:
        card: what was cached and how.
        grid: rows and columns of superpixels.

    Raises:
        CacheError: there is no cache, or it is not complete.
    """

    def __init__(self, folder: Path, seed: int):
        self.card = _read_card(folder)
        if self.card["done"] < self.card["crops"]:
            raise CacheError(
                f"{folder}: {self.card['done']} of {self.card['crops']} crops are cached;"
                " go on with disco-fast train cache --resume"
            )
        self.grid = self.card["size"] // self.card["cell_size"]
        self._rows = np.load(folder / ROWS, mmap_mode="r")
        self._folder, self._seed = folder, seed

    def __reduce__(self) -> tuple[type[Cache], tuple[Path, int]]:
        """Another process maps the file too, instead of being sent gigabytes."""
        return Cache, (self._folder, self._seed)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> Tensor:
        """Crop `number` of the stream, [P,516] fp32: pooled scales, color (ab/110) and size."""
        index = shuffled(number, len(self._rows), self._seed)
        return torch.from_numpy(self._rows[index].astype(np.float32))

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of every channel of the scales, [513] each."""
        step = max(1, len(self._rows) // _SAMPLE)
        sample = torch.from_numpy(self._rows[::step][:_SAMPLE, :, :SCALES].astype(np.float32))
        deviation, mean = torch.std_mean(sample.flatten(0, 1), dim=0)
        return mean, deviation + 1e-3


def with_pretrained(network: DISCO, seed: int) -> DISCO:
    """A network with EfficientNet-lite0 and a token path begun anew; the rest is `network`'s.

    Args:
        network: whose SPixNet and RefineNet are taken.
        seed: of the new weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = DISCO(network.width, network.cell_size, "efficientnet-lite0")
    load_pretrained(pyramid_of(fresh.repnet))
    fresh.segnet.load_state_dict(network.segnet.state_dict())
    fresh.enhanceNet.load_state_dict(network.enhanceNet.state_dict())
    return fresh.eval()


def start_of(folder: Path, cache: Cache) -> DISCO:
    """The network that a cache was made with.

    A token path begun anew gets its scales standardized to what is in the cache. One that was
    trained knows scales of its own.
    """
    network = load_checkpoint(folder / START)
    if cache.card["backbone"] == "pretrained":
        pyramid_of(network.repnet).standardize(*cache.statistics())
    return network


def fill(
    folder: Path,
    network: DISCO,
    crops: Crops,
    count: int,
    card: dict[str, Any],
    *,
    batch: int,
    workers: int,
    narrow: bool,
    should_stop: Callable[[], bool] = lambda: False,
    report: Callable[[int], None] = lambda done: None,
) -> bool:
    """Cache crops 0..count of a stream, or go on where the folder stopped.

    Args:
        folder: is made, or holds a part of the same cache.
        network: with the backbone EfficientNet-lite0; kept beside the rows.
        crops: the stream.
        count: crops in all.
        card: what makes this cache this one, with `size`, `cell_size` and `backbone`, which is
            "pretrained" for a network of `with_pretrained` and "init" for one trained since.
        batch: crops at a time.
        workers: processes that read photographs.
        narrow: whether the encoder runs in bf16.
        should_stop: asked after every batch.
        report: told how many crops are done.

    Returns:
        Whether the cache is complete.

    Raises:
        CacheError: the folder is of another cache.
    """
    superpixels = (card["size"] // card["cell_size"]) ** 2
    card = {**card, "crops": count}
    done = _begin(folder, network, card, (count, superpixels, WIDTH))
    rows = open_memmap(folder / ROWS, mode="r+")
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    encoder = torch.autocast("cpu", torch.bfloat16) if narrow else nullcontext()
    with torch.inference_mode():
        for lab in _batches(crops, done, count, batch, workers):
            found = superpixel_rows(network, lab, encoder)
            rows[done : done + len(lab)] = found.half().numpy()
            done += len(lab)
            report(done)
            stopping = should_stop()
            if stopping or done == count or done // batch % _SAVE_EVERY == 0:
                rows.flush()
                _write_card(folder, {**card, "done": done})
            if stopping:
                break
    return done == count


def superpixel_rows(
    network: DISCO, lab: Tensor, encoder: AbstractContextManager[object] | None = None
) -> Tensor:
    """What is cached of crops.

    Args:
        network: with the backbone EfficientNet-lite0, in eval mode.
        lab: [N,3,H,W].
        encoder: a context that the encoder runs in.

    Returns:
        [N,P,516].
    """
    gray = normalize_lightness(lab[:, :1])
    association = network.segnet(gray)
    with encoder or nullcontext():
        scales = pyramid_of(network.repnet).at_quarter(gray_picture(gray))
    cell, ops = network.cell_size, network.ops
    coarse = F.avg_pool2d(association, _POOLED_AT)
    pooled = [ops.sp_pool(scale.float(), coarse, cell // _POOLED_AT)[0] for scale in scales]
    chroma = (lab[:, 1:] / AB_SCALE).contiguous()
    colors, _, size = ops.sp_pool_with_size(chroma, association, cell)
    return torch.cat([*pooled, colors, size], dim=1).flatten(2).transpose(1, 2)


def _batches(crops: Crops, done: int, count: int, batch: int, workers: int) -> Iterator[Tensor]:
    turns = [list(turn) for turn in Turns(0, -(-(count - done) // batch), batch)]
    numbers = [[done + n for n in turn if done + n < count] for turn in turns]
    yield from batches(crops, numbers, workers)


def _begin(folder: Path, network: DISCO, card: dict[str, Any], shape: tuple[int, ...]) -> int:
    """Make the folder, or check that it is of the same cache; how many crops are done."""
    if (folder / CARD).exists():
        found = _read_card(folder)
        done = found.pop("done")
        if found != json.loads(json.dumps(card)):
            raise CacheError(f"{folder}: is of another cache: {found}")
        return done
    folder.mkdir(parents=True, exist_ok=True)
    save_checkpoint(network, folder / START)
    open_memmap(folder / ROWS, "w+", np.float16, shape)
    _write_card(folder, {**card, "done": 0})
    return 0


def _read_card(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / CARD).read_text())
    except (OSError, ValueError) as error:
        raise CacheError(f"{folder}: no cache of disco-fast train cache ({error})") from None


def _write_card(folder: Path, card: dict[str, Any]) -> None:
    with whole_file(folder / CARD) as partial:
        partial.write_text(json.dumps(card, indent=2) + "\n")
