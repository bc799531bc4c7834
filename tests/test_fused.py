"""Convolutions fused with what follows them, as on a GPU: the numbers of the layers one by one."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from conftest import need_gpu
from torch import Tensor, nn

from disco_fast import DISCO
from disco_fast.checkpoints import random_network
from disco_fast.engine import Engine
from disco_fast.engine.convolutions import (
    fold_batch_norm,
    fold_spectral_norm,
    merge_upsampling,
    spread_lead,
)
from disco_fast.engine.fused import (
    FusedBackbone,
    FusedConvolution,
    FusedSPixNet,
    FusedSum,
    FusedUpBlock,
    align_channels,
    fuse_convolutions,
)
from disco_fast.engine.precision import InFormat, set_formats
from disco_fast.engine.prepared import ALIGNED_LEAD, REWRITES, PreparedDISCO

# fp32 rounding behind up to 30 layers; values are of the order of 1.
ROUNDING = 2e-4
PARTS = ("segnet", "repnet", "enhanceNet")
CHANNELS = {"segnet": 1, "repnet": 1, "enhanceNet": 65}


def unpacked(network: DISCO) -> PreparedDISCO:
    """A prepared network whose convolutions are torch's."""
    return PreparedDISCO(network, "fp32", without=["packing"])


def folded(network: DISCO) -> DISCO:
    """The same, rewritten as an engine does before it fuses convolutions."""
    for rewrite in (fold_spectral_norm, fold_batch_norm, merge_upsampling):
        rewrite(network)
    return network


@pytest.fixture(params=["published", "efficientnet-lite0"])
def network(request: pytest.FixtureRequest) -> DISCO:
    network = random_network(0.25, backbone=request.param)
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # with statistics that are not those of no norm
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    return network


@pytest.mark.parametrize("part", PARTS)
def test_fused_is_layer_by_layer(network: DISCO, part: str):
    plain, fused = unpacked(network), unpacked(network)
    fuse_convolutions(fused.get_submodule(part))
    x = torch.rand(2, CHANNELS[part], 64, 96, generator=torch.Generator().manual_seed(0)) - 0.5
    with torch.inference_mode():
        expected, got = (which.get_submodule(part)(x) for which in (plain, fused))
    assert (got - expected).abs().max() < ROUNDING * max(1, expected.abs().max())
    kinds = [type(module) for module in fused.get_submodule(part).modules()]
    assert FusedConvolution in kinds
    assert not {nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.LeakyReLU} & set(kinds)


def test_sums_are_a_part_of_the_pass():
    fused = unpacked(random_network(0.25, backbone="efficientnet-lite0"))
    fuse_convolutions(fused)
    kinds = [type(module) for module in fused.modules()]
    # RefineNet's three residual blocks, nine of EfficientNet's; two blocks that double the side.
    assert kinds.count(FusedSum) == 3 + 9
    assert kinds.count(FusedUpBlock) == 2
    assert kinds.count(FusedSPixNet) == 1


def test_sums_and_activations_between_the_backbones_stages_are_a_part_of_the_pass():
    network = random_network(0.25)
    plain, fused = network.alike(network.state_dict()), network.alike(network.state_dict())
    fuse_convolutions(folded(fused))
    gray = torch.rand(2, 1, 64, 96, generator=torch.Generator().manual_seed(0)) - 0.5
    with torch.inference_mode():
        expected, got = plain.repnet(gray), fused.repnet(gray)
    assert (got - expected).abs().max() < ROUNDING * max(1, expected.abs().max())
    assert isinstance(fused.repnet, FusedBackbone)
    assert nn.ReLU not in [type(module) for module in fused.repnet.modules()]


def test_a_lead_of_eight_channels_is_one_of_one(network: DISCO):
    plain, aligned = unpacked(network), unpacked(network)
    spread_lead(aligned.enhanceNet.network, ALIGNED_LEAD)
    aligned._lead_channels = ALIGNED_LEAD
    gray = torch.rand(1, 1, 64, 96, generator=torch.Generator().manual_seed(0)) - 0.5
    with torch.inference_mode():
        expected, got = plain(gray, 4), aligned(gray, 4)
    assert torch.equal(got.anchor_index, expected.anchor_index)
    assert (got.ab - expected.ab).abs().max() < ROUNDING
    assert expected.ab.abs().max() > 100 * ROUNDING


def test_aligned_channels_change_nothing(network: DISCO):
    plain, aligned = (network.alike(network.state_dict()).eval() for _ in range(2))
    for prepared in (plain, aligned):
        fuse_convolutions(folded(prepared))
        set_formats(prepared, "bf16")
    align_channels(aligned)
    firsts = [aligned.segnet[0].network.conv0a[0].weight.shape[1]]
    if isinstance(aligned.repnet, InFormat):
        firsts.append(aligned.repnet.network.conv1_2[0].weight.shape[1])
    assert firsts == [4, 8][: len(firsts)]
    assert len(aligned.enhanceNet.network.outConv[0].weight) == 8
    generator = torch.Generator().manual_seed(0)
    gray = torch.rand(2, 1, 64, 96, generator=generator) - 0.5
    pixels = torch.randn(2, 65, 64, 96, generator=generator)
    with torch.inference_mode():
        for part, x in (("segnet", gray), ("repnet", gray), ("enhanceNet", pixels)):
            expected, got = (which.get_submodule(part)(x).float() for which in (plain, aligned))
            assert got.shape == expected.shape
            # The same sums in another order, which may be rounded to bf16 the other way each time.
            spread = expected.std()
            assert (got - expected).square().mean().sqrt() < 2**-7 * spread, part


def test_the_network_in_one_kernel_for_each_convolution(
    emulated_gpu: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    """As on a GPU where all of them are found to be faster, which this GPU cannot say."""
    network = folded(random_network(0.25))
    spread_lead(network.enhanceNet, ALIGNED_LEAD)
    fuse_convolutions(network)
    set_formats(network, "bf16")
    align_channels(network)
    for module in network.segnet.modules():
        if isinstance(module, FusedConvolution):
            module.tf32 = True
    generator = torch.Generator().manual_seed(0)
    gray = torch.rand(1, 1, 32, 48, generator=generator) - 0.5
    pixels = torch.randn(1, 72, 32, 48, generator=generator)
    inputs = {"segnet": gray, "repnet": gray, "enhanceNet": pixels}
    with torch.inference_mode():
        expected = {part: network.get_submodule(part)(x).float() for part, x in inputs.items()}
        calls: list[torch.Size] = []

        def prefers(module: FusedConvolution, x: Tensor, residual: Tensor | None) -> bool:
            calls.extend([x.shape] * module.fits)
            return module.fits

        monkeypatch.setattr(FusedConvolution, "_prefers_one_kernel", prefers)
        for part, x in inputs.items():
            got = network.get_submodule(part)(x).float()
            # TF32, and sums that are rounded to bf16 once less, behind up to 30 layers.
            error, spread = (got - expected[part]).square().mean().sqrt(), expected[part].std()
            assert error < 2**-5 * spread, part
    assert len(calls) == 52 + 3


def test_one_kernel_is_the_convolution_and_its_pass(emulated_gpu: ModuleType):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        convolution = nn.Conv2d(24, 40, 3, padding=1)
    norm = nn.BatchNorm2d(40, eps=0.5)
    network = nn.Sequential(nn.Sequential(convolution, nn.LeakyReLU(0.2), norm)).eval()
    fuse_convolutions(network)
    fused = network[0][0]
    assert not fused.fits  # not in 16 bits
    network.to(torch.bfloat16)
    assert fused.fits
    generator = torch.Generator().manual_seed(0)
    x, residual = (
        torch.randn(2, channels, 9, 12, generator=generator).bfloat16() for channels in (24, 40)
    )
    with torch.inference_mode():
        for other in (None, residual):
            expected, got = fused(x, other), fused.at_once(x, other)
            # Of a value of at most 4 in two steps the sum is rounded to bf16 once more.
            assert (got - expected).abs().max() <= 4 * 2**-7
            assert expected.abs().max() < 4


def test_most_convolutions_of_the_published_network_fit_one_kernel():
    network = unpacked(random_network(1.0))
    spread_lead(network.enhanceNet.network, ALIGNED_LEAD)
    fuse_convolutions(network)
    convolutions = {
        part: [m for m in network.get_submodule(part).modules() if isinstance(m, FusedConvolution)]
        for part in PARTS
    }
    assert not any(m.fits for modules in convolutions.values() for m in modules)  # fp32 is exact
    for part in ("repnet", "enhanceNet"):
        network.get_submodule(part).to(torch.bfloat16)
    for module in convolutions["segnet"]:
        module.tf32 = True
    unfit = {part: sum(not m.fits for m in modules) for part, modules in convolutions.items()}
    # Strides of 2, upsampling, one input, two outputs.
    assert unfit == {"segnet": 4 + 4 + 1, "repnet": 3 + 3 + 1, "enhanceNet": 2 + 2 + 1}
    assert sum(map(len, convolutions.values())) - sum(unfit.values()) == 52


def test_formats_change_weights_alone():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        convolution = nn.Conv2d(4, 8, 3)
    network = nn.Sequential(nn.Sequential(convolution, nn.ReLU(), nn.BatchNorm2d(8))).eval()
    fuse_convolutions(network)
    network.to(torch.bfloat16)
    fused = network[0][0]
    assert fused.weight.dtype == torch.bfloat16
    with torch.inference_mode():
        got = fused(torch.ones(1, 4, 5, 5, dtype=torch.bfloat16))
        product = torch.conv2d(torch.ones(1, 4, 5, 5), fused.weight.float())
    expected = (product + convolution.bias[:, None, None]).relu() / (1 + 1e-5) ** 0.5
    # The product is rounded to bf16, the result again: 2 ** -8 each, of values up to 2.
    assert got.dtype == torch.bfloat16
    assert (got.float() - expected).abs().max() < 2**-6


def test_cuda_engine_is_fused():
    need_gpu()
    engine = Engine(random_network(0.25), "bf16", "cuda")
    segnet = [m for m in engine.network.segnet.modules() if isinstance(m, FusedConvolution)]
    assert segnet
    assert all(module.tf32 and module.weight.dtype == torch.float32 for module in segnet)
    exact = Engine(random_network(0.25), "fp32", "cuda").network
    assert not any(m.tf32 for m in exact.modules() if isinstance(m, FusedConvolution))
    assert isinstance(engine.network.repnet.network, FusedBackbone)
    assert engine.network._lead_channels == ALIGNED_LEAD
    assert {"alignment", "fusing"} <= set(REWRITES)


def test_cuda_engine_tries_one_kernel_for_each_convolution():
    need_gpu()
    network = random_network(1.0)
    engines = [Engine(network, "bf16", "cuda", without) for without in ([], ["one kernel"])]
    gray = torch.rand(1, 1, 128, 192, generator=torch.Generator().manual_seed(0)).cuda() - 0.5
    features = []
    for engine, tried in zip(engines, (52 + 3, 0), strict=True):
        for _ in range(2):  # the second call searches and captures
            engine.chroma(gray, 4)
        modules = [m for m in engine.network.modules() if isinstance(m, FusedConvolution)]
        assert sum(len(m._at_once) for m in modules) == tried
        with torch.inference_mode():
            features.append(engine.network.repnet(gray).float())
    # Sums that are rounded to bf16 once less, behind up to 30 layers.
    error = (features[0] - features[1]).square().mean().sqrt()
    assert error < 2**-5 * features[1].std()
