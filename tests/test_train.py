"""Training: the stream of crops, the losses, the stages, and runs of the real command."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from disco_fast import checkpoints, ops, reference
from disco_fast.checkpoints import COMPACT, load_checkpoint, save_checkpoint
from disco_fast.cli.main import main
from disco_fast.color import AB_SCALE, N_BINS, bin_centers, nearest_bins
from disco_fast.evaluate.features import load_features
from disco_fast.io.images import ImageFileError
from disco_fast.io.photographs import Photographs
from disco_fast.model import DISCO
from disco_fast.model.readout import rebalancing
from disco_fast.train.losses import (
    L1,
    Distillation,
    Perceptual,
    color_prior,
    distribution_loss,
    superpixel_loss,
)
from disco_fast.train.processes import Processes
from disco_fast.train.stages import Anchoring, BackboneStage, ColorizerStage, SPixNetStage
from disco_fast.train.stream import Crops, Turns
from disco_fast.train.trainer import STATE, Schedule, Trainer
from disco_fast.train.watch import _last

PHOTOGRAPHS = Path(__file__).parents[1] / "examples" / "photographs"
CPU = Processes(torch.device("cpu"))


@pytest.fixture(scope="module")
def photographs() -> Photographs:
    return Photographs(PHOTOGRAPHS)


@pytest.fixture(scope="module")
def lab(photographs: Photographs) -> Tensor:
    """Four crops, [4,3,64,64]."""
    crops = Crops(photographs, len(photographs), 64, 0.6, seed=3)
    return torch.stack([crops[n] for n in range(4)])


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """Draws from the global generator within, which is left as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def random_network() -> DISCO:
    with seeded():
        return DISCO(width=0.1)


@pytest.fixture
def small() -> DISCO:
    return random_network()


# ---- the stream of crops ------------------------------------------------------------------------


def test_a_crop_depends_on_its_number_alone(photographs: Photographs) -> None:
    one, other = (Crops(photographs, 5, 32, 0.5, seed=1) for _ in range(2))
    forward = [one[n] for n in range(12)]
    backward = [other[n] for n in reversed(range(12))][::-1]
    assert all(torch.equal(a, b) for a, b in zip(forward, backward, strict=True))
    assert not torch.equal(Crops(photographs, 5, 32, 0.5, seed=2)[0], forward[0])
    assert forward[0].shape == (3, 32, 32)
    assert 0 <= float(forward[0][0].min()) <= float(forward[0][0].max()) <= 100


def test_every_photograph_comes_once_before_any_comes_again(photographs: Photographs) -> None:
    crops = Crops(photographs, 5, 32, 1.0, seed=0)
    whole = [crops[n] for n in range(10)]
    for epoch in (whole[:5], whole[5:]):
        looks = {round(float(crop.mean()), 3) for crop in epoch}  # mirroring keeps the mean
        assert len(looks) == 5
    assert [float(c.mean()) for c in whole[:5]] != [float(c.mean()) for c in whole[5:]]


def test_a_photograph_that_cannot_be_read_gives_its_turn_away(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "good.png"), np.full((40, 40, 3), 90, np.uint8))
    (tmp_path / "bad.png").write_bytes(b"bad")
    crops = Crops(Photographs(tmp_path), 2, 32, 1.0, seed=0)
    with pytest.warns(UserWarning, match=r"left out: .*bad\.png"):
        both = [crops[n] for n in range(2)]
    assert torch.equal(both[0], both[1])
    (tmp_path / "good.png").write_bytes(b"bad too")
    with (
        pytest.warns(UserWarning, match="left out"),
        pytest.raises(ImageFileError, match="in a row"),
    ):
        Crops(Photographs(tmp_path), 2, 32, 1.0, seed=0)[0]


def test_processes_share_the_stream() -> None:
    alone = [sorted(step) for step in Turns(3, 7, batch=6)]
    pair = zip(Turns(3, 7, 3, 0, 2), Turns(3, 7, 3, 1, 2), strict=True)
    assert alone == [sorted(a + b) for a, b in pair]


# ---- the losses ---------------------------------------------------------------------------------


def _association(gray: Tensor) -> Tensor:
    draws = torch.Generator().manual_seed(1)
    return torch.randn(len(gray), 9, *gray.shape[2:], generator=draws).softmax(dim=1)


def test_equation_3_against_its_definition(lab: Tensor) -> None:
    chroma, association = lab[:, 1:].double() / AB_SCALE, _association(lab).double()
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    parts = []
    for known in (chroma, torch.stack([y, x]).double().expand(4, -1, -1, -1)):
        pooled, _ = reference.sp_pool(known, association, 16)
        error = reference.sp_diffuse(pooled, association, 16) - known
        parts.append(error.square().sum(dim=1).sqrt().mean())
    wanted = 10 * parts[0] + 0.003 / 16 * parts[1]
    torch.testing.assert_close(superpixel_loss(chroma, association, 16), wanted)


def test_equation_3_has_a_gradient_where_a_pixel_is_met_exactly() -> None:
    association = torch.zeros(1, 9, 32, 32)
    association[:, 4] = 1
    association.requires_grad_(True)
    superpixel_loss(torch.full((1, 2, 32, 32), 0.3), association, 16).backward()
    assert bool(association.grad.isfinite().all())
    assert float(association.grad.abs().sum()) > 0


def test_the_prior_counts_colors(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "red.png"), np.full((20, 20, 3), (0, 0, 255), np.uint8))
    prior = color_prior(Photographs(tmp_path), range(1))
    red = nearest_bins(torch.tensor([[80.1, 67.2]]))
    assert int(prior.argmax()) == int(red)
    assert float(prior.sum()) == pytest.approx(1, abs=1e-6)
    near = (bin_centers("cpu") - bin_centers("cpu")[red]).norm(dim=1) <= 10
    assert 0.9 < float(prior[near].sum()) < 1  # smoothed over the neighbors


def test_rebalancing_has_expectation_1_and_favors_the_rare() -> None:
    prior = torch.rand(N_BINS, generator=torch.Generator().manual_seed(0))
    prior /= prior.sum()
    weights = rebalancing(prior, 0.5)
    assert float((prior * weights).sum()) == pytest.approx(1, abs=1e-5)
    assert int(weights.argmax()) == int(prior.argmin())
    torch.testing.assert_close(rebalancing(prior, 1.0), torch.ones(N_BINS))


def test_equation_4() -> None:
    with seeded():
        logits, bins = torch.randn(2, 5, N_BINS), torch.randint(N_BINS, (2, 5))
    plain = F.cross_entropy(logits.transpose(1, 2), bins)
    torch.testing.assert_close(distribution_loss(logits, bins, torch.ones(N_BINS)), plain)
    only = torch.zeros(N_BINS)
    only[bins[1, 2]] = 7.0
    picked = -logits.log_softmax(dim=-1)[bins == bins[1, 2]][:, bins[1, 2]].sum() * 7 / 10
    torch.testing.assert_close(distribution_loss(logits, bins, only), picked)


def test_the_nearest_bin_has_the_nearest_center() -> None:
    ab = torch.rand(500, 2, generator=torch.Generator().manual_seed(0)) * 160 - 80
    distance = torch.cdist(ab.double(), bin_centers("cpu").double())
    assert torch.equal(nearest_bins(ab), distance.argmin(dim=1))


# ---- the stages ---------------------------------------------------------------------------------


def _colorizer_stage(network: DISCO, **options) -> ColorizerStage:
    weights = torch.ones(N_BINS)
    return ColorizerStage(network, weights, {"l1": (L1(), 20.0)}, dropout=0.0, **options)


def test_stage_1_trains_spixnet_alone(small: DISCO, lab: Tensor) -> None:
    loss, terms = SPixNetStage(small).train()(lab)
    loss.backward()
    trained = {name for name, p in small.named_parameters() if p.grad is not None}
    assert trained == {name for name, _ in small.named_parameters() if name.startswith("segnet")}
    assert set(terms) == {"superpixels"}


def test_stage_2_trains_all_the_rest_and_leaves_spixnet_alone(small: DISCO, lab: Tensor) -> None:
    stage = _colorizer_stage(small, anchoring=Anchoring(3, 5, "both")).train()
    before = {key: value.clone() for key, value in small.segnet.state_dict().items()}
    with seeded():
        for _ in range(3):
            loss, terms = stage(lab)
            loss.backward()
    assert set(terms) == {"anchors", "guided", "l1"}
    torch.testing.assert_close(sum(terms.values()), loss.detach())
    rest = {name for name, _ in small.named_parameters() if not name.startswith("segnet")}
    moved = {n for n, p in small.named_parameters() if p.grad is not None and bool(p.grad.any())}
    assert moved == rest
    for key, value in small.segnet.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_the_stage_between_trains_the_encoder_alone(small: DISCO, lab: Tensor) -> None:
    stage = BackboneStage(small, Distillation(load_features("efficientnet-lite0"), 51)).train()
    before = {key: value.clone() for key, value in small.state_dict().items()}
    weights = [p for p in stage.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(weights, 1e-3)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss, _ = stage(lab)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]
    changed = {key for key, value in small.state_dict().items() if not value.equal(before[key])}
    encoder = tuple(f"repnet.conv{n}" for n in ("1_2", "2_3", "3_3", "4_3", "5_3", "6_3", "7_3"))
    assert changed
    assert all(key.startswith(encoder) for key in changed)
    learned = set(stage.trained().state_dict()) - {f"network.{key}" for key in before}
    assert learned == {f"projections.{n}.{kind}" for n in (0, 1) for kind in ("weight", "bias")}


def test_what_is_told_completely_is_not_missed(lab: Tensor) -> None:
    term = Distillation(load_features("efficientnet-lite0"), 7)
    deepest = torch.randn(4, 7, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for projection in term.projections:
            projection.weight.zero_()
            projection.bias.zero_()
        # Telling nothing misses all of the variance, which std_mean divides by n - 1.
        assert float(term(lab, deepest)) == pytest.approx(1, abs=0.05)
        rgb = reference.lab_to_rgb(lab[:, :1], lab[:, 1:], False)
        layer = term.features.layers(rgb)[-2]
        deviation, mean = torch.std_mean(layer, dim=(0, 2, 3), keepdim=True)
        exact = Distillation(load_features("efficientnet-lite0"), layer.shape[1])
        told = (layer - mean) / (deviation + 1e-3)
        exact.projections[0].weight.copy_(torch.eye(layer.shape[1])[:, :, None, None])
        exact.projections[0].bias.zero_()
        exact.projections[1].weight.zero_()
        exact.projections[1].bias.zero_()
        # The other layer, 4 pictures of 2x2, is missed wholly.
        assert float(exact(lab, told)) == pytest.approx(15 / 16 / 2, abs=0.005)


def test_the_perceptual_term(lab: Tensor) -> None:
    term = Perceptual(load_features("efficientnet-lite0"))
    lightness, true = lab[:, :1], lab[:, 1:] / AB_SCALE
    assert float(term(lightness, true, true)) == 0
    wrong = (true * 0.5).requires_grad_(True)
    near, far = term(lightness, true * 0.9, true), term(lightness, wrong, true)
    assert 0 < float(near) < float(far)
    far.backward()
    assert bool(wrong.grad.isfinite().all())
    assert float((wrong.grad * (true - wrong)).sum()) < 0  # the way back makes it smaller


def test_anchors_carry_true_colors(lab: Tensor) -> None:
    """On true colors the guided result comes nearer to the truth than on false ones."""
    network = load_checkpoint(COMPACT)
    stage = _colorizer_stage(network, anchoring=Anchoring(cluster="feature")).eval()
    with torch.no_grad():
        with seeded():
            honest = stage(lab)[1]["l1"]
        generate = stage.network.generate
        stage.network.generate = lambda gray, superpixels, anchors, bins: generate(
            gray, superpixels, anchors, (bins + 150) % N_BINS
        )
        with seeded():
            assert float(stage(lab)[1]["l1"]) > 1.5 * float(honest)


def test_bf16_comes_near_fp32(lab: Tensor) -> None:
    network = load_checkpoint(COMPACT)
    with torch.no_grad():
        with seeded():
            wide = _colorizer_stage(network).eval()(lab)[0]
        with seeded():
            half = _colorizer_stage(network, autocast=("cpu", torch.bfloat16)).eval()(lab)[0]
    assert float(half) == pytest.approx(float(wide), rel=0.03)  # bf16 keeps 8 bits
    assert float(half) != float(wide)


def test_the_loss_is_the_same_on_the_published_ops(lab: Tensor) -> None:
    """The fused ops' values and gradients, against autograd through the specification."""
    found = []
    for source in (ops, reference):
        network = checkpoints.random_network(0.25)
        network.ops = source
        with seeded():
            loss, _ = _colorizer_stage(network).eval()(lab)
        loss.backward()
        found.append((loss.detach(), network.repnet.conv1_2[0].weight_orig.grad))
    # Two orders of summation in fp32.
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-5)


# ---- the trainer --------------------------------------------------------------------------------


def _trainer(folder: Path, photographs: Photographs, **changed) -> Trainer:
    settings = {"batch": 4, "epochs": 8, "learning_rate": 2e-3, "average": 0.9} | changed
    crops = Crops(photographs, 5, 64, 1.0, seed=0)
    stage = _colorizer_stage(random_network(), anchoring=Anchoring(3, 5, "both"))
    schedule = Schedule(**settings)
    return Trainer(stage, crops, 5, schedule, folder, {}, CPU, workers=0)


def test_the_learning_rate_rises_and_falls() -> None:
    schedule = Schedule(batch=4, epochs=10, learning_rate=2e-4, final_learning_rate=2e-6, warmup=9)
    steps = schedule.steps(39)
    assert steps == 98  # the last batch begins an eleventh round
    rates = [schedule.rate(step, steps) for step in range(steps)]
    assert rates[0] == pytest.approx(2e-5)
    assert rates[-1] == pytest.approx(2e-6)
    assert int(np.argmax(rates)) == 9
    slopes = np.diff(rates[10:])
    assert slopes == pytest.approx(slopes[0])
    assert slopes[0] < 0


def test_the_loss_falls(tmp_path: Path, photographs: Photographs) -> None:
    losses: list[dict[str, float]] = []
    trainer = _trainer(tmp_path, photographs, epochs=64, learning_rate=1e-3)
    assert trainer.run(report=losses.append)
    first, last = losses[0], losses[-1]
    assert last["loss"] < 0.7 * first["loss"]
    assert all(last[name] < first[name] for name in ("anchors", "guided", "l1"))
    result = load_checkpoint(tmp_path / "colorizer.safetensors")
    for key, value in trainer.average.state_dict().items():
        assert torch.equal(result.state_dict()[key], value), key
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["steps"] == "80 of 80"


def test_weight_decay_is_of_filters_alone(tmp_path: Path, photographs: Photographs) -> None:
    trainer = _trainer(tmp_path, photographs, epochs=1.6, learning_rate=1e-2, weight_decay=10.0)
    with torch.no_grad():
        for weight in trainer.stage.network.parameters():
            weight.fill_(1.0) if weight.ndim == 1 else weight.zero_().add_(1e-3)
    before = {name: w.clone() for name, w in trainer.stage.network.named_parameters()}
    trainer.stage.network.zero_grad()
    for weight in trainer.stage.network.parameters():
        weight.grad = torch.zeros_like(weight)  # so nothing moves but by the decay
    trainer._optimizer.step()
    for name, weight in trainer.stage.network.named_parameters():
        trained = weight.requires_grad and weight.ndim > 1
        rate = trainer._optimizer.param_groups[0]["lr"]
        wanted = before[name] * (1 - 10.0 * rate) if trained else before[name]
        torch.testing.assert_close(weight.detach(), wanted, msg=name)


def test_growing_activations_are_told(tmp_path: Path, photographs: Photographs) -> None:
    trainer = _trainer(tmp_path, photographs)
    variance = trainer.average.enhanceNet.get_buffer("up2.conv2.4.running_var")
    with torch.no_grad():
        variance[3] = 1e12
    with pytest.warns(UserWarning, match=r"before enhanceNet\.up2\.conv2\.4 are past"):
        trainer.run(lambda: True)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """See `ONE_THREAD`."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_a_stop_changes_nothing(tmp_path: Path, photographs: Photographs) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir(), parts.mkdir()
    through = _trainer(whole, photographs)
    assert through.run()
    stops = iter([False, False, True])
    assert not _trainer(parts, photographs).run(lambda: next(stops))
    with seeded(12345):  # another process's random state
        resumed = _trainer(parts, photographs)
        resumed.resume()
        assert resumed.step == 3
        assert resumed.run()
    for mine, theirs in ((through.stage.network, resumed.stage.network),
                         (through.average, resumed.average)):  # fmt: skip
        for key, value in mine.state_dict().items():
            assert torch.equal(value, theirs.state_dict()[key]), key


def test_only_the_same_training_goes_on(tmp_path: Path, photographs: Photographs) -> None:
    _trainer(tmp_path, photographs).run(lambda: True)
    with pytest.raises(ValueError, match=r"learning_rate was 0\.002, now 0\.001"):
        _trainer(tmp_path, photographs, learning_rate=1e-3).resume()


def test_a_foreign_state_is_refused_by_a_sentence(tmp_path: Path, photographs: Photographs) -> None:
    _trainer(tmp_path, photographs).run(lambda: True)
    path = tmp_path / STATE
    whole, state = path.read_bytes(), torch.load(path, weights_only=True)

    def changed(**entries: object) -> bytes:
        torch.save({**state, **entries}, path)
        return path.read_bytes()

    for content in (
        b"",
        b"garbage",
        whole[: len(whole) // 2],
        pickle.dumps(Path("elsewhere")),
        pickle.dumps([1, 2]),
        pickle.dumps({"identity": 3}),
        changed(trained={}),
        changed(optimizer={"state": {}, "param_groups": []}),
        changed(step=None),
        changed(average=None),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"is damaged, or no state .*begin anew"):
            _trainer(tmp_path, photographs).resume()
    path.write_bytes(whole)
    _trainer(tmp_path, photographs).resume()


def test_damaged_photographs_are_survived_wherever_they_lie(
    tmp_path: Path, photographs: Photographs
) -> None:
    for number in range(12):
        pixels = np.full((40, 40, 3), 20 * number, np.uint8)
        cv2.imwrite(str(tmp_path / f"{number:02}.png"), pixels)
    for number in (0, 5, 8, 10, 11):
        (tmp_path / f"{number:02}.png").write_bytes(b"damaged")
    found = Photographs(tmp_path)
    with pytest.warns(UserWarning, match=r"left out: .*11\.png"):
        last = _last(found)
    assert [int(pixels[0, 0, 0]) // 20 for pixels in last] == [1, 2, 3, 4, 6, 7, 9]
    with pytest.warns(UserWarning, match=r"left out: .*00\.png"):
        prior = color_prior(found, range(12))
    assert torch.equal(prior, color_prior(found, range(1, 5)))  # gray is gray
    for path in tmp_path.iterdir():
        path.write_bytes(b"damaged")
    for step in (lambda: _last(found), lambda: color_prior(found, range(12))):
        with (
            pytest.warns(UserWarning, match="left out"),
            pytest.raises(ImageFileError, match=r"none of .*12 photographs"),
        ):
            step()


def test_a_loss_that_is_not_finite_ends_it(tmp_path: Path, photographs: Photographs) -> None:
    trainer = _trainer(tmp_path, photographs, epochs=20, clip=0.0)
    trainer.run(lambda: True)
    saved = (tmp_path / STATE).read_bytes()
    with torch.no_grad():
        trainer.stage.network.mid_word_prj.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="not finite at step"):
        trainer.run()
    assert (tmp_path / STATE).read_bytes() == saved


_TWO_PROCESSES = """
import sys, hashlib
from pathlib import Path
import torch
from disco_fast.model import DISCO
from disco_fast.io.photographs import Photographs
from disco_fast.train.processes import join, leave
from disco_fast.train.stages import SPixNetStage
from disco_fast.train.stream import Crops
from disco_fast.train.trainer import Schedule, Trainer

class Settled(SPixNetStage):
    '''Batch statistics depend on how a batch is divided; without them nothing else does.'''
    def train(self, mode=True):
        return super().train(False)

processes = join("cpu")
torch.manual_seed(0)
photographs = Photographs(sys.argv[1])
crops = Crops(photographs, 5, 64, 0.6, seed=0)
schedule = Schedule(batch=4, epochs=4, learning_rate=1e-3)
trainer = Trainer(
    Settled(DISCO(width=0.1)), crops, 5, schedule, Path(sys.argv[2]), {}, processes, workers=0
)
assert trainer.run()
state = b"".join(v.numpy().tobytes() for v in trainer.stage.network.state_dict().values())
Path(sys.argv[2], f"digest-{processes.rank}").write_text(hashlib.sha256(state).hexdigest())
leave(processes)
"""


def test_two_processes_train_one_network(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(_TWO_PROCESSES)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    networks = []
    for launcher in ([], ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]):
        out = tmp_path / f"out{len(launcher)}"
        out.mkdir()
        command = [sys.executable, *launcher, str(script), str(PHOTOGRAPHS), str(out)]
        subprocess.run(command, check=True, env=environment, timeout=300)
        networks.append(load_checkpoint(out / "spixnet.safetensors"))
    digests = {(out / f"digest-{rank}").read_text() for rank in (0, 1)}
    assert len(digests) == 1
    start = random_network().state_dict()
    one, two = (network.state_dict() for network in networks)
    moved = [key for key in one if not torch.equal(one[key], start[key])]
    assert moved
    for key in moved:
        # Adam divides by the gradient's size, so rounding grows; a step is 1e-3.
        torch.testing.assert_close(one[key], two[key], rtol=0, atol=2e-4, msg=key)


# ---- the command --------------------------------------------------------------------------------

QUICK = ["--data", str(PHOTOGRAPHS), "--first", "5", "--size", "64", "--batch", "4",
         "--workers", "0", "--device", "cpu"]  # fmt: skip
COMMAND = [sys.executable, "-m", "disco_fast.cli", "train", "colorizer"]
# Several threads may add the parts of a convolution's gradient in another order in another process.
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
COLORIZER = [*QUICK, "--init", str(COMPACT), "--reconstruction", "l1"]


def _train(stage: str, *arguments: str) -> int:
    return main(["train", stage, *arguments])


def test_workers_read_beside_a_process_that_has_read(tmp_path: Path) -> None:
    """It has started libvips's threads, for the frequencies of colors."""
    rest = ["--workers", "1", "--epochs", "1", "--out", str(tmp_path / "out")]
    subprocess.run([*COMMAND, *COLORIZER, *rest], env=ONE_THREAD, check=True, timeout=300)


def test_every_stage_from_nothing(tmp_path: Path) -> None:
    first, between, second = (tmp_path / name for name in ("first", "between", "second"))
    assert _train("spixnet", *QUICK, "--epochs", "2", "--width", "0.1", "--out", str(first)) == 0
    init = str(first / "spixnet.safetensors")
    options = ["--precision", "bf16", "--epochs", "1", "--out", str(between)]
    assert _train("backbone", *QUICK, "--init", init, *options) == 0
    init = str(between / "backbone.safetensors")
    options = ["--reconstruction", "l1:3", "efficientnet-lite0", "--distill",
               "efficientnet-lite0:0.5", "--anchors", "3", "5", "--precision", "bf16"]  # fmt: skip
    out = ["--out", str(second), "--init", init, "--epochs", "2"]
    assert _train("colorizer", *QUICK, *options, *out) == 0
    card = json.loads((second / "card.json").read_text())
    assert card["reconstruction"] == [["l1", 3.0], ["efficientnet-lite0", 5.0]]
    assert card["distill"] == ["efficientnet-lite0", 0.5]
    assert card["photographs"] == 5
    assert str(tmp_path) not in json.dumps(card)
    result = load_checkpoint(second / "colorizer.safetensors")
    assert result.width == 0.1
    for key, value in load_checkpoint(init).segnet.state_dict().items():
        torch.testing.assert_close(result.segnet.state_dict()[key], value)
    assert list(second.glob("events.out.tfevents.*"))


@pytest.fixture
def long_run(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path, list[str]]]:
    """A training under way that has saved its state at least once."""
    out = tmp_path / "out"
    arguments = [*COLORIZER, "--epochs", "16", "--out", str(out)]
    command = [*COMMAND, *arguments, "--save-every", "0"]
    with subprocess.Popen(command, env=ONE_THREAD, text=True) as process:
        deadline = time.monotonic() + 120
        while not (out / STATE).exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield process, out, arguments
        process.kill()


@pytest.mark.thorough
def test_killed_and_resumed(long_run, tmp_path: Path) -> None:
    process, out, arguments = long_run
    process.kill()
    process.wait()
    done = torch.load(out / STATE, weights_only=True)["step"]
    assert 0 < done < 20
    through = tmp_path / "through"
    for rest in ([*arguments, "--resume"], [*arguments[:-1], str(through)]):
        subprocess.run([*COMMAND, *rest], env=ONE_THREAD, check=True, timeout=300)
    resumed, straight = (
        load_checkpoint(folder / "colorizer.safetensors") for folder in (out, through)
    )
    for key, value in straight.state_dict().items():
        assert torch.equal(resumed.state_dict()[key], value), key


def test_ctrl_c_saves_the_last_step(long_run) -> None:
    process, out, _ = long_run
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=120) == 130
    assert load_checkpoint(out / "colorizer.safetensors").width == 0.25
    assert not list(out.glob("*.part"))


def test_time_is_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*COLORIZER, "--epochs", "900", "--max-minutes", "0.001", "--out", str(tmp_path)]
    assert _train("colorizer", *arguments) == 0
    assert "stopped; --resume goes on; step 1 of 1125" in capsys.readouterr().out


def test_ranges_for_int8_go_with_the_weights_that_they_are_of(tmp_path: Path) -> None:
    assert load_checkpoint(COMPACT).ranges
    assert _train("colorizer", *COLORIZER, "--epochs", "1", "--out", str(tmp_path)) == 0
    assert load_checkpoint(tmp_path / "colorizer.safetensors").ranges is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resume"], "--resume: expected a training to go on with, but there is no"),
        (["--size", "40"], "--size: expected multiples of 16"),
        (["--hold-out", "7"], "--hold-out: expected fewer than the 7 photographs"),
        (["--anchors", "8", "3"], "--anchors: expected one number, or fewest and most"),
        (["--balance", "0"], r"--balance: expected lambda in \(0, 1\]"),
        (["--data", "/nowhere"], "there is no /nowhere"),
        (["--init", "/nowhere"], "checkpoint: no file /nowhere"),
    ],
)
def test_refusals(arguments, message, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert _train("colorizer", *COLORIZER, "--out", str(out), *arguments) != 0
    assert re.search(message, capsys.readouterr().err)
    assert not out.exists()


def test_later_stages_need_stage_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _train("colorizer", *QUICK, "--out", str(tmp_path / "out")) == 1
    assert "--init: expected the weights that stage 1 has trained" in capsys.readouterr().err


def test_the_metadata_says_how(tmp_path: Path, small: DISCO) -> None:
    save_checkpoint(small.eval(), tmp_path / "x.safetensors", notes={"card": "{}"})
    assert load_checkpoint(tmp_path / "x.safetensors").width == 0.1
