"""The pretrained backbone: the classifier that it is, its place in the network, the cache."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from disco_fast import DISCO, Colorizer
from disco_fast.checkpoints import COMPACT, load_checkpoint, random_network, save_checkpoint
from disco_fast.cli.main import main
from disco_fast.color import AB_SCALE, normalize_lightness
from disco_fast.engine import Engine
from disco_fast.engine.convolutions import PackedConvolution
from disco_fast.engine.prepared import REWRITES
from disco_fast.evaluate.features import load_features
from disco_fast.export import export_onnx
from disco_fast.io.photographs import Photographs
from disco_fast.model.efficientnet import CHANNELS, Standardize, gray_picture, pyramid_of
from disco_fast.ops import lab_to_rgb, sp_pool
from disco_fast.train.cache import (
    CARD,
    ROWS,
    SCALES,
    Cache,
    CacheError,
    fill,
    start_of,
    superpixel_rows,
    with_pretrained,
)
from disco_fast.train.losses import L1
from disco_fast.train.stages import Anchoring, ColorizerStage, TokensStage
from disco_fast.train.stream import Crops
from disco_fast.train.trainer import STATE
from disco_fast.train.transplant import transplant

PHOTOGRAPHS = Path(__file__).parents[1] / "examples" / "photographs"
CACHE = ["cache", "--data", str(PHOTOGRAPHS), "--size", "64", "--workers", "0"]
TOKENS = ["tokens", "--batch", "4", "--workers", "0", "--anchors", "3", "5"]


@pytest.fixture(scope="module")
def network() -> DISCO:
    """ImageNet's weights in the backbone, random ones elsewhere, uneven scales."""
    network = with_pretrained(random_network(0.1), seed=0)
    generator = torch.Generator().manual_seed(0)
    mean, deviation = (torch.rand(sum(CHANNELS), generator=generator) for _ in range(2))
    pyramid_of(network.repnet).standardize(mean, deviation + 0.5)
    return network


@pytest.fixture(scope="module")
def lab() -> Tensor:
    """Two crops, [2,3,64,64]."""
    photographs = Photographs(PHOTOGRAPHS)
    crops = Crops(photographs, len(photographs), 64, 0.6, seed=3)
    return torch.stack([crops[n] for n in range(2)])


def test_the_gray_picture_is_what_a_viewer_shows():
    lightness = torch.tensor([0.0, 4, 8, 9, 50, 99, 100])[None, None, None]
    rgb = lab_to_rgb(lightness, torch.zeros(1, 2, 1, 7), False)
    expected = (255 * rgb[:, :1] - 127) / 128
    # Rows of the conversion to RGB add up to one only to four digits.
    torch.testing.assert_close(gray_picture((lightness - 50) / 50), expected, atol=2e-3, rtol=0)


def test_its_scales_are_the_classifiers(network: DISCO, lab: Tensor):
    classifier = load_features("efficientnet-lite0")
    picture = gray_picture(normalize_lightness(lab[:, :1]))
    with torch.inference_mode():
        expected = classifier.layers(((128 * picture + 127) / 255).expand(-1, 3, -1, -1))
        scales = pyramid_of(network.repnet).encode(picture)[1:]
    assert [scale.shape[1] for scale in scales] == list(CHANNELS[1:])
    for mine, theirs in zip(scales, expected, strict=True):
        # Sixteen blocks of rounding on values up to 70.
        torch.testing.assert_close(mine, theirs, atol=1e-3, rtol=1e-4)


def test_projecting_and_pooling_change_places(network: DISCO, lab: Tensor):
    with torch.inference_mode():
        rows = superpixel_rows(network, lab)
        superpixels = network.superpixels(normalize_lightness(lab[:, :1]))
        tokens = pyramid_of(network.repnet).project(rows[..., :SCALES])
        colors = sp_pool(lab[:, 1:].contiguous() / AB_SCALE, superpixels.association, 16)[0]
    torch.testing.assert_close(tokens, superpixels.tokens, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(rows[..., SCALES:-1], colors.flatten(2).transpose(1, 2))
    torch.testing.assert_close(rows[..., -1], superpixels.size.flatten(1))


@pytest.mark.parametrize(
    "names", [["standardization"], ["padding"], ["packing"], list(REWRITES)], ids=str
)
def test_rewrites_are_exact(network: DISCO, names: list[str]):
    gray = torch.linspace(0, 5, 64)[:, None].sin() * torch.linspace(0, 7, 96).cos()
    without = set(REWRITES) - {"spectral norm", *names}
    with torch.inference_mode():
        published = network(gray[None, None], 4)
    prepared = Engine(network, "fp32", without=without)(gray[None, None], 4)
    assert torch.equal(prepared.anchor_index, published.anchor_index)
    torch.testing.assert_close(prepared.pooled, published.pooled, atol=1e-4, rtol=1e-4)
    # As the published network's (tests/test_engine.py).
    torch.testing.assert_close(prepared.ab, published.ab, atol=1e-3, rtol=0)


def test_rewrites_do_their_work(network: DISCO):
    prepared = Engine(network, "fp32").network.repnet
    gone = (Standardize, nn.ZeroPad2d)
    assert not any(isinstance(module, gone) for module in prepared.modules())
    if torch.backends.mkldnn.is_available() and platform.machine() == "x86_64":
        assert not any(isinstance(module, nn.ReLU6) for module in prepared.modules())
        packed = [module for module in prepared.modules() if isinstance(module, PackedConvolution)]
        assert len(packed) == 48 + 6  # the encoder's, and the projections
        # Their order in oneDNN depends on the size of the image and the number of threads.
        assert all(not m.weight.is_mkldnn for m in packed if m.weight.shape[2:] == (1, 1))


def test_half_precision_is_close(network: DISCO, lab: Tensor):
    gray = normalize_lightness(lab[:, :1])
    fp32, bf16 = (Engine(network, p).superpixels(gray) for p in ("fp32", "bf16"))
    difference = (fp32.pooled - bf16.pooled).abs().mean() / fp32.pooled.std()
    assert difference < 0.1  # a rounding is 2^-9, and sixteen blocks add up to 5 % of the deviation


def test_a_file_names_its_backbone(network: DISCO, tmp_path: Path):
    save_checkpoint(network, tmp_path / "x.safetensors", torch.float16)
    loaded = load_checkpoint(tmp_path / "x.safetensors")
    assert (loaded.backbone, loaded.stride, loaded.width) == ("efficientnet-lite0", 32, 0.1)
    picture = torch.linspace(0, 1, 50 * 70).view(1, 50, 70)
    out = Colorizer(tmp_path / "x.safetensors", precision="fp32").colorize(picture)
    assert out.shape == (3, 50, 70)


def test_it_is_exported(network: DISCO, tmp_path: Path):
    """Each file has run in onnxruntime with the original's results before it is there."""
    pytest.importorskip("onnxruntime")
    written = export_onnx(network, tmp_path)
    assert {path.stem for path in written} >= {"features", "refinenet"}


def test_refusals(network: DISCO, tmp_path: Path):
    with pytest.raises(ValueError, match="backbone: expected published or efficientnet-lite0, got"):
        DISCO(backbone="resnet")
    with pytest.raises(ValueError, match="multiples of 32, got"):
        network(torch.zeros(1, 1, 48, 64))
    with pytest.raises(TypeError, match="expected efficientnet-lite0"):
        pyramid_of(random_network(0.1).repnet)
    with pytest.raises(CacheError, match="no cache"):
        Cache(tmp_path, 0)


def test_both_stages_learn(network: DISCO, lab: Tensor):
    """Gradients reach what is trained, and nothing else; the encoder is among the slow."""
    with torch.inference_mode():
        rows = superpixel_rows(network, lab)
    rows = rows.clone()
    tokens = TokensStage(network, Anchoring(3, 4, "both"), 0.1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        loss, terms = tokens.train()(rows)
    loss.backward()
    assert set(terms) == {"anchors", "guided"}
    moved = {name.split(".")[0] for name, p in network.named_parameters() if p.grad is not None}
    heads = {"mid_word_prj", "trg_word_emb", "trg_word_prj"}
    assert moved == {"repnet", "wildpath", "hintpath"} | heads
    assert all(p.grad is None for p in pyramid_of(network.repnet).scales.parameters())
    network.zero_grad()

    whole = ColorizerStage(network, torch.ones(313), {"l1": (L1(), 20.0)}, Anchoring(3, 4, "both"))
    assert len(whole.slow_weights()) == 2 * 48  # a weight and a bias for each convolution
    with torch.random.fork_rng():
        torch.manual_seed(0)
        whole.train()(lab)[0].backward()
    assert all(p.grad is not None for p in whole.slow_weights())
    network.zero_grad()


def _train(*arguments: str) -> int:
    return main(["train", *arguments])


def test_from_cache_to_colors(tmp_path: Path):
    cache, tokens, joint = (tmp_path / name for name in ("cache", "tokens", "joint"))
    assert _train(*CACHE, "--out", str(cache), "--views", "2") == 0
    assert json.loads((cache / CARD).read_text())["done"] == 14
    assert np.isfinite(np.load(cache / ROWS)).all()
    options = ["--data", str(cache), "--out", str(tokens), "--epochs", "3", "--precision", "bf16"]
    assert _train(*TOKENS, *options) == 0
    card = json.loads((tokens / "card.json").read_text())
    assert (card["backbone"], card["cache"]["views"]) == ("efficientnet-lite0", 2)
    first = tokens / "tokens.safetensors"
    assert _train("colorizer", "--data", str(PHOTOGRAPHS), "--init", str(first), "--out",
                  str(joint), "--size", "64", "--batch", "4", "--epochs", "1", "--workers", "0",
                  "--balance", "1", "--encoder-rate", "0",
                  "--reconstruction", "l1") == 0  # fmt: skip
    before, after = load_checkpoint(first), load_checkpoint(joint / "colorizer.safetensors")
    assert after.backbone == "efficientnet-lite0"
    for key, value in before.segnet.state_dict().items():
        assert torch.equal(after.segnet.state_dict()[key], value), key
    then, now = (pyramid_of(network.repnet).state_dict() for network in (before, after))
    moved = {key.split(".")[0] for key in then if not torch.equal(then[key], now[key])}
    assert moved == {"laterals"}  # the encoder's own rate is 0
    for name in ("mean", "deviation"):
        key = f"repnet.pyramid.laterals.3.0.{name}"
        assert torch.equal(before.state_dict()[key], after.state_dict()[key])
    assert _train("colorizer", "--data", str(PHOTOGRAPHS), "--init", str(first), "--out",
                  str(tmp_path / "x"), "--size", "48", "--reconstruction", "l1") == 1  # fmt: skip
    assert _train("backbone", "--data", str(PHOTOGRAPHS), "--init", str(first), "--out",
                  str(tmp_path / "x"), "--size", "64") == 1  # fmt: skip


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Several threads may add the parts of a gradient in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_tokens_resume_exactly(tmp_path: Path):
    cache = tmp_path / "cache"
    assert _train(*CACHE, "--out", str(cache), "--views", "1") == 0
    out, straight = tmp_path / "out", tmp_path / "straight"
    options = [*TOKENS, "--data", str(cache), "--epochs", "2"]
    assert _train(*options, "--out", str(straight)) == 0
    assert _train(*options, "--out", str(out), "--max-minutes", "0.0001") == 0
    assert torch.load(out / STATE, weights_only=True)["step"] == 1
    assert _train(*options, "--out", str(out), "--resume") == 0
    resumed, whole = (load_checkpoint(f / "tokens.safetensors") for f in (out, straight))
    for key, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[key], value), key


@pytest.mark.usefixtures("one_thread")
def test_a_cache_goes_on_where_it_stopped(network: DISCO, tmp_path: Path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    photographs = Photographs(PHOTOGRAPHS)
    crops = Crops(photographs, len(photographs), 64, 0.6, seed=3)
    card = {"size": 64, "cell_size": 16, "backbone": "init"}

    def filled(folder: Path, stop: bool, **other: int) -> bool:
        settings = {"batch": 2, "workers": 0, "narrow": False, "should_stop": lambda: stop}
        return fill(folder, network, crops, 5, {**card, **other}, **settings)

    assert filled(whole, False)
    assert not filled(parts, True)
    with pytest.raises(CacheError, match="2 of 5 crops are cached; go on with disco-fast train"):
        Cache(parts, 0)
    with pytest.raises(CacheError, match="is of another cache"):
        filled(parts, False, seed=2)
    assert filled(parts, False)
    np.testing.assert_array_equal(np.load(parts / ROWS), np.load(whole / ROWS))
    assert len(Cache(parts, 0)) == 5


def test_a_cache_of_a_trained_network_begins_with_its_token_path(tmp_path: Path):
    cache, before = tmp_path / "cache", load_checkpoint(COMPACT)
    assert _train(*CACHE, "--out", str(cache), "--views", "1", "--backbone", "init") == 0
    found = Cache(cache, 0)
    for key, value in start_of(cache, found).state_dict().items():
        assert torch.equal(value, before.state_dict()[key]), key
    lab = torch.stack([Crops(Photographs(PHOTOGRAPHS), 7, 64, 0.75, 1)[n] for n in range(7)])
    with torch.inference_mode():
        expected = before.superpixels(normalize_lightness(lab[:, :1])).tokens
        rows = torch.from_numpy(np.load(cache / ROWS).astype(np.float32))
        got = pyramid_of(before.repnet).project(rows[..., :SCALES])
    # Rows are fp16, and pooled by the average association of 4x4 pixels.
    assert (got - expected).abs().mean() < 0.1 * expected.std()


def test_cache_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out, published = str(tmp_path / "out"), tmp_path / "published.safetensors"
    save_checkpoint(random_network(0.1), published)
    for arguments, message in (
        (["--size", "48"], "--size: expected multiples of 32, got 48"),
        (["--hold-out", "7"], "--hold-out: expected fewer than the photographs"),
        (["--resume"], "--resume: expected it exactly where OUT holds a part of a cache"),
        (
            ["--backbone", "init", "--init", str(published)],
            "--init: expected the backbone efficientnet-lite0 with --backbone init",
        ),
    ):
        assert _train(*CACHE, "--out", out, *arguments) == 1
        assert message in capsys.readouterr().err
    assert not Path(out).exists()


# ---- RefineNet of another network ----------------------------------------------------------------


def test_refinenet_of_a_network_with_the_same_tokens_is_that_refinenet(network: DISCO, lab: Tensor):
    donor, without = (  # other tests train the network
        network.alike({key: x.clone() for key, x in network.state_dict().items()}) for _ in range(2)
    )
    with torch.no_grad():
        for parameter in without.enhanceNet.parameters():
            parameter.neg_()
    explained = transplant(without, donor, Photographs(PHOTOGRAPHS), 7, 64, (3, 5))
    assert 0.99 < explained <= 1
    gray = normalize_lightness(lab[:, :1])
    with torch.inference_mode():
        expected, got = donor(gray, 4).ab, without(gray, 4).ab
    inside = (..., slice(16, -16), slice(16, -16))  # at the border a constant is missing
    # The ridge shortens directions in which the tokens hardly differ.
    assert (got - expected)[inside].abs().mean() < 0.05 * expected.std()


def test_refinenet_that_does_not_fit_is_refused(network: DISCO):
    donor = random_network(0.2)
    with pytest.raises(
        ValueError, match=r"--refinenet: expected width 0\.1 and cells of 16, got 0\.2"
    ):
        transplant(network, donor, Photographs(PHOTOGRAPHS), 7, 64, (3, 5))


def test_the_command_starts_with_another_refinenet(
    network: DISCO, tmp_path: Path, capsys: pytest.CaptureFixture
):
    for name, saved in (("start", network), ("donor", random_network(0.1))):
        save_checkpoint(saved, tmp_path / f"{name}.safetensors")
    out = tmp_path / "out"
    options = ["--size", "64", "--batch", "2", "--first", "2", "--epochs", "1", "--workers", "0"]
    files = ["--init", str(tmp_path / "start.safetensors"), "--out", str(out)]
    files += ["--refinenet", str(tmp_path / "donor.safetensors"), "--data", str(PHOTOGRAPHS)]
    assert main(["train", "colorizer", *options, *files, "--reconstruction", "l1"]) == 0
    assert "a linear map explains" in capsys.readouterr().err
    assert json.loads((out / "card.json").read_text())["refinenet"] == "donor.safetensors"
