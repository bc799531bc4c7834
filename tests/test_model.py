"""The network module: keys, shapes, sizes, batches, errors."""

from __future__ import annotations

import pytest
import torch
from deterministic_weights import manifest, untrained

from disco_fast import DISCO
from disco_fast.checkpoints import random_network


@pytest.fixture(scope="module")
def compact() -> DISCO:
    return random_network(0.25)


def photograph(n: int = 1, height: int = 64, width: int = 96) -> torch.Tensor:
    """Smooth shapes, different in each image."""
    y = torch.linspace(0, 6, height)[:, None]
    x = torch.linspace(0, 9, width)[None]
    return torch.stack([((y + i).sin() * (x * (1 + 0.3 * i)).cos())[None] for i in range(n)])


@torch.no_grad()
def test_state_dict_is_official():
    state = untrained().state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == manifest()


def test_parameters_are_those_of_the_paper():
    network = untrained()

    def millions(*modules: torch.nn.Module) -> float:
        return round(sum(p.numel() for m in modules for p in m.parameters()) / 1e6, 2)

    assert millions(network) == 43.06
    assert millions(network.segnet, network.repnet) == 34.80
    assert millions(network.enhanceNet) == 7.60
    rest = (network.wildpath, network.hintpath, network.mid_word_prj)
    assert millions(*rest, network.trg_word_emb, network.trg_word_prj) == 0.66


def test_shapes(compact: DISCO):
    with torch.inference_mode():
        out = compact(photograph(2, 48, 80), n_anchors=5, variants=3)
    n, h, w, k, m = 2, 3, 5, 5, 6
    shapes = {
        "association": (n, 9, 48, 80), "pooled": (n, 64, h, w), "association_sum": (n, 1, h, w),
        "superpixel_size": (n, 1, h, w), "color_tokens": (n, 15, 64),
        "color_logits": (n, 313, h, w), "kmeans_labels": (n, 15), "kmeans_centers": (n, k, 64),
        "anchor_index": (n, k), "anchor_mask": (m, 1, h, w), "anchor_colors": (m, 2, h, w),
        "guided_tokens": (m, 15, 64), "guided_logits": (m, 313, h, w), "ab": (m, 2, 48, 80),
    }  # fmt: skip
    assert {name: tuple(value.shape) for name, value in vars(out).items()} == shapes
    torch.testing.assert_close(out.association.sum(1), torch.ones(n, 48, 80))
    assert out.ab.abs().max() <= 1


def test_variants_are_image_major(compact: DISCO):
    gray = photograph(2)
    with torch.inference_mode():
        together = compact(gray, n_anchors=4, variants=3)
        first, second = (compact(g[None], n_anchors=4, variants=3) for g in gray)
    torch.testing.assert_close(together.ab[:3], first.ab, rtol=0, atol=1e-3)
    torch.testing.assert_close(together.ab[3:], second.ab, rtol=0, atol=1e-3)
    assert not torch.equal(first.anchor_colors[0], first.anchor_colors[1])


def test_anchors_alone_are_those_in_a_batch(compact: DISCO):
    gray = photograph(4)
    with torch.inference_mode():
        batch = compact(gray)
        for i in range(4):
            alone = compact(gray[i : i + 1])
            assert torch.equal(alone.anchor_index[0], batch.anchor_index[i])
            torch.testing.assert_close(alone.ab[0], batch.ab[i], rtol=0, atol=1e-3)


def test_seed_moves_the_anchors_and_nothing_else_does(compact: DISCO):
    gray = photograph()
    with torch.inference_mode():
        outputs = [compact(gray, n_anchors=6, seed=seed) for seed in (0, 0, 1, 2, 3)]
    assert torch.equal(outputs[0].ab, outputs[1].ab)
    assert any(not torch.equal(outputs[0].anchor_index, o.anchor_index) for o in outputs[2:])


@pytest.mark.parametrize("cell_size", [8, 32])
def test_other_cell_sizes(cell_size: int):
    network = untrained(0.125, cell_size).eval()
    with torch.inference_mode():
        out = network(photograph(1, 64, 96), n_anchors=2)
    assert out.pooled.shape[2:] == (64 // cell_size, 96 // cell_size)
    assert out.ab.shape == (1, 2, 64, 96)


def test_gradients_reach_every_parameter():
    network = untrained(0.125).eval()
    out = network(photograph(2, 32, 32), n_anchors=2)
    (out.ab.square().sum() + out.color_logits.sum() + out.guided_logits.sum()).backward()
    without = [name for name, p in network.named_parameters() if p.grad is None]
    assert without == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda n: n(torch.zeros(1, 1, 60, 64)), "gray: expected .* multiples of 16, got"),
        (lambda n: n(torch.zeros(1, 3, 64, 64)), "gray: expected"),
        (lambda n: n(torch.zeros(0, 1, 64, 64)), "gray: expected"),
        (lambda n: n(torch.zeros(1, 1, 64, 64, dtype=torch.int64)), "gray: expected floating"),
        (lambda n: n(torch.zeros(1, 1, 32, 32)), r"n_anchors: expected 1\.\.4"),
        (lambda n: n(torch.zeros(1, 1, 64, 64), 0), "n_anchors: expected"),
        (lambda n: n(torch.zeros(1, 1, 64, 64), variants=4), r"variants: expected 1\.\.3"),
        (
            lambda n: n(torch.zeros(1, 1, 64, 64), 3, torch.zeros(1, 2, dtype=torch.int64)),
            r"kmeans_init: expected \[1,3\]",
        ),
        (lambda n: DISCO(0), "width"),
        (lambda n: DISCO(1, 12), "cell_size"),
    ],
)
def test_errors_name_the_argument(compact: DISCO, call, message: str):
    with pytest.raises(ValueError, match=message):
        call(compact)


def test_random_network_is_fixed_and_alive():
    first, second = (random_network(0.125) for _ in range(2))
    assert all(
        torch.equal(a, b)
        for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )
    with torch.inference_mode():
        out = first(photograph(1, 128, 128))
    assert 0.02 < out.ab.abs().mean() < 0.98
    assert out.anchor_index.unique().numel() > 4
