"""Preparation: each rewrite by itself gives what the published network gives."""

from __future__ import annotations

import platform

import pytest
import torch
import torch.nn.functional as F
from deterministic_weights import golden_state, untrained
from torch import nn

from disco_fast import DISCO
from disco_fast.checkpoints import random_network
from disco_fast.engine import Engine
from disco_fast.engine.convolutions import MergedUpBlock, PackedConvolution, merged
from disco_fast.engine.prepared import REWRITES, PreparedDISCO
from disco_fast.model.refinenet import UpBlock
from disco_fast.model.transformer import TokenEncoder

# Like the golden files' (tests/test_golden.py): ab leaves 50 layers behind it.
TOLERANCE = {"association": 1e-5, "color_tokens": 2e-4, "guided_tokens": 2e-4, "ab": 1e-3}
EXACT = ("superpixel_size", "kmeans_labels", "anchor_index", "anchor_mask", "anchor_colors")


@pytest.fixture(scope="module")
def network() -> DISCO:
    network = untrained()
    network.load_state_dict(golden_state(), strict=True)
    return network.eval()


def picture(images: int = 2) -> torch.Tensor:
    """[N,1,80,112], smooth."""
    y, x = torch.linspace(0, 4, 80)[:, None], torch.linspace(0, 5, 112)
    return torch.stack([(y * (i + 1)).sin() * (x + i).cos() for i in range(images)])[:, None]


@pytest.mark.parametrize("variants", [1, 3])
@pytest.mark.parametrize("names", [[name] for name in REWRITES] + [list(REWRITES)], ids=str)
def test_rewrites_are_exact(network: DISCO, names: list[str], variants: int):
    gray, init = picture(), torch.arange(6).repeat(2, 1) * 5
    with torch.inference_mode():
        published = network(gray, 6, init, variants)
    # Without spectral norm folded the weights are not yet what the others read.
    without = set(REWRITES) - {"spectral norm", *names}
    prepared = Engine(network, "fp32", without=without)(gray, 6, init, variants)
    for name in EXACT:
        assert torch.equal(getattr(prepared, name), getattr(published, name)), name
    for name, bound in TOLERANCE.items():
        difference = (getattr(prepared, name) - getattr(published, name)).abs().max()
        assert difference < bound, f"{name} differs by {difference}"


def kinds(network: nn.Module, kind: type) -> int:
    return sum(isinstance(module, kind) for module in network.modules())


def test_each_rewrite_does_its_work():
    network = random_network(0.25)
    plain = Engine(network, "fp32", without=REWRITES).network
    assert any(hasattr(module, "weight_orig") for module in plain.modules())
    assert kinds(plain.segnet, nn.BatchNorm2d) > 10
    prepared = Engine(network, "fp32").network
    assert not any(hasattr(module, "weight_orig") for module in prepared.modules())
    assert kinds(prepared.segnet, nn.BatchNorm2d) == 0
    assert kinds(prepared, nn.Upsample) == kinds(prepared, UpBlock) == 0
    assert kinds(prepared, MergedUpBlock) == 2
    assert kinds(prepared, TokenEncoder) == 0
    unpacked = Engine(network, "fp32", without=["packing"]).network
    assert kinds(unpacked.repnet, nn.ConvTranspose2d) == 3
    if torch.backends.mkldnn.is_available() and platform.machine() == "x86_64":
        refinenet = prepared.enhanceNet
        assert kinds(refinenet, PackedConvolution) == 26
        assert kinds(refinenet, nn.Conv2d) == kinds(refinenet, nn.ReLU) == 0
        # Those with long sums stay planar, for their rounding's sake.
        planar = [module for module in prepared.repnet.modules() if isinstance(module, nn.Conv2d)]
        assert max(convolution.weight[0].numel() for convolution in planar) == 9 * 128
        assert not isinstance(prepared.repnet.conv1_2.network[0], nn.Conv2d)
    gray = picture(1)
    out = prepared(gray)
    assert out.color_logits is None
    assert out.guided_logits is None
    device = torch.device("cpu")
    assert prepared._position(5, 7, device) is prepared._position(5, 7, device)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="packs for x86")
@pytest.mark.parametrize("capability", ["AVX2", "AVX512"])
def test_packed_convolutions_are_torchs(capability: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        convolutions = [
            nn.Conv2d(8, 16, 3, padding=1),
            nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.Conv2d(8, 16, 1),
            nn.ConvTranspose2d(8, 16, 4, stride=2, padding=1),
        ]
        x = torch.randn(2, 8, 12, 20).to(memory_format=torch.channels_last)
    for convolution in convolutions:
        packed = PackedConvolution(convolution, nn.LeakyReLU(0.1))
        with torch.inference_mode():
            torch.testing.assert_close(packed(x), F.leaky_relu(convolution(x), 0.1))
        # Where oneDNN would order them anew in every call, weights stay as they are.
        transposed = isinstance(convolution, nn.ConvTranspose2d)
        plain = convolution.kernel_size == (1, 1) or (capability == "AVX2" and not transposed)
        assert (packed.weight.layout == torch.strided) == plain


def test_the_network_given_is_not_changed():
    network = random_network(0.25)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    Engine(network, "bf16")(picture(1))
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


@pytest.mark.parametrize("names", [[], list(REWRITES)], ids=["prepared", "plain"])
def test_the_engine_does_not_change_with_the_network_given(names: list[str]):
    network, gray = random_network(0.25), picture(1)
    engine = Engine(network, "fp32", without=names)
    before = engine(gray).ab
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.zero_()
    assert torch.equal(engine(gray).ab, before)


class Chroma(nn.Module):
    """A network's result alone: tensor in, tensor out."""

    def __init__(self, network: DISCO):
        super().__init__()
        self.network = network

    def forward(self, gray: torch.Tensor) -> torch.Tensor:
        return self.network(gray).ab


@pytest.mark.parametrize("which", ["published", "prepared"])
@pytest.mark.filterwarnings("ignore:The tensor attributes")  # of spectral norm
def test_networks_are_one_graph(which: str):
    """torch.compile without a break and torch.export, both to the bit."""
    network = random_network(0.25)
    module = Chroma(network if which == "published" else Engine(network, "bf16").network)
    gray = picture(1)
    with torch.no_grad():
        expected = module(gray)
        compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
        assert torch.equal(compiled(gray), expected)
        exported = torch.export.export(module, (gray,)).module()
        assert torch.equal(exported(gray), expected)


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (7, 4)])
@pytest.mark.parametrize("bias", [True, False])
def test_upsampling_and_convolution_are_one_transposed_convolution(
    size: tuple[int, int], bias: bool
):
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    x, weight, shift = random(2, 3, *size), random(5, 3, 3, 3), random(5) if bias else None
    upsampled = F.interpolate(x, scale_factor=2.0, mode="nearest")
    expected = F.conv2d(upsampled, weight, shift, padding=1)
    torch.testing.assert_close(merged(weight, shift)(x), expected, rtol=0, atol=1e-12)


def test_unknown_rewrites_are_refused():
    with pytest.raises(ValueError, match=r"without: expected names out of spectral norm, .*magic"):
        PreparedDISCO(random_network(0.25), "fp32", without=["magic"])
