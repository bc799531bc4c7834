"""What one step of each training stage computes: from a batch in Lab to its loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..color import AB_SCALE, N_BINS, nearest_bins, normalize_lightness
from ..evaluate.features import FeatureNetwork
from ..model import DISCO
from ..model.efficientnet import Pyramid, pyramid_of
from .cache import SCALES
from .losses import Distillation, distribution_loss, superpixel_loss

_ENCODER = tuple(f"conv{stage}" for stage in ("1_2", "2_3", "3_3", "4_3", "5_3", "6_3", "7_3"))

Clustering = Literal["color", "feature", "both"]


@dataclass(frozen=True)
class Anchoring:
    """How anchors are placed in training; the coloring of them is always the true one.

    Args:
        fewest, most: anchors; each batch draws their number.
        cluster: what K-Means places them by: true colors as in the paper's training, the color
            modeler's features as at inference, or one of the two for each batch.
    """

    fewest: int = 8
    most: int = 8
    cluster: Clustering = "color"

    @torch.no_grad()
    def place(self, colors: Tensor, color_tokens: Tensor, sizes: Tensor, ops: ModuleType) -> Tensor:
        """[N,K] superpixels; everything drawn comes from torch's random state.

        Args:
            colors: [N,P,2], the true ones.
            color_tokens: [N,P,64].
            sizes: [N,P], the superpixels' areas.
            ops: where K-Means comes from.
        """
        draws = (self.most - self.fewest + 1, 1 << 31, 2)
        count, seed, coin = (int(torch.randint(n, ())) for n in draws)
        by_color = coin == 0 if self.cluster == "both" else self.cluster == "color"
        points = colors if by_color else color_tokens.detach().float().contiguous()
        count = min(self.fewest + count, points.shape[1])
        first = ops.kmeans_init(points, count, seed, "k-means++")
        labels, _, _ = ops.kmeans(points, first, 20, 1e-4)
        return ops.select_anchors(labels, sizes, count)


def distribution_terms(
    network: DISCO, color_tokens: Tensor, guided: Tensor, bins: Tensor, weights: Tensor
) -> dict[str, Tensor]:
    """Equation 4 before and after guidance.

    Args:
        network: whose projections to color bins are used.
        color_tokens: [N,P,64], of the color modeler.
        guided: [N,P,64], of the color generator.
        bins: [N,P], the true ones.
        weights: [313], of the color bins.
    """
    logits = {
        "anchors": network.mid_word_prj(color_tokens),
        "guided": network.trg_word_prj(guided),
    }
    return {name: distribution_loss(z.float(), bins, weights) for name, z in logits.items()}


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
        network.ranges = None  # those of int8 are of the weights as they were

    def trained(self) -> nn.ModuleDict:
        """What changes in training, and so belongs into a state to continue from."""
        parts: dict[str, nn.Module] = {"network": self.network}
        if self.distillation is not None:
            parts["projections"] = self.distillation.projections
        return nn.ModuleDict(parts)

    def slow_weights(self) -> list[nn.Parameter]:
        """Those that learn at a share of the rate: a pretrained encoder's."""
        return []

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

    Colors alone teach it little of what things are: trained on them, its deepest features told no
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


class TokensStage(Stage):
    """The token path alone, on cached superpixels: projections, color modeler, color generator.

    Args:
        network: with a backbone whose scales were cached.
        anchoring: how many anchors there are, and where.
        dropout: of the two encoders of tokens.
        autocast: (device type, dtype) of everything but K-Means and the losses; None: all is fp32.
    """

    name = "tokens"
    weights: Tensor

    def __init__(
        self,
        network: DISCO,
        anchoring: Anchoring,
        dropout: float,
        autocast: tuple[str, torch.dtype] | None = None,
    ):
        super().__init__(network)
        # Plain cross entropy learns the true probabilities, which the readout can sharpen later.
        self.register_buffer("weights", torch.ones(N_BINS))
        self._anchoring, self._autocast = anchoring, autocast
        network.requires_grad_(False)
        for part in self._parts():
            part.requires_grad_(True)
        _set_dropout(network, dropout)

    @property
    def _pyramid(self) -> Pyramid:
        return pyramid_of(self.network.repnet)

    def _parts(self) -> list[nn.Module]:
        network = self.network
        encoders: list[nn.Module] = [network.wildpath, network.hintpath]
        projections = [network.mid_word_prj, network.trg_word_emb, network.trg_word_prj]
        return [self._pyramid.laterals, *encoders, *projections]

    def train(self, mode: bool = True) -> TokensStage:
        """As any module; what is not trained stays in eval mode."""
        super().train(False)
        for part in self._parts():
            part.train(mode)
        return self

    def forward(self, rows: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """[N,P,516] as `cache.superpixel_rows` makes them, of square crops, to loss and terms."""
        network = self.network
        scales, colors, sizes = rows.split((SCALES, 2, 1), dim=2)
        side = math.isqrt(rows.shape[1])
        position = network._position(side, side, rows.device)
        with torch.autocast(*self._autocast) if self._autocast else nullcontext():
            tokens = self._pyramid.project(scales)
            color_tokens = network.wildpath(tokens, position)
        colors, sizes = colors.contiguous(), sizes[..., 0].contiguous()
        anchors = self._anchoring.place(colors, color_tokens, sizes, network.ops)
        bins = nearest_bins(AB_SCALE * colors)
        with torch.autocast(*self._autocast) if self._autocast else nullcontext():
            guided = network.guide(tokens, position, anchors, bins.gather(1, anchors))
            terms = distribution_terms(network, color_tokens, guided, bins, self.weights)
        loss = torch.stack(list(terms.values())).sum()
        return loss, {name: term.detach() for name, term in terms.items()}


class ColorizerStage(Stage):
    """Stage 2: everything but SPixNet, on equations 4 and 5, with anchors of true colors.

    Args:
        network: trained in place.
        weights: [313], the rebalancing of color bins.
        reconstruction: terms on RefineNet's output by name, each with its factor; a term is called
            with lightness, predicted and true ab/110.
        anchoring: how many anchors there are, and where.
        dropout: of the two encoders of tokens.
        autocast: (device type, dtype) of backbone, token encoders, RefineNet and feature networks;
            SPixNet, K-Means and losses are fp32. None: all is fp32.
        distillation: a term on the backbone's deepest features, with its factor.
    """

    name = "colorizer"

    def __init__(
        self,
        network: DISCO,
        weights: Tensor,
        reconstruction: Mapping[str, tuple[nn.Module, float]],
        anchoring: Anchoring = Anchoring(),
        dropout: float = 0.1,
        autocast: tuple[str, torch.dtype] | None = None,
        distillation: tuple[Distillation, float] | None = None,
    ):
        super().__init__(_Trained(network), distillation and distillation[0])
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
        self._anchoring = anchoring
        network.requires_grad_(True)
        network.segnet.requires_grad_(False)
        _set_dropout(network, dropout)
        if autocast is not None:
            for part in (network.repnet, network.enhanceNet, network.wildpath, network.hintpath):
                part.forward = torch.autocast(*autocast)(part.forward)
        _narrow(self, autocast)

    def train(self, mode: bool = True) -> ColorizerStage:
        """As any module; SPixNet stays in eval mode."""
        super().train(mode)
        self.network.segnet.eval()
        return self

    def slow_weights(self) -> list[nn.Parameter]:
        """See `Stage.slow_weights`."""
        if self.network.backbone == "published":
            return []
        return list(pyramid_of(self.network.repnet).scales.parameters())

    def forward(self, lab: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Stage.forward`."""
        network, lightness = self.network, lab[:, :1]
        gray, chroma = normalize_lightness(lightness), lab[:, 1:].contiguous() / AB_SCALE
        superpixels = network.superpixels(gray)
        pooled, _ = network.ops.sp_pool(chroma, superpixels.association.float(), network.cell_size)
        colors = pooled.flatten(2).transpose(1, 2).contiguous()
        sizes = superpixels.size.flatten(1)
        anchors = self._anchoring.place(colors, superpixels.color_tokens, sizes, network.ops)
        bins = nearest_bins(AB_SCALE * colors)
        generated = network.generate(gray, superpixels, anchors, bins.gather(1, anchors))
        terms = distribution_terms(
            network, superpixels.color_tokens, generated.guided_tokens, bins, self.weights
        )
        ab = generated.ab.float()
        for name, term in self.reconstruction.items():
            terms[name] = self._factors[name] * term(lightness, ab, chroma)
        if self.distillation is not None and self._deepest is not None:
            terms["distilled"] = self._distilling * self.distillation(lab, self._deepest)
            self._deepest = None
        loss = torch.stack(list(terms.values())).sum()
        return loss, {name: term.detach() for name, term in terms.items()}

    def _keep_deepest(self, module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        self._deepest = output


def _set_dropout(network: DISCO, share: float) -> None:
    for module in (*network.wildpath.modules(), *network.hintpath.modules()):
        if isinstance(module, nn.Dropout):
            module.p = share
        elif isinstance(module, nn.MultiheadAttention):
            module.dropout = share


class _Trained(DISCO):
    """A network as stage 2 computes it, made of the modules of the one that is trained.

    SPixNet, which learns nothing, keeps nothing for a gradient; tokens are spread in fp32.
    """

    def __init__(self, network: DISCO):
        with torch.device("meta"):
            super().__init__(network.width, network.cell_size, network.backbone)
        for name, part in network.named_children():
            setattr(self, name, part)
        self._bin_centers = network._bin_centers
        self.ops, self.readout = network.ops, network.readout

    def _extract(self, gray: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor, Tensor]:
        with torch.no_grad():
            association = self.segnet(gray)
        features = self.repnet(gray)
        position = self._position(rows, columns, gray.device)
        return association.to(features.dtype), features, position

    def _spread(self, tokens: Tensor, association: Tensor, gray: Tensor) -> Tensor:
        return super()._spread(tokens.float(), association, gray.to(association.dtype))


class _Narrow(FeatureNetwork):
    """A feature network that computes in another precision.

    Args:
        network: the feature network.
        autocast: device type and dtype.
    """

    def __init__(self, network: FeatureNetwork, autocast: tuple[str, torch.dtype]):
        super().__init__()
        self.name, self.network, self._autocast = network.name, network, autocast

    def layers(self, rgb: Tensor) -> list[Tensor]:
        """See `FeatureNetwork`."""
        with torch.autocast(*self._autocast):
            return self.network.layers(rgb)

    def embedding(self, rgb: Tensor) -> Tensor:
        """See `FeatureNetwork`."""
        with torch.autocast(*self._autocast):
            return self.network.embedding(rgb)


def _narrow(stage: Stage, autocast: tuple[str, torch.dtype] | None) -> None:
    """Have the feature networks of a stage compute in another precision. In place."""
    if autocast is not None:
        for parent in list(stage.modules()):
            for name, part in list(parent.named_children()):
                if isinstance(part, FeatureNetwork):
                    setattr(parent, name, _Narrow(part, autocast))
