"""The paper's measures of quality, and two that need no weights from elsewhere.

FID, IS, PSNR, SSIM and LPIPS are torchmetrics'; CIEDE2000 is scikit-image's. A metric whose package
or network is not here is left out, with a sentence that says why; no other takes its place.

Pictures are [N,3,H,W] uint8 RGB.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._extras import MissingExtraError, need
from ..io.photographs import to_lab
from .features import JUDGE, FeatureNetwork, FeaturesError, load_features

AXES = 64
FRECHET = f"Frechet distance (EfficientNet-lite2, {AXES} axes)"
WRONG = "wrong patches, %"
_WRONG_FROM = 30.0  # ab units: a viewer takes it for another color
IS_SPLITS = 10
_INCEPTION_WIDTH = 2048

Embed = Callable[[Tensor], Tensor]


class MissingMetricError(Exception):
    """A metric cannot be had here; the message says why, and what helps."""


@dataclass(frozen=True)
class PictureMetric:
    """A figure of each picture, of which a set has the mean.

    Attributes:
        name: as the paper has it.
        of: (made, truth) to [N].
        compares: whether it depends on the truth, so that the truth itself has none.
    """

    name: str
    of: Callable[[Tensor, Tensor], Tensor]
    compares: bool = True


@dataclass(frozen=True)
class SetMetric:
    """A figure of a set of pictures, from an embedding of each.

    Attributes:
        name: as the paper has it.
        embed: pictures to [N,D]; the same object in metrics that share it.
        of: (embeddings made, embeddings of the truth) to the figure.
        fewest: pictures that it takes.
        compares: whether it depends on the truth.
    """

    name: str
    embed: Embed
    of: Callable[[Tensor, Tensor], float]
    fewest: int
    compares: bool = True


Metric = PictureMetric | SetMetric


def available(
    device: torch.device, count: int, seed: int = 0, one_size: bool = True
) -> tuple[list[Metric], list[str]]:
    """The metrics that can be had here, and of each other one a sentence that says why not.

    Args:
        device: where their networks run.
        count: how many pictures there are.
        seed: for the splits of IS.
        one_size: whether the pictures are all of one size; if not, sets of them have no metric.
    """
    networks = _Networks(device, seed)
    found, left_out = [], []
    for name, make in _MAKERS.items():
        try:
            metric = make(networks)
            if isinstance(metric, SetMetric):
                _check_set(metric, count, one_size)
            found.append(metric)
        except (MissingExtraError, MissingMetricError, FeaturesError) as error:
            left_out.append(f"{name} is left out: {error}.")
    return found, left_out


def _check_set(metric: SetMetric, count: int, one_size: bool) -> None:
    if not one_size:
        raise MissingMetricError("it compares sets of pictures of one size, and --size is 0")
    if count < metric.fewest:
        raise MissingMetricError(f"it takes {metric.fewest} pictures, and there are {count}")


# ---- Of each picture -----------------------------------------------------------------------------


def colorfulness(pictures: Tensor) -> Tensor:
    """Hasler and Suesstrunk (2003), [N]: 0 is gray, 33 moderate, 45 average, 59 quite colorful.

    sqrt(var(rg) + var(yb)) + 0.3 sqrt(mean(rg)^2 + mean(yb)^2), where rg = R - G and
    yb = (R + G) / 2 - B in 0-255, and the variances are a picture's own (divided by its pixels).
    """
    red, green, blue = pictures.double().unbind(1)
    opponents = torch.stack([red - green, (red + green) / 2 - blue], dim=1).flatten(2)
    deviation = opponents.var(2, correction=0).sum(1).sqrt()
    return deviation + 0.3 * opponents.mean(2).square().sum(1).sqrt()


def ciede2000(made: Tensor, truth: Tensor) -> Tensor:
    """CIEDE2000, [N]: of each picture the mean over its pixels.

    Raises:
        MissingExtraError: scikit-image is not installed.
    """
    color = need("evaluate", "skimage.color")
    pairs = zip(made.cpu(), truth.cpu(), strict=True)
    means = [
        float(color.deltaE_ciede2000(*(to_lab(_rows(p)) for p in pair)).mean(dtype=np.float64))
        for pair in pairs
    ]
    return torch.tensor(means, dtype=torch.float64)


def wrong_share(made: Tensor, truth: Tensor) -> Tensor:
    """[N], the percentage of pixels whose chroma is further than 30 ab units from the true one."""
    pairs = zip(made.cpu(), truth.cpu(), strict=True)
    shares = []
    for pair in pairs:
        one, other = (to_lab(_rows(picture))[..., 1:] for picture in pair)
        shares.append(100 * (np.linalg.norm(one - other, axis=-1) > _WRONG_FROM).mean())
    return torch.tensor(shares, dtype=torch.float64)


def _rows(picture: Tensor) -> np.ndarray:
    return picture.permute(1, 2, 0).contiguous().numpy()


def _colorfulness(_: _Networks) -> PictureMetric:
    return PictureMetric("colorfulness", lambda made, truth: colorfulness(made), compares=False)


def _ciede2000(_: _Networks) -> PictureMetric:
    need("evaluate", "skimage.color")
    return PictureMetric("CIEDE2000", ciede2000)


def _wrong(_: _Networks) -> PictureMetric:
    return PictureMetric(WRONG, wrong_share)


def _psnr(_: _Networks) -> PictureMetric:
    """Infinite of a picture that equals the truth."""
    measure = _need("torchmetrics.functional.image").peak_signal_noise_ratio

    def of(made: Tensor, truth: Tensor) -> Tensor:
        pictures = made.double(), truth.double()
        return measure(*pictures, data_range=255.0, dim=(1, 2, 3), reduction="none")

    return PictureMetric("PSNR", of)


def _ssim(_: _Networks) -> PictureMetric:
    measure = _need("torchmetrics.functional.image").structural_similarity_index_measure

    def of(made: Tensor, truth: Tensor) -> Tensor:
        return measure(made.float(), truth.float(), data_range=255.0, reduction="none")

    return PictureMetric("SSIM", of)


def _lpips(networks: _Networks) -> PictureMetric:
    """With AlexNet, as its authors recommend for comparing pictures."""
    make = _need("torchmetrics.image.lpip").LearnedPerceptualImagePatchSimilarity
    url = _need_vision("torchvision.models").AlexNet_Weights.DEFAULT.url
    network = _loaded(lambda: make("alex").net, url).to(networks.device)

    def of(made: Tensor, truth: Tensor) -> Tensor:
        return network(made.float() / 255, truth.float() / 255, normalize=True).flatten()

    return PictureMetric("LPIPS", of)


# ---- Of a set of pictures ------------------------------------------------------------------------


def frechet_distance(made: Tensor, truth: Tensor) -> float:
    """Squared Frechet distance of the Gaussians through two sets of embeddings, [N,D] and [M,D].

    |mean - mean'|^2 + tr(C + C' - 2 sqrt(C C')), with the covariances divided by N - 1.

    Raises:
        MissingExtraError: torchmetrics is not installed.
    """
    fid = _need("torchmetrics.image.fid")
    distance = fid.FrechetInceptionDistance(feature=_Given(truth.shape[1]))
    distance.update(truth.double(), real=True)
    distance.update(made.double(), real=False)
    return max(0.0, float(distance.compute()))  # equal sets may come out below 0 by rounding


def on_leading_axes(made: Tensor, truth: Tensor, count: int = AXES) -> tuple[Tensor, Tensor]:
    """Both sets of embeddings on the leading principal axes of the true ones, [N,count].

    A covariance of 1280 dimensions through some hundred pictures is singular: distances would
    depend on how many pictures there are more than on what is in them.
    """
    wide = truth.double()
    _, axes = torch.linalg.eigh((wide - wide.mean(0)).t().cov(correction=0))
    leading = axes[:, -count:]
    return made.double() @ leading, wide @ leading


def inception_score(logits: Tensor, seed: int = 0) -> float:
    """IS of logits [N,classes]: the mean over random splits, which `seed` draws.

    Raises:
        MissingExtraError: torchmetrics is not installed.
    """
    inception = _need("torchmetrics.image.inception")
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore", UserWarning)  # that it keeps what it is given
        torch.manual_seed(seed)
        score = inception.InceptionScore(_Given(logits.shape[1]), splits=IS_SPLITS)
        score.update(logits)
        return float(score.compute()[0])


class _Given(nn.Module):
    """What torchmetrics takes for a network where the embeddings are there already."""

    def __init__(self, width: int):
        super().__init__()
        self.num_features = width

    def forward(self, embeddings: Tensor) -> Tensor:
        return embeddings


def _fid(networks: _Networks) -> SetMetric:
    def of(made: Tensor, truth: Tensor) -> float:
        return frechet_distance(made[:, :_INCEPTION_WIDTH], truth[:, :_INCEPTION_WIDTH])

    _need("torchmetrics.image.fid")
    return SetMetric("FID", networks.inception, of, fewest=2)


def _inception_score(networks: _Networks) -> SetMetric:
    def of(made: Tensor, truth: Tensor) -> float:
        return inception_score(made[:, _INCEPTION_WIDTH:], networks.seed)

    _need("torchmetrics.image.inception")
    return SetMetric("IS", networks.inception, of, fewest=IS_SPLITS, compares=False)


def _frechet(networks: _Networks) -> SetMetric:
    def of(made: Tensor, truth: Tensor) -> float:
        return frechet_distance(*on_leading_axes(made, truth))

    _need("torchmetrics.image.fid")
    # As many axes take one more picture.
    return SetMetric(FRECHET, networks.efficientnet, of, fewest=AXES + 1)


# ---- Networks ------------------------------------------------------------------------------------


class _Networks:
    """The networks that metrics share, each loaded when it is first asked for."""

    def __init__(self, device: torch.device, seed: int):
        self.device, self.seed = device, seed

    @cached_property
    def inception(self) -> Embed:
        """Pictures to [N,2048+1008]: what FID compares, and the logits for IS."""
        fidelity = _need_vision("torch_fidelity.feature_extractor_inceptionv3")
        outputs = [str(_INCEPTION_WIDTH), "logits_unbiased"]
        make, url = fidelity.FeatureExtractorInceptionV3, fidelity.URL_INCEPTION_V3
        network = _loaded(lambda: make("inception-v3-compat", outputs), url).to(self.device)
        return lambda pictures: torch.cat(network(pictures), dim=1)

    @cached_property
    def efficientnet(self) -> Embed:
        """Pictures to [N,1280]."""
        network: FeatureNetwork = load_features(JUDGE).to(self.device)
        return lambda pictures: network.embedding(pictures.float() / 255)


_VISION = (
    "python -m pip install 'torchmetrics[image]', with the torchvision that belongs to torch "
    f"{torch.__version__}"
)


def _need(module: str) -> ModuleType:
    """Import a module that may import torchvision."""
    try:
        return need("evaluate", module)
    except RuntimeError as error:  # torchvision's, where it was made for another torch
        package, reason = module.partition(".")[0], str(error).partition("\n")[0]
        raise MissingMetricError(f"{package} does not work ({reason}): {_VISION}") from error


def _need_vision(module: str) -> ModuleType:
    """Import a module that the extra leaves to the user, for it must fit torch."""
    try:
        return _need(module)
    except MissingExtraError as error:
        raise MissingMetricError(f"{error.name} is missing: {_VISION}") from error


def _loaded(make: Callable[[], Any], url: str) -> Any:
    """A network whose weights torch.hub keeps; drawing its first weights moves no generator."""
    try:
        with torch.random.fork_rng(devices=[]):
            return make().eval()
    except OSError as error:
        folder = f"{torch.hub.get_dir()}/checkpoints"
        raise MissingMetricError(
            f"its weights cannot be downloaded ({error}): put {url} into {folder}"
        ) from error


_MAKERS: dict[str, Callable[[_Networks], Metric]] = {
    "FID": _fid,
    "colorfulness": _colorfulness,
    "PSNR": _psnr,
    "SSIM": _ssim,
    "LPIPS": _lpips,
    "CIEDE2000": _ciede2000,
    WRONG: _wrong,
    FRECHET: _frechet,
    "IS": _inception_score,
}
NAMES = tuple(_MAKERS)
"""All metrics; the first five are the columns of the paper's Table 3, in its order."""
