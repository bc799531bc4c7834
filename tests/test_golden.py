"""The network equals the published one: activations recorded from the official program."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch
from deterministic_weights import DATA, golden_state, untrained

from disco_fast import DISCO, DISCOOutput, drop_in, ops, reference
from disco_fast.color import normalize_lightness
from disco_fast.engine import Engine

FULL = Path(__file__).parents[2] / "shared" / "golden"

# Absolute. Recorded with the same torch, but on another processor, whose convolutions sum in
# another order; ab leaves 50 layers behind it: worst seen 2.3e-4.
TOLERANCE = {
    "association": 1e-5,
    "association_sum": 1e-5,
    "pooled": 2e-4,
    "color_tokens": 2e-4,
    "color_logits": 2e-4,
    "kmeans_centers": 2e-4,
    "guided_tokens": 2e-4,
    "guided_logits": 2e-4,
    "ab": 1e-3,
}
EXACT = ("kmeans_labels", "anchor_mask", "anchor_colors", "superpixel_size")


@pytest.fixture(scope="module")
def network() -> DISCO:
    network = untrained()
    network.load_state_dict(golden_state(), strict=True)
    return network.eval()


@pytest.fixture(params=["ops", "specification", "emulated"])
def namespace(request: pytest.FixtureRequest, network: DISCO):
    if request.param == "emulated":
        request.getfixturevalue("emulated_gpu")
    network.ops = reference if request.param == "specification" else ops
    yield network.ops
    del network.ops


def run(network: DISCO, gray: np.ndarray, init: np.ndarray, variants: int) -> DISCOOutput:
    device = next(network.parameters()).device
    with torch.inference_mode():
        return network(
            torch.from_numpy(gray).to(device),
            n_anchors=init.shape[1],
            kmeans_init=torch.from_numpy(init).to(device),
            variants=variants,
        )


def check(
    output: DISCOOutput,
    golden: dict[str, np.ndarray],
    windows: dict | None = None,
    undecided: int = 0,
) -> None:
    """Compare with what was recorded; so many pixels may join another superpixel."""
    windows = windows or {}
    for name in EXACT:
        actual = getattr(output, name).cpu().numpy()
        if name == "superpixel_size":
            # Who changes sides makes one of 256 pixels less here and one more there.
            moved = 128 * np.abs(actual - golden[name]).sum()
            assert moved <= undecided, f"{moved} pixels have joined another superpixel"
            continue
        # On a GPU torch divides by multiplying with the reciprocal.
        unit = 2**-23 if name == "anchor_colors" and output.ab.is_cuda else 0
        np.testing.assert_allclose(actual, golden[name], rtol=unit, atol=0, err_msg=name)
    for name in TOLERANCE.keys() & golden.keys():
        actual = getattr(output, name).cpu().numpy()[windows.get(name, ...)]
        difference = np.abs(actual - golden[name]).max()
        assert difference < TOLERANCE[name], f"{name} differs by {difference}"
    index = output.anchor_index.repeat_interleave(len(output.ab) // len(output.anchor_index), 0)
    mask = output.anchor_mask.flatten(1)
    assert mask.gather(1, index).eq(1).all()


def small_golden(name: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    with np.load(DATA / f"golden_{name}.npz") as file:
        golden = dict(file)
    photograph = cv2.imdecode(golden.pop("photograph_png"), cv2.IMREAD_COLOR_RGB)
    lab = cv2.cvtColor((photograph / 255).astype(np.float32), cv2.COLOR_RGB2LAB)
    return normalize_lightness(lab[None, None, ..., 0]), golden


@pytest.mark.parametrize(("name", "variants"), [("square", 1), ("diverse", 3)])
def test_small_golden(network: DISCO, namespace: ModuleType, name: str, variants: int):
    from data.make import SAMPLED

    gray, golden = small_golden(name)
    check(run(network, gray, golden["kmeans_init"], variants), golden, SAMPLED)


def test_pixels_that_change_sides_are_counted(network: DISCO):
    from data.make import SAMPLED

    gray, golden = small_golden("square")
    output = run(network, gray, golden["kmeans_init"], 1)
    size = output.superpixel_size.clone()
    size[0, 0, 0, :4] += torch.tensor([1, -1, -1, 1]) / 256
    moved = replace(output, superpixel_size=size)
    check(moved, golden, SAMPLED, undecided=2)
    with pytest.raises(AssertionError, match=r"2\.0 pixels have joined another superpixel"):
        check(moved, golden, SAMPLED, undecided=1)
    with pytest.raises(AssertionError, match="joined another superpixel"):
        check(moved, golden, SAMPLED)


@pytest.mark.skipif(not FULL.is_dir(), reason=f"no full golden activations at {FULL}")
@pytest.mark.parametrize(("name", "variants"), [("square", 1), ("batch_wide", 1), ("diverse", 3)])
def test_full_golden(network: DISCO, name: str, variants: int):
    with np.load(FULL / f"{name}.npz") as golden:
        check(run(network, golden["gray"], golden["kmeans_init"], variants), dict(golden))


def test_engine_in_fp32_is_the_published_network(network: DISCO):
    gray, golden = small_golden("square")
    init = torch.from_numpy(golden["kmeans_init"])
    prepared = Engine(network, "fp32")(torch.from_numpy(gray), kmeans_init=init)
    published = run(network, gray, golden["kmeans_init"], 1)
    torch.testing.assert_close(prepared.ab, published.ab, rtol=0, atol=1e-3)
    assert torch.equal(prepared.anchor_colors, published.anchor_colors)


@pytest.mark.parametrize(
    ("size", "anchors", "images", "variants"),
    [((64, 64), 3, 1, 1), ((96, 32), 6, 2, 2), ((48, 112), 16, 3, 1), ((16, 16), 1, 1, 3)],
)
def test_fused_ops_equal_the_published_steps(
    network: DISCO, size: tuple[int, int], anchors: int, images: int, variants: int
):
    """Other photographs, sizes, anchors and batches: fast against eager, stage by stage."""
    photographs = np.concatenate([small_golden(name)[0] for name in ("square", "diverse")])
    crops = [
        photographs[i % 2, :, 60 + 40 * i :, 90:][:, : size[0], : size[1]] for i in range(images)
    ]
    gray = np.stack(crops)
    count = size[0] * size[1] // 256
    generator = np.random.RandomState(5)
    init = np.stack([generator.choice(count, anchors, replace=False) for _ in range(images)])
    fast = run(network, gray, init, variants)
    network.ops = reference
    try:
        eager = run(network, gray, init, variants)
    finally:
        del network.ops
    golden = {name: getattr(eager, name).numpy() for name in (*EXACT, *TOLERANCE)}
    check(fast, golden)


def test_drop_in_functions_have_the_official_meaning(network: DISCO):
    """What the official program would call, on the recorded activations."""
    gray, golden = small_golden("square")
    output = run(network, gray, golden["kmeans_init"], 1)
    size = drop_in.get_spixel_size(output.association, 16, 16)
    np.testing.assert_array_equal(size.numpy(), golden["superpixel_size"])
    pooled, weight = drop_in.poolfeat(torch.ones(1, 2, 256, 256), output.association, 16, 16, True)
    torch.testing.assert_close(pooled, torch.ones_like(pooled))
    torch.testing.assert_close(weight, output.association_sum)
    spread = drop_in.upfeat(pooled, output.association, 16, 16)
    assert spread.shape == (1, 2, 256, 256)
    tokens = output.color_tokens.transpose(1, 2).unflatten(2, (16, 16))
    np.random.seed(130)
    member = drop_in.batch_kmeans_pytorch(tokens, 8, "euclidean", False)
    labels = member.flatten(2).argmax(1)
    np.testing.assert_array_equal(labels.numpy(), golden["kmeans_labels"])  # seed 130 was recorded
