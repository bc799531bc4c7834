"""K-Means, its first centers, and the anchors, on every backend."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from cases import CLUSTER_CASES, ClusterCase
from torch import Tensor

from disco_fast import ops, reference
from disco_fast.color import bin_centers

cases = pytest.mark.parametrize("case", CLUSTER_CASES, ids=str)
methods = pytest.mark.parametrize("method", ops.SEEDINGS)


def distances(points: Tensor, centers: Tensor) -> Tensor:
    """[N,P,K] squared distances in fp64."""
    return torch.cdist(
        points.double(), centers.double(), compute_mode="donot_use_mm_for_euclid_dist"
    ).square()


@cases
def test_kmeans_matches_specification(backend: ModuleType, case: ClusterCase):
    points = case.data()
    init = reference.kmeans_init(points, case.clusters, 3, "random")
    labels, centers, iterations = backend.kmeans(points, init)
    expected = reference.kmeans(points.double(), init)
    assert torch.equal(labels, expected[0])
    assert torch.equal(iterations, expected[2])
    # Means of up to 4,096 values of order 1 in the points' precision.
    tolerance = 1e-5 if case.dtype == torch.float32 else 1e-13
    torch.testing.assert_close(centers.double(), expected[1], rtol=0, atol=tolerance)


def test_one_update_by_hand(backend: ModuleType):
    points = torch.tensor([[[0.0], [1.0], [9.0], [11.0]]])
    labels, centers, iterations = backend.kmeans(points, torch.tensor([[0, 3]]), max_iter=1)
    assert labels.tolist() == [[0, 0, 1, 1]]
    assert centers.flatten().tolist() == [0.5, 10.0]
    assert iterations.tolist() == [1]


def test_labels_come_from_before_the_last_update(backend: ModuleType):
    # 4 is nearer to 0 than to 9 at first; after the update the centers are 2 and 9.5.
    points = torch.tensor([[[0.0], [4.0], [9.0], [10.0]]])
    labels, _, iterations = backend.kmeans(points, torch.tensor([[0, 2]]))
    assert labels.tolist() == [[0, 0, 1, 1]]
    assert iterations.tolist() == [2]


def test_first_minimum_wins(backend: ModuleType):
    points = torch.tensor([[[0.0], [2.0], [1.0]]])
    labels, _, _ = backend.kmeans(points, torch.tensor([[0, 1]]), max_iter=1)
    assert labels.tolist() == [[0, 1, 0]]


def test_empty_clusters_take_the_farthest_points(backend: ModuleType):
    # Three centers on one spot: the second and third are empty; 9 lies farthest from its center,
    # then 5.
    points = torch.tensor([[[0.0], [0.0], [0.0], [5.0], [9.0]]])
    _, centers, _ = backend.kmeans(points, torch.tensor([[0, 1, 2]]), max_iter=1)
    assert centers.flatten().tolist() == pytest.approx([2.8, 9.0, 5.0])


def test_stops_at_max_iter_or_tolerance(backend: ModuleType):
    points = ClusterCase(images=3).data()
    init = reference.kmeans_init(points, 8, 0, "random")
    assert backend.kmeans(points, init, 4, -1.0)[2].tolist() == [4, 4, 4]
    assert backend.kmeans(points, init, 20, 1e30)[2].tolist() == [1, 1, 1]


@cases
def test_same_bits_alone_and_in_any_batch(backend: ModuleType, case: ClusterCase):
    points = case.data()
    init = backend.kmeans_init(points, case.clusters, 5, "k-means++")
    together = backend.kmeans(points, init)
    last = case.images - 1
    alone = backend.kmeans(points[last:], init[last:])
    assert all(torch.equal(a, b[last:]) for a, b in zip(alone, together, strict=True))
    alone_init = backend.kmeans_init(points[last:], case.clusters, 5, "k-means++")
    assert torch.equal(alone_init, init[last:])


@methods
@cases
def test_init_matches_specification(case: ClusterCase, method: str):
    points = case.data()
    for seed in (0, 1, -1, 2**40 + 3):
        init = ops.kmeans_init(points, case.clusters, seed, method)
        assert torch.equal(init, reference.kmeans_init(points, case.clusters, seed, method))


@methods
def test_init_picks_different_points(backend: ModuleType, method: str):
    points = ClusterCase(points=12, dims=2, clusters=12, kind="duplicates").data()
    init = backend.kmeans_init(points, 12, 9, method)
    assert init.sort(1)[0].tolist() == [list(range(12))] * 2


def test_random_init_is_uniform(backend: ModuleType):
    points = torch.zeros(1, 8, 1)
    picks = torch.stack([backend.kmeans_init(points, 2, s, "random")[0] for s in range(4000)])
    for column in picks.unbind(1):
        share = column.bincount(minlength=8) / 4000
        assert (share - 1 / 8).abs().max() < 0.025  # 4.8 standard deviations


def test_plus_plus_draws_in_proportion_to_squared_distance(backend: ModuleType):
    # From 0, the others lie at squared distances 1, 4 and 16.
    points = torch.tensor([[[0.0], [1.0], [2.0], [4.0]]])
    counts = torch.zeros(4)
    for seed in range(6000):
        first, second = backend.kmeans_init(points, 2, seed, "k-means++")[0].tolist()
        if first == 0:
            counts[second] += 1
    expected = torch.tensor([0.0, 1, 4, 16]) / 21
    assert (
        counts / counts.sum() - expected
    ).abs().max() < 0.05  # 1500 draws: 4 standard deviations


def test_plus_plus_starts_better_than_random():
    blobs = torch.randn(8, 1, 4, generator=torch.Generator().manual_seed(0)) * 20
    points = (blobs + torch.randn(8, 32, 4, generator=torch.Generator().manual_seed(1))).view(
        1, -1, 4
    )

    def cost(method: str) -> float:
        total = 0.0
        for seed in range(20):
            init = ops.kmeans_init(points, 8, seed, method)
            total += distances(points, ops.kmeans(points, init)[1]).amin(-1).sum().item()
        return total

    assert cost("k-means++") < 0.7 * cost("random")


def test_anchor_is_the_largest_superpixel(backend: ModuleType):
    labels = torch.tensor([[0, 0, 1, 1, 0]])
    sizes = torch.tensor([[1.0, 3.0, 0.5, 0.5, 3.0]])
    assert backend.select_anchors(labels, sizes, 2).tolist() == [[1, 2]]
    # An empty cluster's anchor is the largest superpixel of all, as in the published network.
    assert backend.select_anchors(labels, sizes, 3).tolist() == [[1, 2, 1]]


def test_anchors_match_specification():
    generator = torch.Generator().manual_seed(2)
    labels = torch.randint(0, 8, (5, 256), generator=generator)
    sizes = torch.randint(0, 600, (5, 256), generator=generator) / 256  # many ties
    expected = reference.select_anchors(labels, sizes, 8)
    assert torch.equal(ops.select_anchors(labels, sizes, 8), expected)


@pytest.mark.parametrize("variants", [1, 2, 3])
def test_anchor_bins_match_specification(variants: int):
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(3, 20, 313, generator=generator)
    anchors = torch.randint(0, 20, (3, 5), generator=generator)
    bins = ops.anchor_bins(logits, anchors, bin_centers("cpu"), variants)
    assert bins.shape == (3, variants, 5)
    assert torch.equal(bins, reference.anchor_bins(logits, anchors, bin_centers("cpu"), variants))
    rows = logits[torch.arange(3)[:, None], anchors]
    assert torch.equal(bins[:, 0], rows.argmax(-1))


def test_encoding_of_colors():
    centers = bin_centers("cpu")
    assert torch.equal(reference.encode_colors(centers, centers), torch.arange(313))
    moved = centers + torch.tensor([3.0, -4.0])
    assert torch.equal(reference.encode_colors(moved, centers)[100:110], torch.arange(100, 110))


def test_diverse_bins_lie_far_apart():
    ranked = torch.arange(10)[None, :, None] * 30  # ten bins from all over the plane
    ab = bin_centers("cpu")[ranked[0, :, 0]]
    first, second, third = reference.diverse_bins(ranked, bin_centers("cpu"), 3)[0, :, 0].tolist()
    far = torch.cdist(ab, ab)
    assert first == 0
    assert second == 30 * far[0].argmax()
    assert third == 30 * (far[0] + far[second // 30]).argmax()


def test_opcheck():
    points = ClusterCase(points=30, dims=4, clusters=3).data()
    init = ops.kmeans_init(points, 3)
    library = torch.ops.disco_fast
    torch.library.opcheck(library.kmeans.default, (points, init, 20, 1e-4))
    torch.library.opcheck(library.kmeans_init.default, (points, 3, 0, "k-means++"))
    labels, sizes = torch.zeros(2, 30, dtype=torch.int64), torch.ones(2, 30)
    torch.library.opcheck(library.select_anchors.default, (labels, sizes, 3))


@pytest.mark.parametrize(
    ("points", "init", "message"),
    [
        (torch.zeros(2, 5, 3), torch.zeros(2, 6, dtype=torch.int64), "1 <= K <= 5"),
        (torch.zeros(2, 5, 3), torch.zeros(1, 2, dtype=torch.int64), "N=2"),
        (torch.zeros(2, 5, 3), torch.zeros(2, 2), "init in int64"),
        (torch.zeros(2, 5), torch.zeros(2, 2, dtype=torch.int64), r"points \[N,P,D\]"),
        (torch.zeros(2, 0, 3), torch.zeros(2, 0, dtype=torch.int64), r"points \[N,P,D\]"),
        (torch.zeros(2, 5, 3).half(), torch.zeros(2, 2, dtype=torch.int64), "fp32 or fp64"),
    ],
)
def test_errors_name_the_argument(points: Tensor, init: Tensor, message: str):
    with pytest.raises(ValueError, match=message):
        ops.kmeans(points, init)


@pytest.mark.parametrize("index", [5, 99, -1])
def test_indices_out_of_range_are_refused(backend: ModuleType, index: int):
    with pytest.raises((RuntimeError, IndexError), match=rf"within 0\.\.4|{index} is out of"):
        backend.kmeans(torch.zeros(1, 5, 3), torch.full((1, 2), index))


def test_init_errors():
    points = torch.zeros(1, 5, 3)
    with pytest.raises(ValueError, match=r"n_clusters in 1\.\.5, got 6"):
        ops.kmeans_init(points, 6)
    with pytest.raises(ValueError, match="method one of"):
        ops.kmeans_init(points, 2, method="best")
