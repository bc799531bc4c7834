"""What only a real GPU can show: streams, graphs, the network. Elsewhere all of it is skipped."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from cases import ClusterCase, EncoderCase, PoolCase
from conftest import need_gpu
from deterministic_weights import golden_state, untrained
from test_golden import check, network, run, small_golden  # noqa: F401  (a fixture among them)
from torch import Tensor

from disco_fast import DISCO, ops
from disco_fast.checkpoints import random_network
from disco_fast.color import bin_centers
from disco_fast.engine.prepared import REWRITES, PreparedDISCO

# Pixels of a recorded picture whose two best candidates differ by less than 1e-6; fp32 errs by 2e-6
# there, in another way for each order of summation.
UNDECIDED = 2


@pytest.fixture(autouse=True)
def gpu() -> None:
    need_gpu()


def calls() -> Iterator[tuple[str, Tensor, Callable[[Tensor], tuple[Tensor, ...] | Tensor]]]:
    """(name, an input on the GPU, an op as a function of it), for every op."""
    features, association, tokens = (t.cuda() for t in PoolCase().tensors())
    points = ClusterCase().data().cuda()
    init = torch.arange(8, device="cuda").repeat(2, 1)
    labels = (torch.arange(256, device="cuda") % 8).repeat(2, 1)
    sizes = torch.linspace(0, 3, 512, device="cuda").view(2, 256)
    logits = torch.randn(2, 256, 313, generator=torch.Generator().manual_seed(0)).cuda()
    centers = bin_centers("cuda")
    lightness, ab = 50 + 20 * features[:, :1], 30 * features[:, 1:3]
    words, position, weights = (t.cuda() for t in EncoderCase().tensors())
    native = torch.ops.disco_fast
    yield "associate", association, ops.associate
    yield "sp_pool", features, lambda x: ops.sp_pool(x, association, 16)
    yield "sp_pool_with_size", association, lambda x: ops.sp_pool_with_size(features, x, 16)
    yield "sp_diffuse", tokens, lambda x: ops.sp_diffuse(x, association, 16, lightness)
    yield "sp_correlate", features, lambda x: native.sp_correlate(x, tokens, None, 16)
    yield "superpixel_size", association, lambda x: ops.superpixel_size(x, 16)
    yield "kmeans", points, lambda x: ops.kmeans(x, init)
    yield "kmeans_init", points, lambda x: ops.kmeans_init(x, 8)
    yield "select_anchors", sizes, lambda x: ops.select_anchors(labels, x, 8)
    yield "anchor_bins", logits, lambda x: ops.anchor_bins(x, init, centers, 3)
    yield "choose_anchors", logits, lambda x: ops.choose_anchors(labels, sizes, x, centers, 8, 3)
    offset = torch.linspace(-3, 3, 313, device=logits.device)
    yield (
        "choose_anchors read",
        logits,
        lambda x: ops.choose_anchors(labels, sizes, x, centers, 8, 3, offset, 0.38),
    )
    yield "encoder", words, lambda x: ops.encoder(x, position, weights)
    scale = torch.linspace(-1, 1, features.shape[1], device=features.device)
    residual = features.clone()
    yield "bias_act", features, lambda x: ops.bias_act(x, scale, residual, 0.1, scale, scale)
    half, kernel = features.bfloat16(), torch.ones(16, features.shape[1], 3, 3).cuda().bfloat16()
    yield "convolve", half, lambda x: ops.convolve(x, kernel / 64, None, None, 0.1)
    yield "rgb_to_l", lightness, lambda x: ops.rgb_to_l(x / 100)
    yield "lab_to_rgb", lightness, lambda x: ops.lab_to_rgb(x, ab, True)


def turned(argument: Tensor) -> Tensor:
    """Another argument, with which an op gives other results."""
    return argument.flip(*range(1, argument.dim())).contiguous()


def results(function: Callable, argument: Tensor) -> tuple[Tensor, ...]:
    found = function(argument)
    return (found,) if isinstance(found, Tensor) else found


def equal(actual: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


def test_cuda_graphs_hold_every_op():
    for name, argument, function in calls():
        other = turned(argument)
        expected = tuple(t.clone() for t in results(function, other))
        results(function, argument)  # nothing is left to be set up
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = results(function, argument)
        argument.copy_(other)
        graph.replay()
        torch.cuda.synchronize()
        assert equal(captured, expected), name


def test_cuda_ops_run_on_the_current_stream():
    """The argument arrives late, on the same stream: an op on another one would not wait for it."""
    for name, argument, function in calls():
        other = turned(argument)
        expected = results(function, other)
        torch.cuda.synchronize()
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            torch.cuda._sleep(20_000_000)  # cycles, some 10 ms
            argument.copy_(other)
            actual = results(function, argument)
        stream.synchronize()
        assert equal(actual, expected), name


def test_cuda_ops_never_wait_for_the_device():
    for name, argument, function in calls():
        results(function, argument)
        torch.cuda.synchronize()
        torch.cuda._sleep(200_000_000)  # some 100 ms
        results(function, argument)
        idle = torch.cuda.current_stream().query()
        torch.cuda.synchronize()
        assert not idle, name


def test_cuda_indices_out_of_range_harm_nobody():
    points = ClusterCase(points=5, dims=3, clusters=2).data().cuda()
    init = torch.tensor([[0, 10**12], [0, 1]], device="cuda")
    labels, centers, iterations = ops.kmeans(points, init)
    assert labels[0].eq(-1).all()
    assert iterations[0] == -1
    assert centers[0].isnan().all()
    assert equal(
        tuple(t[1:] for t in (labels, centers, iterations)), ops.kmeans(points[1:], init[1:])
    )


@pytest.mark.parametrize(("name", "variants"), [("square", 1), ("diverse", 3)])
def test_cuda_network_is_the_published_one(
    network: DISCO,  # noqa: F811
    name: str,
    variants: int,
    monkeypatch: pytest.MonkeyPatch,
):
    from data.make import SAMPLED

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    gray, golden = small_golden(name)
    network.cuda()
    try:
        output = run(network, gray, golden["kmeans_init"], variants)
        check(output, golden, SAMPLED, UNDECIDED)
    finally:
        network.cpu()


def test_cuda_copies_are_where_the_network_is():
    small = random_network(0.25).cuda()
    alike = small.alike(small.state_dict())
    assert {tensor.device.type for tensor in (*alike.parameters(), *alike.buffers())} == {"cuda"}


def test_cuda_encoders_of_the_network_at_once(monkeypatch: pytest.MonkeyPatch):
    from data.make import SAMPLED

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    gray, golden = small_golden("diverse")
    published = untrained()
    published.load_state_dict(golden_state(), strict=True)
    rewritten = PreparedDISCO(published, "fp32", "cuda", without=set(REWRITES) - {"encoders"})
    output = run(rewritten, gray, golden["kmeans_init"], 3)
    check(output, golden, SAMPLED, UNDECIDED)
