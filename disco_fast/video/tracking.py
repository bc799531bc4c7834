"""Anchors that keep their colors from frame to frame (the paper's future work, section 6)."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from .. import ops
from ..engine import Engine
from ..engine.batching import enough
from ..model import Superpixels
from ..preprocess import Full
from .flow import Motion, motion

SMOOTHING = 0.85  # a color that is wrong in one frame is gone after ten
_FAR = 1e6  # beyond all distances between tokens
_MOVED = 0.5  # of the mean distance between centers: a cluster that went as far is another thing


@dataclass(frozen=True)
class Followed:
    """What is known of K anchors after a frame.

    Attributes:
        centers: [K,64], of the clusters.
        tokens: [K,64], of the anchors' superpixels.
        origins: [K,64], the centers when the colors were chosen.
        bins: [K] int64, the colors.
    """

    centers: Tensor
    tokens: Tensor
    origins: Tensor
    bins: Tensor


@dataclass(frozen=True)
class Shown:
    """A frame at working size.

    Attributes:
        lightness: [h,w] fp32, L 0-100.
        chroma: [h,w,2] fp32, ab/110, as it was shown.
    """

    lightness: Tensor
    chroma: Tensor


class Tracker:
    """Colorizes a film, a few frames after the other.

    K-Means starts from the frame's tokens nearest to the centers of the frame before, so cluster k
    stays cluster k and keeps its color; its anchor is the superpixel most like the one before. At
    a cut everything is placed anew, and a cluster that has drifted far from what its color was
    chosen for gets another. Chroma is then mixed with that of the frame before, carried along the
    optical flow, where the lightness says that it is the same thing.

    Args:
        engine: the network.
        n_anchors: K.
        seed: of the placement after a cut.
        working_size: as for `Colorizer.colorize`.
        smoothing: share of the frame before in the chroma, 0 to below 1.
        vividness: as for `Colorizer.colorize`.

    Attributes:
        cuts: how many were found.
    """

    def __init__(
        self,
        engine: Engine,
        n_anchors: int = 8,
        seed: int = 0,
        working_size: int = 256,
        smoothing: float = SMOOTHING,
        vividness: float | None = None,
    ):
        self._engine, self._n_anchors, self._seed = engine, n_anchors, seed
        self._mode = Full(working_size, engine.network.stride)
        self._smoothing, self._offset = smoothing, engine.offset(vividness)
        self._followed: Followed | None = None
        self._shown: Shown | None = None
        self.cuts = 0

    def save(self) -> dict[str, Tensor]:
        """All that the next frame follows from; after at least one frame."""
        assert self._followed is not None
        assert self._shown is not None
        parts = (vars(self._followed), vars(self._shown))
        # Copies: after a cut two names are one tensor, and safetensors refuses shared memory.
        return {
            name: tensor.cpu().clone(memory_format=torch.contiguous_format)
            for part in parts
            for name, tensor in part.items()
        }

    def load(self, saved: dict[str, Tensor]) -> None:
        """Go on where another tracker of the same settings was when it saved."""
        device = self._engine.device
        names = [field.name for field in fields(Followed)]
        self._followed = Followed(**{name: saved[name].to(device) for name in names})
        self._shown = Shown(saved["lightness"], saved["chroma"])

    def at_once(self, height: int, width: int) -> int:
        """Frames that are worth being computed together."""
        rows, columns = self._mode.working_shape(height, width)
        return enough(self._engine.device, rows * columns)

    def colorize(self, frames: Tensor) -> Tensor:
        """The next frames in color, [N,3,H,W], from [N,1 or 3,H,W].

        Both are uint8 0-255 or floating 0-1.
        """
        lightness, gray = self._mode.read(frames, self._engine.device)
        superpixels = self._engine.superpixels(gray)
        small = _lightness(gray)
        motions = [self._motion(small, n) for n in range(len(frames))]
        followed = [self._follow(superpixels, n, moved) for n, moved in enumerate(motions)]
        index, bins = (torch.stack(both) for both in zip(*followed, strict=True))
        ab = self._engine.generate(gray, superpixels, index, bins)
        shown = [self._smooth(ab[n], small[n], moved) for n, moved in enumerate(motions)]
        return self._mode.paint(lightness, torch.stack(shown).to(ab.device), frames.dtype).cpu()

    def lightness(self, frame: Tensor) -> Tensor:
        """L of a frame at working size, [h,w] fp32 0-100: by its like, `motion` finds the cuts.

        Args:
            frame: [1 or 3,H,W], as for `colorize`.
        """
        return _lightness(self._mode.read(frame[None], self._engine.device)[1])[0]

    def _motion(self, small: Tensor, n: int) -> Motion | None:
        """From frame n back to the one before; None if there is none."""
        if n:
            return motion(small[n - 1].numpy(), small[n].numpy())
        if self._shown is None:
            return None
        return motion(self._shown.lightness.numpy(), small[0].numpy())

    def _follow(
        self, superpixels: Superpixels, n: int, moved: Motion | None
    ) -> tuple[Tensor, Tensor]:
        """The anchors of frame n and their colors, [K] each."""
        if moved is None or moved.cut or self._followed is None:
            return self._place(superpixels, n)
        known, tokens = self._followed, superpixels.color_tokens[n : n + 1]
        first = _distinct(torch.cdist(known.centers, tokens[0]))
        labels, centers, _ = ops.kmeans(tokens, first[None])
        strange = labels[0] != torch.arange(len(first), device=labels.device)[:, None]  # [K,P]
        index = _distinct(torch.cdist(known.tokens, tokens[0]) + _FAR * strange)
        followed = replace(known, centers=centers[0], tokens=tokens[0, index])
        self._followed = self._released(followed, superpixels, n, index)
        return index, self._followed.bins

    def _place(self, superpixels: Superpixels, n: int) -> tuple[Tensor, Tensor]:
        self.cuts += self._followed is not None
        frame = _frame(superpixels, n)
        count = min(self._n_anchors, frame.tokens.shape[1])
        placed = self._engine.place(frame, count, seed=self._seed, offset=self._offset)
        index, bins, centers = placed.index[0], placed.bins[0, 0], placed.centers[0]
        self._followed = Followed(centers, frame.color_tokens[0, index], centers, bins)
        return index, bins

    def _released(
        self, followed: Followed, superpixels: Superpixels, n: int, index: Tensor
    ) -> Followed:
        """With the colors chosen anew of clusters that are not what they were."""
        if len(index) < 2:
            return followed
        allowed = _MOVED * torch.pdist(followed.centers).mean()
        drifted = (followed.centers - followed.origins).norm(dim=1) > allowed
        if not bool(drifted.any()):
            return followed
        frame = _frame(superpixels, n)
        fresh = self._engine.colors(frame, index[None], offset=self._offset)[0, 0]
        return replace(
            followed,
            origins=torch.where(drifted[:, None], followed.centers, followed.origins),
            bins=torch.where(drifted, fresh, followed.bins),
        )

    def _smooth(self, ab: Tensor, lightness: Tensor, moved: Motion | None) -> Tensor:
        """The chroma that is shown, [2,h,w]."""
        chroma = np.ascontiguousarray(ab.float().permute(1, 2, 0).cpu().numpy())
        if moved is not None and not moved.cut and self._shown is not None:
            share = self._smoothing * moved.likeness[..., None]
            chroma += share * (moved.carry(self._shown.chroma.numpy()) - chroma)
        self._shown = Shown(lightness, torch.from_numpy(chroma))
        return self._shown.chroma.permute(2, 0, 1)


def _lightness(gray: Tensor) -> Tensor:
    """L, [N,h,w] on the CPU, of the network's input."""
    return (50 * gray[:, 0] + 50).cpu()


def _frame(superpixels: Superpixels, n: int) -> Superpixels:
    """Those of one frame."""
    own = {
        field.name: getattr(superpixels, field.name)[n : n + 1]
        for field in fields(superpixels)
        if field.name != "position"
    }
    return Superpixels(position=superpixels.position, **own)


def _distinct(cost: Tensor) -> Tensor:
    """Columns of least cost, one for each row of [K,P], none twice; the surest row first."""
    left, chosen = cost.clone(), cost.new_zeros(len(cost), dtype=torch.int64)
    for _ in range(len(cost)):
        row, column = divmod(int(left.argmin()), cost.shape[1])
        chosen[row] = column
        left[row], left[:, column] = torch.inf, torch.inf
    return chosen
