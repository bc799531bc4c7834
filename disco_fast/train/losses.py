"""The losses of both stages: equations 3, 4 and 5."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import ops
from ..color import AB_SCALE, BIN_SIZE, N_BINS, bin_centers, nearest_bins
from ..evaluate.features import FeatureNetwork
from ..io.images import ImageFileError
from ..io.photographs import Photographs, resized, to_lab
from ..reference import lab_to_rgb
from .stream import readable

# Equation 3 as the published program weighs it: ten times the paper's, whose alpha is 3e-4.
_COLOR_WEIGHT, _PLACE_WEIGHT = 10.0, 0.003
# Equation 5: from the shallowest to the deepest of five layers.
_LAYER_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)
_PRIOR_SIDE = 10  # colors of a photograph that count for the prior, along each side
_PRIOR_SPREAD = BIN_SIZE / 2  # standard deviation, in ab units, of the smoothing of the prior


def superpixel_loss(
    chroma: Tensor, association: Tensor, cell_size: int, ops: ModuleType = ops
) -> Tensor:
    """Equation 3: what pooling and diffusing loses of the colors and of the pixels' places.

    Args:
        chroma: [N,2,H,W], ab/110.
        association: [N,9,H,W].
        cell_size: S.
        ops: where SP-Pooling and SP-Diffusion come from.
    """
    rows, columns = chroma.shape[-2:]
    y = torch.arange(rows, dtype=chroma.dtype, device=chroma.device)[:, None].expand(-1, columns)
    x = torch.arange(columns, dtype=chroma.dtype, device=chroma.device).expand(rows, -1)
    places = torch.stack([y, x]).expand(len(chroma), -1, -1, -1)
    known = torch.cat([chroma, places], dim=1)
    pooled, _ = ops.sp_pool(known, association, cell_size)
    color, place = (ops.sp_diffuse(pooled, association, cell_size) - known).split(2, dim=1)
    # The norm's gradient at 0 is 0, also where a pixel is met exactly.
    distances = (torch.linalg.vector_norm(part, dim=1).mean() for part in (color, place))
    color_loss, place_loss = distances
    return _COLOR_WEIGHT * color_loss + _PLACE_WEIGHT / cell_size * place_loss


def color_prior(photographs: Photographs, indices: range) -> Tensor:
    """How often each color bin occurs, [313] with sum 1, smoothed over neighboring bins.

    Raises:
        ImageFileError: none of these photographs can be read.
    """
    counts = torch.zeros(N_BINS, dtype=torch.float64)
    for pixels in readable(photographs, indices):
        small = to_lab(resized(pixels, _PRIOR_SIDE))[..., 1:]
        bins = nearest_bins(torch.from_numpy(np.ascontiguousarray(small)).reshape(-1, 2))
        counts += torch.bincount(bins, minlength=N_BINS)
    if not counts.any():
        raise ImageFileError(f"none of {len(indices)} photographs can be read")
    centers = bin_centers("cpu").double()
    kernel = (-torch.cdist(centers, centers).square() / (2 * _PRIOR_SPREAD**2)).exp()
    smoothed = (counts / counts.sum()) @ (kernel / kernel.sum(dim=1, keepdim=True))
    return smoothed.float()


def distribution_loss(logits: Tensor, bins: Tensor, weights: Tensor) -> Tensor:
    """Equation 4: rebalanced cross entropy, mean over superpixels.

    Args:
        logits: [N,P,313].
        bins: [N,P] int64, the true ones.
        weights: [313].
    """
    loss = F.cross_entropy(logits.flatten(0, 1), bins.flatten(), reduction="none")
    return (loss * weights[bins.flatten()]).mean()


class L1(nn.Module):
    """Mean absolute difference of ab/110, for want of a feature network."""

    def forward(self, lightness: Tensor, predicted: Tensor, true: Tensor) -> Tensor:
        """[N,1,H,W], 0-100, and twice [N,2,H,W], ab/110."""
        return F.l1_loss(predicted, true)


class Perceptual(nn.Module):
    """The second term of equation 5 without its beta: features of the colored pictures compared.

    Args:
        features: the network that looks at them.
    """

    def __init__(self, features: FeatureNetwork):
        super().__init__()
        self.features = features

    def forward(self, lightness: Tensor, predicted: Tensor, true: Tensor) -> Tensor:
        """[N,1,H,W], 0-100, and twice [N,2,H,W], ab/110."""
        with torch.no_grad():
            wanted = self.features.layers(lab_to_rgb(lightness, AB_SCALE * true, False))
        got = self.features.layers(lab_to_rgb(lightness, AB_SCALE * predicted, False))
        terms = zip(_LAYER_WEIGHTS, got, wanted, strict=True)
        return torch.stack([w * F.l1_loss(a.float(), b.float()) for w, a, b in terms]).sum()


class Distillation(nn.Module):
    """What the backbone misses of a classifier's features of the picture in its colors.

    Not the paper's: a small network that sees few photographs learns what objects are sooner from a
    classifier than from colors alone. The projections are trained along, and dropped at the end.

    Args:
        features: the classifier.
        channels: of the backbone's deepest features.
    """

    def __init__(self, features: FeatureNetwork, channels: int):
        super().__init__()
        self.features = features
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            layers = features.layers(torch.zeros(1, 3, 64, 64))[-2:]
            self.projections = nn.ModuleList(
                nn.Conv2d(channels, layer.shape[1], 1) for layer in layers
            )

    def forward(self, lab: Tensor, deepest: Tensor) -> Tensor:
        """The share of the features' variance that stays unexplained, mean over two layers.

        Args:
            lab: [N,3,H,W], the pictures.
            deepest: [N,channels,h,w], the backbone's features of their lightness.
        """
        with torch.no_grad():
            rgb = lab_to_rgb(lab[:, :1], lab[:, 1:], False)
            layers = [layer.float() for layer in self.features.layers(rgb)[-2:]]
        missed = []
        for projection, layer in zip(self.projections, layers, strict=True):
            deviation, mean = torch.std_mean(layer, dim=(0, 2, 3), keepdim=True)
            told = projection(
                F.adaptive_avg_pool2d(deepest.float(), (layer.shape[2], layer.shape[3]))
            )
            missed.append(F.mse_loss(told, (layer - mean) / (deviation + 1e-3)))
        return torch.stack(missed).mean()
