"""What one step of each training stage computes: from a batch in Lab to its loss."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..color import AB_SCALE, nearest_bins, normalize_lightness
from ..features import FeatureNetwork
from ..model import DISCO, Superpixels
from .losses import Distillation, distribution_loss, superpixel_loss

_ENCODER = tuple(f"conv{stage}" for stage in ("1_2", "2_3", "3_3", "4_3", "5_3", "6_3", "7_3"))

Clustering = Literal["color", "feature", "both"]


class Stage(nn.Module):
    """A training stage: which weights it trains, and the loss of a batch.

    Args:
        network: trained in place.
        distillation: a term on the backbone's deepest features, or none.
    """

    name: str

    def __init__(self, network: DISCO, distillation: Distillation | None = None):
        super().__init__()
        self.network, self.distillation = network, distillation

    def trained(self) -> nn.ModuleDict:
        """What changes in training, and so belongs into a state to continue from."""
        parts: dict[str, nn.Module] = {"network": self.network}
        if self.distillation is not None:
            parts["projections"] = self.distillation.projections
        return nn.ModuleDict(parts)

    def forward(self, lab: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """[N,3,H,W] Lab to the loss and its terms, all scalars."""
        raise NotImplementedError


class SPixNetStage(Stage):
    """Stage 1: SPixNet alone, on equation 3."""

    name = "spixnet"

    def __init__(self, network: DISCO):
        super().__init__(network)
        network.requires_grad_(False)
        network.segnet.requires_grad_(True)

    def train(self, mode: bool = True) -> SPixNetStage:
        """As any module; what is not trained stays in eval mode."""
        super().train(False)
        self.network.segnet.train(mode)
        return self

    def forward(self, lab: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Stage.forward`."""
        association = self.network.segnet(normalize_lightness(lab[:, :1]))
        cell_size, ops = self.network.cell_size, self.network.ops
        loss = superpixel_loss(lab[:, 1:] / AB_SCALE, association, cell_size, ops)
        return loss, {"superpixels": loss.detach()}


class BackboneStage(Stage):
    """A stage of our own between the two: the backbone's encoder learns a classifier's features.

    Colours alone teach it little of what things are: trained on them, its deepest features told no
    more of a classifier's than those of random weights do.

    Args:
        network: trained in place.
        distillation: the loss.
        autocast: as for `ColorizerStage`.
    """

    name = "backbone"

    def __init__(
        self,
        network: DISCO,
        distillation: Distillation,
        autocast: tuple[str, torch.dtype] | None = None,
    ):
        super().__init__(network, distillation)
        self._autocast = autocast
        network.requires_grad_(False)
        for name in _ENCODER:
            network.repnet.get_submodule(name).requires_grad_(True)
        _narrow(self, autocast)

    def train(self, mode: bool = True) -> BackboneStage:
        """As any module; what is not trained stays in eval mode."""
        super().train(False)
        for name in _ENCODER:
            self.network.repnet.get_submodule(name).train(mode)
        return self

    def forward(self, lab: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Stage.forward`."""
        backbone: Any = self.network.repnet
        gray = normalize_lightness(lab[:, :1])
        with torch.autocast(*self._autocast) if self._autocast else nullcontext():
            _, deepest = backbone.encode(gray)
        assert self.distillation is not None
        loss = self.distillation(lab, deepest)
        return loss, {"distilled": loss.detach()}


class ColorizerStage(Stage):
    """Stage 2: everything but SPixNet, on equations 4 and 5, with anchors of true colours.

    Args:
        network: trained in place.
        weights: [313], the rebalancing of colour bins.
        reconstruction: terms on RefineNet's output by name, each with its factor; a term is called
            with lightness, predicted and true ab/110.
        anchors: fewest and most anchors; each batch draws their number.
        cluster: what K-Means places anchors by: true colours as in the paper's training, the color
            modeler's features as at inference, or one of the two for each batch.
        dropout: of the two encoders of tokens.
        autocast: (device type, dtype) of backbone, RefineNet and feature networks; all else, on
            which superpixels and anchors depend, is fp32 as in the engine. None: all is fp32.
        distillation: a term on the backbone's deepest features, with its factor.
    """

    name = "colorizer"

    def __init__(
        self,
        network: DISCO,
        weights: Tensor,
        reconstruction: Mapping[str, tuple[nn.Module, float]],
        anchors: tuple[int, int] = (8, 8),
        cluster: Clustering = "color",
        dropout: float = 0.1,
        autocast: tuple[str, torch.dtype] | None = None,
        distillation: tuple[Distillation, float] | None = None,
    ):
        super().__init__(network, distillation and distillation[0])
        self._distilling = distillation[1] if distillation else 0.0
        self.register_buffer("weights", weights)
        self.weights: Tensor
        self.reconstruction = nn.ModuleDict(
            {name: term for name, (term, _) in reconstruction.items()}
        )
        self._factors = {name: factor for name, (_, factor) in reconstruction.items()}
        self._deepest: Tensor | None = None
        if distillation is not None:
            deepest = network.repnet.get_submodule("conv7_3")
            deepest.register_forward_hook(self._keep_deepest)
        self._anchors, self._cluster = anchors, cluster
        network.requires_grad_(True)
        network.segnet.requires_grad_(False)
        _set_dropout(network, dropout)
        _set_precision(network, autocast)
        _narrow(self, autocast)

    def train(self, mode: bool = True) -> ColorizerStage:
        """As any module; SPixNet stays in eval mode."""
        super().train(mode)
        self.network.segnet.eval()
        return self

    def forward(self, lab: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Stage.forward`."""
        network, lightness = self.network, lab[:, :1]
        gray, chroma = normalize_lightness(lightness), lab[:, 1:].contiguous() / AB_SCALE
        superpixels = network.superpixels(gray)
        pooled, _ = network.ops.sp_pool(chroma, superpixels.association.float(), network.cell_size)
        colors = pooled.flatten(2).transpose(1, 2).contiguous()
        bins = nearest_bins(AB_SCALE * colors)
        anchors = self._place_anchors(colors, superpixels)
        logits = network.mid_word_prj(superpixels.color_tokens)
        generated = network.generate(gray, superpixels, anchors, bins.gather(1, anchors))
        guided_logits, ab = network.trg_word_prj(generated.guided_tokens), generated.ab.float()
        terms = {
            "anchors": distribution_loss(logits, bins, self.weights),
            "guided": distribution_loss(guided_logits, bins, self.weights),
        }
        for name, term in self.reconstruction.items():
            terms[name] = self._factors[name] * term(lightness, ab, chroma)
        if self.distillation is not None and self._deepest is not None:
            terms["distilled"] = self._distilling * self.distillation(lab, self._deepest)
            self._deepest = None
        loss = torch.stack(list(terms.values())).sum()
        return loss, {name: term.detach() for name, term in terms.items()}

    def _keep_deepest(self, module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        self._deepest = output

    @torch.no_grad()
    def _place_anchors(self, colors: Tensor, superpixels: Superpixels) -> Tensor:
        """[N,K] superpixels; everything drawn comes from torch's random state."""
        fewest, most = self._anchors
        count, seed, coin = (int(torch.randint(n, ())) for n in (most - fewest + 1, 1 << 31, 2))
        ops = self.network.ops
        by_color = coin == 0 if self._cluster == "both" else self._cluster == "color"
        points = colors if by_color else superpixels.color_tokens.detach().contiguous()
        count = min(fewest + count, points.shape[1])
        labels, _, _ = ops.kmeans(
            points, ops.kmeans_init(points, count, seed, "k-means++"), 20, 1e-4
        )
        return ops.select_anchors(labels, superpixels.size.flatten(1), count)


def _set_dropout(network: DISCO, share: float) -> None:
    for module in (*network.wildpath.modules(), *network.hintpath.modules()):
        if isinstance(module, nn.Dropout):
            module.p = share
        elif isinstance(module, nn.MultiheadAttention):
            module.dropout = share


def _narrow(stage: Stage, autocast: tuple[str, torch.dtype] | None) -> None:
    """Have the feature networks of a stage compute in another precision."""
    if autocast is not None:
        for module in stage.modules():
            if isinstance(module, FeatureNetwork):
                layers = torch.autocast(*autocast)(module.layers)
                module.layers = layers  # type: ignore[method-assign]


def _set_precision(network: DISCO, autocast: tuple[str, torch.dtype] | None) -> None:
    """Also keeps what SPixNet, which is not trained, would leave behind for a gradient."""
    if autocast is not None:
        for module in (network.repnet, network.enhanceNet):
            module.forward = torch.autocast(*autocast)(module.forward)

    def extract(gray: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor, Tensor]:
        with torch.no_grad():
            association = network.segnet(gray)
        features = network.repnet(gray)
        position = network._position(rows, columns, gray.device)
        return association.to(features.dtype), features, position

    def spread(tokens: Tensor, association: Tensor, gray: Tensor) -> Tensor:
        return DISCO._spread(network, tokens, association, gray.to(association.dtype))

    network._extract, network._spread = extract, spread  # type: ignore[method-assign]
