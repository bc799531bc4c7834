"""DISCO: the published network, from lightness to chroma by way of a few colored anchors."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import ops
from ..color import AB_SCALE, N_BINS, bin_centers
from ..reference import MAX_VARIANTS
from .backbone import Backbone
from .efficientnet import EfficientNetBackbone
from .pooling import pool
from .readout import TEMPERATURE, Readout, official
from .refinenet import RefineNet
from .scale import STRIDE, TOKEN_DIM
from .spixnet import SPixNet
from .transformer import TokenEncoder, position_encoding

Ranges: TypeAlias = Mapping[str, tuple[float, float]]
"""The least and the largest value that a convolution takes, by its name in a prepared network."""

BACKBONES = {"published": STRIDE, "efficientnet-lite0": 32}
"""The backbones by name, and of what the sides of their pictures must be multiples."""


@dataclass(frozen=True)
class DISCOOutput:
    """Everything the network computes: N images, P = h*w superpixels, K anchors, V variants.

    From `anchor_mask` on, the leading dimension M is N*V, image-major: the variants of an image are
    neighbors.

    Attributes:
        association: [N,9,H,W], soft assignment of pixels to their candidate superpixels.
        pooled: [N,64,h,w], SP-Pooled backbone features.
        association_sum: [N,1,h,w], pooled weight in cells.
        superpixel_size: [N,1,h,w], area under hard assignment in cells.
        color_tokens: [N,P,64], output of the color modeler, clustered by K-Means.
        color_logits: [N,313,h,w], its color distribution; None in a prepared network, which
            computes those of the anchors only.
        kmeans_labels: [N,P] int64.
        kmeans_centers: [N,K,64].
        anchor_index: [N,K] int64, the superpixel that is the anchor of each cluster.
        anchor_mask: [M,1,h,w], one at anchors.
        anchor_colors: [M,2,h,w], ab/110 at anchors, zero elsewhere.
        guided_tokens: [M,P,64], output of the color generator.
        guided_logits: [M,313,h,w], its color distribution; None in a prepared network, for
            nothing depends on it.
        ab: [M,2,H,W], the result, ab/110 in -1..1.
    """

    association: Tensor
    pooled: Tensor
    association_sum: Tensor
    superpixel_size: Tensor
    color_tokens: Tensor
    color_logits: Tensor | None
    kmeans_labels: Tensor
    kmeans_centers: Tensor
    anchor_index: Tensor
    anchor_mask: Tensor
    anchor_colors: Tensor
    guided_tokens: Tensor
    guided_logits: Tensor | None
    ab: Tensor


@dataclass(frozen=True)
class Superpixels:
    """The first half of the network's work, which depends on the lightness alone.

    Attributes:
        association, pooled, association_sum, color_tokens: as in `DISCOOutput`.
        size: [N,1,h,w], area under hard assignment in cells.
        tokens: [N,P,64], `pooled` as rows.
        position: [1,P,64], the position encoding of the grid.
    """

    association: Tensor
    pooled: Tensor
    association_sum: Tensor
    size: Tensor
    tokens: Tensor
    color_tokens: Tensor
    position: Tensor


@dataclass(frozen=True)
class Placed:
    """Anchors and the colors that the network gives them.

    Attributes:
        labels, centers: the clusters, as `kmeans_labels` and `kmeans_centers` of `DISCOOutput`.
        index: [N,K] int64, the superpixel that is the anchor of each cluster.
        bins: [N,V,K] int64, their colors in each variant.
        color_logits: as in `DISCOOutput`, but [N,P,313].
    """

    labels: Tensor
    centers: Tensor
    index: Tensor
    bins: Tensor
    color_logits: Tensor | None


@dataclass(frozen=True)
class Generated:
    """The second half, which depends on the anchors too: M colorings.

    Attributes:
        guided_tokens: [M,P,64].
        ab: [M,2,H,W], ab/110 in -1..1.
    """

    guided_tokens: Tensor
    ab: Tensor


class DISCO(nn.Module):
    """The network of "Disentangled Image Colorization via Global Anchors" (ACM TOG 41(6), 2022).

    `state_dict` has the published checkpoint's keys; at width 1 also its shapes.

    Args:
        width: scales the channels of every convolution; tokens stay 64 wide. 1 is the published
            network (43.06 M parameters), 0.25 the compact one (3.3 M).
        cell_size: side S of a superpixel grid cell in pixels.
        backbone: "published", or "efficientnet-lite0", which knows objects from ImageNet and whose
            channels do not depend on the width.

    Attributes:
        ops: where the forward pass takes its ops from; set it to `disco_fast.reference` to run the
            specification.
        readout: what its color logits mean; as the official checkpoints', unless set.
        ranges: what int8 needs to know of it, see `engine/calibration.py`; None unless measured.
        stride: height and width of the input must be multiples of it.
    """

    ops: ModuleType = ops
    readout: Readout
    ranges: Ranges | None = None
    _bin_centers: Tensor

    def __init__(self, width: float = 1.0, cell_size: int = 16, backbone: str = "published"):
        super().__init__()
        if not 0 < width <= 4:
            raise ValueError(f"width: expected a number in (0, 4], got {width!r}")
        if cell_size not in (8, 16, 32):
            raise ValueError(f"cell_size: expected 8, 16 or 32, got {cell_size!r}")
        if backbone not in BACKBONES:
            raise ValueError(f"backbone: expected {' or '.join(BACKBONES)}, got {backbone!r}")
        self.width, self.cell_size, self.backbone = width, cell_size, backbone
        self.stride = max(BACKBONES[backbone], cell_size)
        self.readout = official()
        self.segnet = nn.Sequential(OrderedDict(net=SPixNet(width)))
        published = backbone == "published"
        self.repnet: nn.Module = Backbone(width) if published else EfficientNetBackbone()
        self.enhanceNet: nn.Module = RefineNet(width)
        self.wildpath: nn.Module = TokenEncoder()
        self.hintpath: nn.Module = TokenEncoder()
        self.mid_word_prj = nn.Linear(TOKEN_DIM, N_BINS, bias=False)
        self.trg_word_emb = nn.Linear(TOKEN_DIM + N_BINS + 1, TOKEN_DIM, bias=False)
        self.trg_word_prj = nn.Linear(TOKEN_DIM, N_BINS, bias=False)
        self.register_buffer("_bin_centers", bin_centers("cpu"), persistent=False)

    def forward(
        self,
        gray: Tensor,
        n_anchors: int = 8,
        kmeans_init: Tensor | None = None,
        variants: int = 1,
        seed: int = 0,
        offset: Tensor | None = None,
    ) -> DISCOOutput:
        """Colorize.

        Args:
            gray: [N,1,H,W] floating, (L - 50) / 50; H and W multiples of `stride`.
            n_anchors: K, 1..P for P superpixels.
            kmeans_init: [N,K] int64, superpixels that are the first cluster centers; drawn by
                k-means++ from `seed` if None.
            variants: V, 1..3 colorings of each image from unlike anchor colors.
            seed: of the draw; the same for every image, so a batch changes nothing.
            offset: [313], added to the color logits before a color is read from them as the
                annealed mean, see `readout.py`; None: the most probable color, as published.

        Returns:
            Every intermediate result, see `DISCOOutput`.

        Raises:
            ValueError: naming the argument that does not fit.
        """
        settings = n_anchors, kmeans_init, variants, seed, offset
        superpixels, placed, generated = self._colorize(gray, *settings)
        logits, rows = placed.color_logits, superpixels.pooled.shape[2]
        anchors = _for_variants(placed.index, variants)
        mask, label = self._hints(placed.bins.flatten(0, 1), anchors, placed.labels.shape[1])
        return DISCOOutput(
            association=superpixels.association,
            pooled=superpixels.pooled,
            association_sum=superpixels.association_sum,
            superpixel_size=superpixels.size,
            color_tokens=superpixels.color_tokens,
            color_logits=None if logits is None else _as_map(logits, rows),
            kmeans_labels=placed.labels,
            kmeans_centers=placed.centers,
            anchor_index=placed.index,
            anchor_mask=_as_map(mask, rows),
            anchor_colors=_as_map(mask * self._bin_centers[label] / AB_SCALE, rows),
            guided_tokens=generated.guided_tokens,
            guided_logits=self._guided_logits(generated.guided_tokens, rows),
            ab=generated.ab,
        )

    def chroma(
        self,
        gray: Tensor,
        n_anchors: int = 8,
        kmeans_init: Tensor | None = None,
        variants: int = 1,
        seed: int = 0,
        offset: Tensor | None = None,
    ) -> Tensor:
        """Only the result, `DISCOOutput.ab`, and only what it needs.

        Args and errors: as `forward`.
        """
        return self._colorize(gray, n_anchors, kmeans_init, variants, seed, offset)[2].ab

    def _colorize(
        self,
        gray: Tensor,
        n_anchors: int,
        kmeans_init: Tensor | None,
        variants: int,
        seed: int,
        offset: Tensor | None,
    ) -> tuple[Superpixels, Placed, Generated]:
        self._check(gray, n_anchors, kmeans_init, variants)
        superpixels = self.superpixels(gray)
        placed = self.place(superpixels, n_anchors, kmeans_init, variants, seed, offset)
        anchors, bins = _for_variants(placed.index, variants), placed.bins.flatten(0, 1)
        return superpixels, placed, self.generate(gray, superpixels, anchors, bins)

    def alike(self, state: dict[str, Tensor]) -> DISCO:
        """A network of the same kind with other weights, see `assemble`."""
        alike = assemble(state, self.width, self.cell_size, self.backbone, self.readout)
        return alike.to(self._bin_centers.device)

    def superpixels(self, gray: Tensor) -> Superpixels:
        """The first half: superpixels, and what the color modeler makes of them.

        Args:
            gray: [N,1,H,W] as for `forward`.
        """
        rows, columns = gray.shape[2] // self.cell_size, gray.shape[3] // self.cell_size
        association, features, position = self._extract(gray, rows, columns)
        pooled, association_sum, size = pool(features, association, self.cell_size, self.ops)
        del features  # the largest tensor, and no longer needed
        tokens = pooled.flatten(2).transpose(1, 2).contiguous()
        color_tokens = self.wildpath(tokens, position)
        return Superpixels(
            association, pooled, association_sum, size, tokens, color_tokens, position
        )

    def place(
        self,
        superpixels: Superpixels,
        n_anchors: int = 8,
        kmeans_init: Tensor | None = None,
        variants: int = 1,
        seed: int = 0,
        offset: Tensor | None = None,
    ) -> Placed:
        """Anchors by K-Means on the color tokens, and their colors (section 4.2).

        Args:
            superpixels: of N pictures.
            n_anchors: as for `forward`.
            kmeans_init: as for `forward`.
            variants: as for `forward`.
            seed: as for `forward`.
            offset: as for `forward`.
        """
        tokens = superpixels.color_tokens
        if kmeans_init is None:
            kmeans_init = self.ops.kmeans_init(tokens, n_anchors, seed, "k-means++")
        labels, centers, _ = self.ops.kmeans(tokens, kmeans_init, 20, 1e-4)
        index, bins, logits = self._choose(
            tokens, labels, superpixels.size.flatten(1), n_anchors, variants, offset
        )
        return Placed(labels, centers, index, bins, logits)

    def colors(
        self, color_tokens: Tensor, anchors: Tensor, variants: int = 1, offset: Tensor | None = None
    ) -> Tensor:
        """The colors of given anchors, [N,V,K] int64 bins.

        Args:
            color_tokens: [N,P,64] of `Superpixels`.
            anchors: [N,K] int64 superpixels.
            variants: as for `forward`.
            offset: as for `forward`.
        """
        logits = self.mid_word_prj(color_tokens)
        return self.ops.anchor_bins(
            logits, anchors, self._bin_centers, variants, offset, _temperature(offset)
        )

    def generate(
        self, gray: Tensor, superpixels: Superpixels, anchors: Tensor, bins: Tensor
    ) -> Generated:
        """The second half: spread the colors of given anchors over the picture.

        Args:
            gray: [N,1,H,W], as `superpixels` was made from.
            superpixels: of N pictures.
            anchors: [M,K] int64, distinct superpixels; M is N, or N*V for V colorings of each.
            bins: [M,K] int64, their colors.
        """
        variants = len(bins) // len(gray)
        tokens, association = superpixels.tokens, superpixels.association
        guided = self.guide(_for_variants(tokens, variants), superpixels.position, anchors, bins)
        # No name keeps what is repeated: RefineNet needs the memory.
        pixels = self._spread(
            _as_map(guided, superpixels.pooled.shape[2]),
            _for_variants(association, variants),
            _for_variants(gray, variants),
        )
        return Generated(guided, self.enhanceNet(pixels))

    def guide(self, tokens: Tensor, position: Tensor, anchors: Tensor, bins: Tensor) -> Tensor:
        """The color generator: what every superpixel makes of the anchors' colors.

        Args:
            tokens: [M,P,64], as `Superpixels.tokens`.
            position: [1,P,64].
            anchors: [M,K] int64, distinct superpixels.
            bins: [M,K] int64, their colors.

        Returns:
            guided_tokens, as in `Generated`.
        """
        return self.hintpath(self._embed(tokens, anchors, bins), position)

    # Steps of the above, to be overridden by name.

    def _extract(self, gray: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor, Tensor]:
        """What depends on the picture alone: association, features, position.

        Features are [N,64,H,W], or [N,64,H/4,W/4] of EfficientNet.
        """
        return self.segnet(gray), self.repnet(gray), self._position(rows, columns, gray.device)

    def _position(self, rows: int, columns: int, device: torch.device) -> Tensor:
        """The position encoding of a grid, [1,P,64]."""
        return position_encoding(rows, columns, device)

    def _choose(
        self,
        color_tokens: Tensor,
        labels: Tensor,
        sizes: Tensor,
        n_anchors: int,
        variants: int,
        offset: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Anchors [N,K], their color bins [N,V,K], and the color logits [N,P,313]."""
        logits = self.mid_word_prj(color_tokens)
        anchors, bins = self.ops.choose_anchors(
            labels,
            sizes,
            logits,
            self._bin_centers,
            n_anchors,
            variants,
            offset,
            _temperature(offset),
        )
        return anchors, bins, logits

    def _spread(self, tokens: Tensor, association: Tensor, gray: Tensor) -> Tensor:
        """RefineNet's input, [M,1+64,H,W]: the lightness, and tokens [M,64,h,w] at every pixel."""
        return self.ops.sp_diffuse(tokens, association, self.cell_size, gray)

    def _guided_logits(self, guided_tokens: Tensor, rows: int) -> Tensor | None:
        """Color logits after guidance, [M,313,h,w]."""
        return _as_map(self.trg_word_prj(guided_tokens), rows)

    def _hints(self, bins: Tensor, anchors: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Anchors [M,K] and their bins [M,K] as a mask [M,P,1] and a bin per superpixel [M,P]."""
        label = torch.zeros(len(bins), count, dtype=torch.int64, device=bins.device)
        label.scatter_(1, anchors, bins)
        mask = self._bin_centers.new_zeros(len(bins), count).scatter_(1, anchors, 1.0)
        return mask[..., None], label

    def _embed(self, tokens: Tensor, anchors: Tensor, bins: Tensor) -> Tensor:
        """The color generator's input: tokens, one-hot anchor colors, anchor mask; [M,P,64]."""
        mask, label = self._hints(bins, anchors, tokens.shape[1])
        colors = mask * F.one_hot(label, N_BINS).to(tokens.dtype)
        return self.trg_word_emb(torch.cat([tokens, colors, mask], dim=-1))

    def _check(
        self, gray: Tensor, n_anchors: int, kmeans_init: Tensor | None, variants: int
    ) -> None:
        shape = tuple(gray.shape)
        fits = len(shape) == 4 and shape[1] == 1 and min(shape) > 0
        if not fits or shape[2] % self.stride or shape[3] % self.stride:
            raise ValueError(
                f"gray: expected [N,1,H,W] with H and W multiples of {self.stride}, got {shape}"
            )
        if not gray.is_floating_point():
            raise ValueError(f"gray: expected floating (L - 50) / 50, got {gray.dtype}")
        count = shape[2] // self.cell_size * (shape[3] // self.cell_size)
        if not 1 <= n_anchors <= count:
            raise ValueError(f"n_anchors: expected 1..{count} superpixels, got {n_anchors}")
        if kmeans_init is not None and tuple(kmeans_init.shape) != (shape[0], n_anchors):
            raise ValueError(
                f"kmeans_init: expected [{shape[0]},{n_anchors}], got {tuple(kmeans_init.shape)}"
            )
        if not 1 <= variants <= MAX_VARIANTS:
            raise ValueError(f"variants: expected 1..{MAX_VARIANTS}, got {variants}")


def assemble(
    state: dict[str, Tensor],
    width: float,
    cell_size: int,
    backbone: str = "published",
    readout: Readout | None = None,
) -> DISCO:
    """A network in eval mode whose weights are the fp32 tensors of `state`.

    Unlike `DISCO()` it initializes nothing first, so it is quick and leaves the global random state
    alone.
    """
    with torch.device("meta"):
        network = DISCO(width, cell_size, backbone)
    network.load_state_dict(state, assign=True)
    network.readout = readout or network.readout
    return network.eval()


def _temperature(offset: Tensor | None) -> float:
    """Colors are read as published, or as a vividness says; see `readout.py`."""
    return 0.0 if offset is None else TEMPERATURE


def _as_map(tokens: Tensor, rows: int) -> Tensor:
    """[M,P,C] to [M,C,h,w], a view."""
    return tokens.transpose(1, 2).unflatten(2, (rows, tokens.shape[1] // rows))


def _for_variants(x: Tensor, variants: int) -> Tensor:
    """[N,...] to [N*V,...], the same for neighbors."""
    return x if variants == 1 else x.repeat_interleave(variants, dim=0)
