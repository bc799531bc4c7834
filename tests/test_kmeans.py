"""K-Means, its first centers, and the anchors, on every backend."""

from __future__ import annotations

from types import ModuleType

import emulated
import numpy as np
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


@pytest.mark.parametrize("kind", ["normal", "duplicates"])
def test_once_no_label_changes_no_center_does(backend: ModuleType, kind: str):
    points = ClusterCase(points=100, dims=9, clusters=6, kind=kind).data()
    init = reference.kmeans_init(points, 6, 0, "random")
    expected = reference.kmeans(points.double(), init, 60, 1e-30)
    assert expected[2].max() < 60
    labels, centers, iterations = backend.kmeans(points, init, 60, 1e-30)
    assert torch.equal(labels, expected[0])
    assert torch.equal(iterations, expected[2])
    # Nothing is below 0: then all updates are done, and change nothing.
    forced = backend.kmeans(points, init, 60, 0.0)
    assert torch.equal(forced[0], labels)
    assert torch.equal(forced[1], centers)
    assert forced[2].tolist() == [60, 60]


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
def test_init_matches_specification(backend: ModuleType, case: ClusterCase, method: str):
    points = case.data()
    for seed in (0, 1, -1, 2**40 + 3):
        init = backend.kmeans_init(points, case.clusters, seed, method)
        assert torch.equal(init, reference.kmeans_init(points, case.clusters, seed, method))


@methods
def test_init_picks_different_points(backend: ModuleType, method: str):
    points = ClusterCase(points=12, dims=2, clusters=12, kind="duplicates").data()
    init = backend.kmeans_init(points, 12, 9, method)
    assert init.sort(1)[0].tolist() == [list(range(12))] * 2


def test_random_init_is_uniform():
    points = torch.zeros(1, 8, 1)
    picks = torch.stack([reference.kmeans_init(points, 2, s, "random")[0] for s in range(4000)])
    for column in picks.unbind(1):
        share = column.bincount(minlength=8) / 4000
        assert (share - 1 / 8).abs().max() < 0.025  # 4.8 standard deviations


def test_plus_plus_draws_in_proportion_to_squared_distance():
    # From 0, the others lie at squared distances 1, 4 and 16.
    points = torch.tensor([[[0.0], [1.0], [2.0], [4.0]]])
    counts = torch.zeros(4)
    for seed in range(6000):
        first, second = reference.kmeans_init(points, 2, seed, "k-means++")[0].tolist()
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


def test_anchors_match_specification(backend: ModuleType):
    generator = torch.Generator().manual_seed(2)
    labels = torch.randint(0, 8, (5, 256), generator=generator)
    sizes = torch.randint(0, 600, (5, 256), generator=generator) / 256  # many ties
    expected = reference.select_anchors(labels, sizes, 8)
    assert torch.equal(backend.select_anchors(labels, sizes, 8), expected)


@pytest.mark.parametrize("variants", [1, 2, 3])
def test_anchor_bins_match_specification(backend: ModuleType, variants: int):
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(3, 20, 313, generator=generator)
    anchors = torch.randint(0, 20, (3, 5), generator=generator)
    bins = backend.anchor_bins(logits, anchors, bin_centers("cpu"), variants)
    assert bins.shape == (3, variants, 5)
    assert torch.equal(bins, reference.anchor_bins(logits, anchors, bin_centers("cpu"), variants))
    rows = logits[torch.arange(3)[:, None], anchors]
    assert torch.equal(bins[:, 0], rows.argmax(-1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("images", [1, 257])
def test_choosing_anchors_is_selecting_and_coloring(
    backend: ModuleType, images: int, dtype: torch.dtype
):
    generator = torch.Generator().manual_seed(6)
    labels = torch.randint(0, 5, (images, 12), generator=generator)
    sizes = (torch.randint(0, 40, (images, 12), generator=generator) / 16).to(dtype)
    logits = (3 * torch.randn(images, 12, 313, generator=generator)).to(dtype)
    centers = bin_centers("cpu")
    index, bins = backend.choose_anchors(labels, sizes, logits, centers, 5, 3)
    assert torch.equal(index, reference.select_anchors(labels, sizes, 5))
    assert torch.equal(bins, reference.anchor_bins(logits, index, centers, 3))


def test_of_colors_that_tie_the_first_wins(backend: ModuleType):
    centers = bin_centers("cpu")
    places = [tuple(center) for center in centers.int().tolist()]
    far = [places.index(place) for place in ((0, 20), (20, 0), (20, 40), (40, 20))]
    near = [places.index(p) for p in ((10, 10), (10, 20), (20, 10), (20, 30), (30, 20))]
    logits = torch.full((1, 1, 313), -9.0)
    logits[0, 0, places.index((20, 20))] = 9
    logits[0, 0, near] = 8
    logits[0, 0, far] = 7  # all equally far from the first, and equally probable
    bins = backend.anchor_bins(logits, torch.tensor([[0]]), centers, 3).flatten().tolist()
    assert bins == [places.index(place) for place in ((20, 20), (0, 20), (40, 20))]


def annealed(logits: Tensor, offset: Tensor | None, temperature: float) -> Tensor:
    """[...,313] to the bins nearest to the annealed means, in NumPy's fp64, from the definition."""
    centers = bin_centers("cpu").double().numpy()
    scores = (logits if offset is None else logits + offset).double().numpy() / temperature
    share = np.exp(scores - scores.max(-1, keepdims=True))
    mean = (share / share.sum(-1, keepdims=True)) @ centers
    distance = np.linalg.norm(mean[..., None, :] - centers, axis=-1)
    return torch.from_numpy(distance.argmin(-1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("temperature", [0.05, 0.38, 5.0])
def test_first_color_is_the_annealed_mean(
    backend: ModuleType, temperature: float, shifted: bool, dtype: torch.dtype
):
    generator = torch.Generator().manual_seed(21)
    logits = (2 * torch.randn(4, 30, 313, generator=generator)).to(dtype)
    offset = torch.randn(313, generator=generator).to(dtype) if shifted else None
    anchors = torch.randint(0, 30, (4, 9), generator=generator)
    centers = bin_centers("cpu")
    bins = backend.anchor_bins(logits, anchors, centers, 3, offset, temperature)
    rows = logits[torch.arange(4)[:, None], anchors]
    assert torch.equal(bins[:, 0], annealed(rows, offset, temperature))
    expected = reference.anchor_bins(logits, anchors, centers, 3, offset, temperature)
    assert torch.equal(bins, expected)
    labels = torch.arange(30).expand(4, -1) % 9
    sizes = torch.rand(4, 30, generator=generator).to(dtype)
    both = backend.choose_anchors(labels, sizes, logits, centers, 9, 3, offset, temperature)
    alone = backend.anchor_bins(logits, both[0], centers, 3, offset, temperature)
    assert torch.equal(both[1], alone)


def test_an_offset_without_annealing_moves_the_argmax(backend: ModuleType):
    generator = torch.Generator().manual_seed(22)
    logits = torch.randn(2, 6, 313, generator=generator)
    offset = 3 * torch.randn(313, generator=generator)
    anchors = torch.arange(6).expand(2, -1)
    bins = backend.anchor_bins(logits, anchors, bin_centers("cpu"), 3, offset)
    assert torch.equal(bins[:, 0], (logits + offset).argmax(-1))
    assert torch.equal(bins, backend.anchor_bins(logits + offset, anchors, bin_centers("cpu"), 3))


def test_unlike_colors_start_from_the_mean(backend: ModuleType):
    """The mean may be none of the ten most probable bins, from which the others are taken."""
    centers = bin_centers("cpu")
    places = [tuple(center) for center in centers.int().tolist()]
    near = [places.index((a, b)) for a in (0, 10, 20, 30) for b in (0, 10)]
    likely = [places.index(place) for place in ((-40, 0), (60, 0))]
    logits = torch.full((1, 1, 313), -60.0)
    logits[0, 0, near] = -30
    logits[0, 0, likely] = torch.tensor([5.0, 4.9])
    bins = backend.anchor_bins(logits, torch.tensor([[0]]), centers, 3, None, 1.0).flatten()
    first, second, third = (places[number] for number in bins.tolist())
    assert first == (10, 0)  # 0.525 of the one, 0.475 of the other: 7.5
    # From there 60 is as far as -40, which is ranked first; 60 is then the farthest from both.
    assert (second, third) == ((-40, 0), (60, 0))


def test_of_bins_equally_near_to_the_mean_the_first_wins(backend: ModuleType):
    centers = bin_centers("cpu")
    places = [tuple(center) for center in centers.int().tolist()]
    pairs = [((a, b), (a + 10, b)) for a in range(-20, 80, 10) for b in range(-40, 60, 10)]
    squares = [((0, 0), (10, 0), (0, 10), (10, 10)), ((20, -30), (20, -20), (30, -30), (30, -20))]
    for corners in (*pairs, *squares):
        numbers = [places.index(corner) for corner in corners]
        for height in (0.0, 3.3, -7.1):
            logits = torch.full((1, 1, 313), -200.0)
            logits[0, 0, numbers] = height
            bins = backend.anchor_bins(logits, torch.tensor([[0]]), centers, 1, None, 0.38)
            assert bins.item() == min(numbers)


@pytest.mark.parametrize("limit", [96 << 10, 10 << 10])
@pytest.mark.parametrize(
    "case",
    [
        ClusterCase(images=2, points=700),
        ClusterCase(images=1, points=90, dims=256, clusters=64),
        ClusterCase(points=60, dims=4, clusters=6, kind="duplicates"),
        ClusterCase(points=60, dtype=torch.float64),
    ],
    ids=str,
)
def test_little_shared_memory_changes_nothing(
    emulated_gpu: ModuleType, case: ClusterCase, limit: int
):
    """Points that do not fit are read again in tiles, centers live in L2."""
    points = case.data()
    init = reference.kmeans_init(points, case.clusters, 3, "random")
    expected = reference.kmeans(points.double(), init)
    with emulated.shared_memory(limit):
        labels, centers, iterations = emulated_gpu.kmeans(points, init)
    assert torch.equal(labels, expected[0])
    assert torch.equal(iterations, expected[2])
    torch.testing.assert_close(centers.double(), expected[1], rtol=0, atol=1e-5)


def test_what_never_fits_is_refused(emulated_gpu: ModuleType):
    points = torch.zeros(1, 4, 4096)
    with (
        emulated.shared_memory(8 << 10),
        pytest.raises(RuntimeError, match="4 points of 4096 dimensions and 2 clusters do not fit"),
    ):
        emulated_gpu.kmeans(points, torch.tensor([[0, 1]]))


@pytest.mark.parametrize(("points", "clusters"), [(140, 6), (168, 1), (88, 22)])
def test_static_shared_memory_counts_where_all_but_fits_without_asking(
    emulated_gpu: ModuleType, points: int, clusters: int
):
    """48 KB can be had without asking; these need a few hundred bytes less beside static ones."""
    data = ClusterCase(images=1, points=points, clusters=clusters).data()
    init = reference.kmeans_init(data, clusters, 3, "random")
    for size in range(0, 1024, 256):
        with emulated.static_shared_memory(size):
            labels, _, _ = emulated_gpu.kmeans(data, init)
        assert torch.equal(labels, reference.kmeans(data.double(), init)[0])


def test_shared_memory_is_asked_for_once(emulated_gpu: ModuleType):
    """What is allowed belongs to the kernel: another thread's launch must not take it back."""

    def cluster(points: int) -> None:
        data = ClusterCase(images=1, points=points).data()
        emulated_gpu.kmeans(data, torch.arange(8)[None], 1)

    sizes = (256, 700, 200, 300)  # some of them have a kernel of their own
    for points in sizes:
        cluster(points)
    before = emulated.library()._allowances()
    for points in sizes[::-1]:
        cluster(points)
    assert emulated.library()._allowances() == before


@pytest.mark.parametrize("order", emulated.Order)
def test_the_order_of_threads_changes_nothing(emulated_gpu: ModuleType, order: emulated.Order):
    points = ClusterCase(images=1, points=100, clusters=5).data()
    init = emulated_gpu.kmeans_init(points, 5, 1)
    expected = emulated_gpu.kmeans(points, init)
    with emulated.thread_order(order):
        assert torch.equal(emulated_gpu.kmeans_init(points, 5, 1), init)
        actual = emulated_gpu.kmeans(points, init)
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


def test_diverse_bins_lie_far_apart():
    ranked = torch.arange(10)[None, :, None] * 30  # ten bins from all over the plane
    ab = bin_centers("cpu")[ranked[0, :, 0]]
    bins = reference.diverse_bins(ranked[:, 0], ranked, bin_centers("cpu"), 3)
    first, second, third = bins[0, :, 0].tolist()
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
    logits, centers = torch.randn(2, 30, 313, generator=torch.Generator()), bin_centers("cpu")
    anchors = torch.zeros(2, 3, dtype=torch.int64)
    torch.library.opcheck(library.anchor_bins.default, (logits, anchors, centers, 2))
    torch.library.opcheck(library.choose_anchors.default, (labels, sizes, logits, centers, 3, 2))
    read = torch.randn(313, generator=torch.Generator()), 0.38
    torch.library.opcheck(library.anchor_bins.default, (logits, anchors, centers, 2, *read))
    chosen = (labels, sizes, logits, centers, 3, 2, *read)
    torch.library.opcheck(library.choose_anchors.default, chosen)


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
@pytest.mark.parametrize("namespace", [reference, ops], ids=["specification", "cpu"])
def test_indices_out_of_range_are_refused(namespace: ModuleType, index: int):
    with pytest.raises((RuntimeError, IndexError), match=rf"within 0\.\.4|{index} is out of"):
        namespace.kmeans(torch.zeros(1, 5, 3), torch.full((1, 2), index))


@pytest.mark.parametrize("index", [5, 99, -1])
def test_indices_out_of_range_are_marked_on_a_gpu(emulated_gpu: ModuleType, index: int):
    """There is nobody to throw without waiting; the other images are not touched."""
    points = ClusterCase(points=5, dims=3, clusters=2).data()
    init = torch.tensor([[0, index], [0, 1]])
    labels, centers, iterations = emulated_gpu.kmeans(points, init)
    assert labels[0].eq(-1).all()
    assert iterations[0] == -1
    assert centers[0].isnan().all()
    alone = emulated_gpu.kmeans(points[1:], init[1:])
    assert torch.equal(labels[1:], alone[0])


def test_init_errors():
    points = torch.zeros(1, 5, 3)
    with pytest.raises(ValueError, match=r"n_clusters in 1\.\.5, got 6"):
        ops.kmeans_init(points, 6)
    with pytest.raises(ValueError, match="method one of"):
        ops.kmeans_init(points, 2, method="best")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": torch.zeros(2, 6, 313)}, r"\(N,P\)=\(2, 5\)"),
        ({"logits": torch.zeros(2, 5, 313).double()}, r"in torch.float32"),
        ({"logits": torch.zeros(2, 5, 313).half()}, "logits in fp32 or fp64"),
        ({"logits": torch.zeros(2, 5, 300)}, r"bin_centers \[300,2\]"),
        ({"variants": 4}, r"variants in 1\.\.3, got 4"),
        ({"n_clusters": 0}, "n_clusters of at least 1, got 0"),
        ({"labels": torch.zeros(2, 5)}, "labels in int64"),
        ({"offset": torch.zeros(300)}, r"offset \[313\] in torch.float32"),
        ({"offset": torch.zeros(313).double()}, "offset .* got .*float64"),
        ({"temperature": -0.1}, "temperature of at least 0, got -0.1"),
        ({"temperature": float("nan")}, "temperature of at least 0, got nan"),
    ],
)
def test_errors_of_choosing_anchors(change: dict, message: str):
    arguments = {
        "labels": torch.zeros(2, 5, dtype=torch.int64),
        "sizes": torch.zeros(2, 5),
        "logits": torch.zeros(2, 5, 313),
        "bin_centers": bin_centers("cpu"),
        "n_clusters": 2,
        "variants": 1,
        "offset": None,
        "temperature": 0.0,
    } | change
    with pytest.raises(ValueError, match=message):
        ops.choose_anchors(*arguments.values())


def test_anchors_out_of_range_are_refused(native: ModuleType):
    logits, centers = torch.zeros(1, 5, 313), bin_centers("cpu")
    with pytest.raises(RuntimeError, match=r"within 0\.\.4, got 5"):
        native.anchor_bins(logits, torch.tensor([[0, 5]]), centers, 1)
    with pytest.raises(ValueError, match=r"anchor_index .* with N=1"):
        native.anchor_bins(logits, torch.zeros(2, 2, dtype=torch.int64), centers, 1)
