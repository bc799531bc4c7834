"""Vividness: what it does to a distribution, in whose file it is kept, and through every door."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import disco_fast
from disco_fast import CheckpointError, Colorizer, load_checkpoint, reference
from disco_fast.checkpoints import COMPACT, random_network, save_checkpoint
from disco_fast.color import N_BINS, bin_centers
from disco_fast.engine import Engine
from disco_fast.io.images import read_image
from disco_fast.model.readout import TEMPERATURE, Readout, official, rebalancing
from disco_fast.transforms import Colorize

PHOTOGRAPHS = Path(__file__).parents[1] / "examples" / "photographs"
QUICK = {"working_size": 96}


def photograph(name: str) -> Tensor:
    """[3,H,W] uint8, a fifth of its size."""
    pixels = torch.from_numpy(read_image(PHOTOGRAPHS / f"{name}.jpg").pixels).permute(2, 0, 1)
    return pixels[:, ::5, ::5].contiguous()


@pytest.fixture(scope="module")
def image() -> Tensor:
    return photograph("chelsea")


@pytest.fixture(scope="module")
def colorizer() -> Colorizer:
    return Colorizer(device="cpu", precision="fp32")


# ---- what it does to a distribution -------------------------------------------------------------


def offset(readout: Readout, vividness: float) -> Tensor:
    likely, vivid = readout.ends()
    return likely + vividness * vivid


def prior() -> Tensor:
    return torch.tensor(official().prior, dtype=torch.float64)


@pytest.mark.parametrize("balance", [0.25, 0.5, 1.0])
def test_at_0_it_is_the_true_probability_and_at_1_what_was_trained(balance: float):
    draws = torch.Generator().manual_seed(1)
    p = (3 * torch.randn(N_BINS, dtype=torch.float64, generator=draws)).softmax(0)
    trained = (rebalancing(prior(), balance) * p).log()
    readout = replace(official(), balance=balance)
    found = (trained + offset(readout, 0)).softmax(0)
    torch.testing.assert_close(found, p, rtol=1e-5, atol=0)
    assert torch.equal(offset(readout, 1), torch.zeros(N_BINS))


def test_with_and_without_rebalancing_it_is_one_dial():
    """Networks that have learned the same, one of them with weights as vivid as the dial's end."""
    draws = torch.Generator().manual_seed(2)
    p = (3 * torch.randn(N_BINS, dtype=torch.float64, generator=draws)).softmax(0)
    rebalanced = (rebalancing(prior(), 0.25) * p).log()
    weighted, plain = replace(official(), balance=0.25), replace(official(), balance=None)
    assert torch.equal(offset(plain, 0), torch.zeros(N_BINS))
    for vividness in (0.0, 0.3, 1.0):
        one = (rebalanced + offset(weighted, vividness)).softmax(0)
        other = (p.log() + offset(plain, vividness)).softmax(0)
        torch.testing.assert_close(one, other, rtol=1e-5, atol=0)


def test_without_annealing_vividness_1_is_the_published_choice():
    logits = torch.randn(2, 40, N_BINS, generator=torch.Generator().manual_seed(3))
    index, centers = torch.arange(40).expand(2, -1), bin_centers("cpu")
    dialed = reference.anchor_bins(logits, index, centers, 3, offset(official(), 1.0), 0.0)
    assert torch.equal(dialed, reference.anchor_bins(logits, index, centers, 3))


@given(st.integers(0, 10**6), st.floats(0, 1), st.floats(0, 1))
def test_the_more_vivid_the_rarer_the_colors(seed: int, one: float, other: float):
    """What the annealed mean is taken of has the rarer bins, the higher the vividness."""
    low, high = sorted((one, other))
    logits = 2 * torch.randn(N_BINS, generator=torch.Generator().manual_seed(seed)).double()
    commonness = prior().clamp(min=1e-12).log()

    def mean(vividness: float) -> float:
        scores = logits + offset(official(), vividness).double()
        return float((scores / TEMPERATURE).softmax(0) @ commonness)

    assert mean(high) <= mean(low) + 1e-6


def test_the_shipped_prior_is_one_and_gray_is_the_most_common():
    assert prior().sum() == pytest.approx(1, abs=1e-4)
    centers = bin_centers("cpu")
    assert centers[prior().argmax()].norm() <= 10
    near = centers.norm(dim=1) <= 30
    assert prior()[near].sum() > 0.8


# ---- in whose file it is kept -------------------------------------------------------------------


@pytest.mark.parametrize("balance", [None, 0.75])
def test_a_checkpoint_keeps_it(tmp_path: Path, balance: float | None):
    network = random_network(0.125)
    network.readout = Readout(tuple(torch.linspace(0, 1, N_BINS).softmax(0).tolist()), balance, 0.2)
    save_checkpoint(network, tmp_path / "a.safetensors", torch.float16, notes={"card": "kept"})
    loaded = load_checkpoint(tmp_path / "a.safetensors")
    assert loaded.readout == network.readout
    assert set(loaded.state_dict()) == set(network.state_dict())  # no further tensor
    assert Colorizer(loaded, device="cpu").vividness == 0.2


def test_an_official_checkpoint_has_the_published_rebalancing(tmp_path: Path):
    assert load_checkpoint(COMPACT).readout.balance is None  # trained without, as its card says
    network = random_network(0.25)
    torch.save({"state_dict": network.state_dict()}, tmp_path / "official.pth.tar")
    assert load_checkpoint(tmp_path / "official.pth.tar").readout == official()
    assert official().balance == 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prior": (1.0,)}, "prior: expected 313 shares"),
        ({"prior": (-1.0, 2.0, *[0.0] * 311)}, "none negative"),
        ({"prior": (float("nan"),) * N_BINS}, "none negative"),
        ({"prior": (1.0,) * N_BINS}, "whose sum is 1"),
        ({"balance": 0.0}, r"balance: expected None or a number in \(0, 1\], got 0.0"),
        ({"vividness": 1.5}, r"vividness: expected a number in 0\.\.1, got 1.5"),
    ],
)
def test_what_is_no_readout(change: dict, message: str):
    with pytest.raises(ValueError, match=message):
        replace(official(), **change)


def test_a_damaged_readout_in_a_file_is_named(tmp_path: Path):
    for text in ("{", "[]", "{}", '{"prior": [1], "balance": 0.5, "vividness": 0.5}'):
        with pytest.raises(ValueError, match="readout: expected prior, balance and vividness"):
            Readout.from_json(text)
    network = random_network(0.125)
    path = tmp_path / "a.safetensors"
    save_checkpoint(network, path)
    data = path.read_bytes().replace(rb"\"balance\"", rb"\"balanse\"")
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"a\.safetensors: readout: expected"):
        load_checkpoint(path)


# ---- through every door -------------------------------------------------------------------------


def test_no_vividness_is_the_checkpoints(image: Tensor):
    network = load_checkpoint(COMPACT)
    network.readout = replace(network.readout, vividness=0.9)
    own, compact = Colorizer(network, device="cpu"), Colorizer(device="cpu")
    expected = compact.colorize(image, vividness=0.9, **QUICK)
    assert torch.equal(own.colorize(image, **QUICK), expected)
    assert not torch.equal(compact.colorize(image, vividness=0.1, **QUICK), expected)
    assert torch.equal(compact.colorize_all([image], vividness=0.9, **QUICK)[0], expected)
    assert torch.equal(disco_fast.colorize(image, vividness=0.9, **QUICK), expected)
    assert torch.equal(Colorize(vividness=0.9, **QUICK)(image), expected)


def test_the_more_vivid_the_more_chroma(colorizer: Colorizer):
    centers = bin_centers("cpu")
    analyses = [colorizer.analyze(photograph(n), **QUICK) for n in ("chelsea", "china", "coffee")]

    def chroma(vividness: float) -> float:
        bins = [a.bin for analysis in analyses for a in analysis.at(vividness).anchors]
        return float(centers[bins].norm(dim=1).mean())

    measured = [chroma(v) for v in (0.0, 0.5, 1.0)]
    assert measured == sorted(measured)
    assert measured[2] > 1.5 * measured[0]


def test_an_analysis_takes_another_vividness_without_the_first_half(
    colorizer: Colorizer, image: Tensor
):
    analysis = colorizer.analyze(image, n_anchors=6, **QUICK)
    network, ran = colorizer.engine.network, []
    parts = ("segnet", "repnet", "wildpath", "hintpath", "enhanceNet")
    hooks = [
        getattr(network, name).register_forward_hook(lambda *_, name=name: ran.append(name))
        for name in parts
    ]
    result = analysis.colorize(vividness=1.0)
    for hook in hooks:
        hook.remove()
    assert set(ran) <= {"hintpath", "enhanceNet"}
    assert "enhanceNet" in ran
    fresh = colorizer.analyze(image, n_anchors=6, vividness=1.0, **QUICK)
    assert analysis.at(1.0).anchors == fresh.anchors
    assert torch.equal(result, fresh.colorize())
    settings = {"n_anchors": 6, "vividness": 1.0, **QUICK}
    assert torch.equal(result, colorizer.colorize(image, **settings))
    assert analysis.vividness == colorizer.vividness  # it is as it was
    assert not torch.equal(analysis.colorize(), result)


def test_variants_start_from_the_chosen_colors(colorizer: Colorizer, image: Tensor):
    analysis = colorizer.analyze(image, vividness=0.2, **QUICK)
    first, second, third = analysis.variants(3)
    assert first == analysis.anchors
    for one, two, three in zip(first, second, third, strict=True):
        palette = bin_centers("cpu")[[swatch.bin for swatch in one.palette]]
        own, other = (bin_centers("cpu")[anchor.bin] for anchor in (one, two))
        from_first = (palette - own).norm(dim=1)
        assert two.bin == one.palette[int(from_first.argmax())].bin
        from_both = from_first + (palette - other).norm(dim=1)
        assert three.bin == one.palette[int(from_both.argmax())].bin
    many = colorizer.colorize(image, variants=4, vividness=0.2, **QUICK)
    assert torch.equal(many[3], analysis.colorize(analysis.variants(4)[3]))


def test_mode_reference_is_the_published_reading(image: Tensor):
    """Whatever the checkpoint says of vividness; `test_golden.py` has the network itself."""
    networks = [load_checkpoint(COMPACT) for _ in range(2)]
    networks[1].readout = Readout(official().prior, None, 0.0)
    results = [Colorizer(n, device="cpu").colorize(image, mode="reference") for n in networks]
    assert torch.equal(*results)
    with pytest.raises(ValueError, match=r"vividness: expected None in mode 'reference', got 0\.5"):
        Colorizer(networks[0], device="cpu").colorize(image, mode="reference", vividness=0.5)


def test_the_offset_is_the_engines_last_word():
    """Prepared, it chooses what the published network would with the same offset."""
    network = load_checkpoint(COMPACT)
    engine = Engine(network, "fp32")
    gray = torch.rand(2, 1, 96, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for vividness in (0.0, 1.0):
        shift = engine.offset(vividness)
        with torch.inference_mode():
            expected = network(gray, variants=3, offset=shift)
        found = engine(gray, variants=3, offset=shift)
        assert torch.equal(found.anchor_colors, expected.anchor_colors)
        assert torch.equal(engine.chroma(gray, variants=3, offset=shift), found.ab)


@pytest.mark.parametrize(
    ("value", "error"),
    [(-0.1, ValueError), (1.01, ValueError), (float("nan"), ValueError), ("0.5", TypeError)],
)
def test_what_is_no_vividness(colorizer: Colorizer, image: Tensor, value: object, error: type):
    message = r"vividness: expected a number in 0\.\.1, got"
    analysis = colorizer.analyze(image, n_anchors=2, working_size=32)
    for door in (
        lambda: colorizer.colorize(image, vividness=value),
        lambda: colorizer.colorize_all([image], vividness=value),
        lambda: colorizer.analyze(image, vividness=value),
        lambda: disco_fast.colorize(image, vividness=value),
        lambda: analysis.colorize(vividness=value),
        lambda: Colorize(vividness=value),
    ):
        with pytest.raises(error, match=message):
            door()


def test_anchors_with_colors_have_no_vividness(colorizer: Colorizer, image: Tensor):
    analysis = colorizer.analyze(image, n_anchors=2, working_size=32)
    with pytest.raises(ValueError, match=r"vividness: expected None with anchors, got 0\.3"):
        analysis.colorize(analysis.anchors, vividness=0.3)
