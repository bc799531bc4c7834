"""SP-Pooling, SP-Diffusion, superpixel sizes: every backend against the specification in fp64."""

from __future__ import annotations

import math
from types import ModuleType

import pytest
import torch
from cases import POOL_CASES, TOLERANCE, PoolCase
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from disco_fast import ops, reference

cases = pytest.mark.parametrize("case", POOL_CASES, ids=str)


def close(actual: Tensor, expected: Tensor, dtype: torch.dtype, scale: float = 1.0) -> None:
    tolerance = TOLERANCE[dtype] * scale
    torch.testing.assert_close(actual.double(), expected, rtol=0, atol=tolerance)


@cases
def test_sp_pool_matches_specification(backend: ModuleType, case: PoolCase):
    features, association, _ = case.tensors()
    pooled, weight = backend.sp_pool(features, association, case.cell)
    wide = features.double(), association.double()
    expected, expected_weight = reference.sp_pool(*wide, case.cell)
    sums_dtype = reference.wide_dtype(case.dtype)
    assert pooled.dtype == weight.dtype == sums_dtype
    close(pooled, expected, sums_dtype)
    close(weight, expected_weight, sums_dtype)


@cases
def test_sp_diffuse_matches_specification(backend: ModuleType, case: PoolCase):
    _, association, tokens = case.tensors()
    features = backend.sp_diffuse(tokens, association, case.cell)
    expected = reference.sp_diffuse(tokens.double(), association.double(), case.cell)
    assert features.dtype == case.dtype
    close(features, expected, case.dtype)


@cases
def test_sp_correlate_matches_specification(backend: ModuleType, case: PoolCase):
    features, _, tokens = case.tensors()
    op = torch.ops.disco_fast.sp_correlate if backend is ops else backend.sp_correlate
    offset = tokens[:, :1] * 3
    products = op(features, tokens, offset, case.cell)
    expected = reference.sp_correlate(
        features.double(), tokens.double(), offset.double(), case.cell
    )
    close(products, expected, case.dtype, scale=4 * math.sqrt(case.channels))


@cases
def test_superpixel_size_is_exact(backend: ModuleType, case: PoolCase):
    _, association, _ = case.tensors()
    size = backend.superpixel_size(association, case.cell)
    expected = reference.superpixel_size(association.double(), case.cell)
    torch.testing.assert_close(size.double(), expected, rtol=1e-6, atol=0)


@cases
def test_sp_pool_with_size_is_both(backend: ModuleType, case: PoolCase):
    features, association, _ = case.tensors()
    pooled, weight, size = backend.sp_pool_with_size(features, association, case.cell)
    alone = backend.sp_pool(features, association, case.cell)
    assert torch.equal(pooled, alone[0])
    assert torch.equal(weight, alone[1])
    assert torch.equal(size, backend.superpixel_size(association, case.cell))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("shape", [{}, {"channels": 5, "cell": 6}, {"channels": 130}])
def test_features_of_16_bits_meet_an_association_in_fp32(
    backend: ModuleType, dtype: torch.dtype, channels_last: bool, shape: dict
):
    case = PoolCase(**shape, channels_last=channels_last)
    features, association, _ = case.tensors()
    features = features.to(dtype)
    pooled, weight, size = backend.sp_pool_with_size(features, association, case.cell)
    alike = backend.sp_pool_with_size(features.float(), association, case.cell)
    assert pooled.dtype == weight.dtype == size.dtype == torch.float32
    close(pooled, reference.sp_pool(features.double(), association.double(), case.cell)[0], dtype)
    close(pooled, alike[0].double(), torch.float32)  # the wide features are the same numbers
    assert torch.equal(weight, alike[1])
    assert torch.equal(size, alike[2])


@pytest.mark.parametrize("channels", [1, 3, 8, 16])
@cases
def test_a_lead_stands_in_front_of_the_features(backend: ModuleType, case: PoolCase, channels: int):
    features, association, tokens = case.tensors()
    lead = features[:, -1:]
    joined = backend.sp_diffuse(tokens, association, case.cell, lead, channels)
    alone = backend.sp_diffuse(tokens, association, case.cell)
    assert joined.is_contiguous(memory_format=reference.layout_of(association))
    assert torch.equal(joined[:, :1], lead)
    assert not joined[:, 1:channels].any()
    # A lead decides whether tensor cores can be used, and so how sums are rounded.
    close(joined[:, channels:], alone.double(), association.dtype)


def brute_force_pool(features: Tensor, association: Tensor, cell: int) -> Tensor:
    """Equation 1 pixel by pixel, in Python."""
    n, channels, height, width = features.shape
    rows, columns = height // cell, width // cell
    sums = torch.zeros(n, channels, rows, columns, dtype=torch.float64)
    weight = torch.zeros(n, 1, rows, columns, dtype=torch.float64)
    for y in range(height):
        for x in range(width):
            for slot in range(9):
                row, column = y // cell + slot // 3 - 1, x // cell + slot % 3 - 1
                if 0 <= row < rows and 0 <= column < columns:
                    a = association[:, slot, y, x].double()
                    sums[:, :, row, column] += a[:, None] * features[:, :, y, x]
                    weight[:, 0, row, column] += a
    return sums / weight


def test_sp_pool_is_equation_1(backend: ModuleType):
    features, association, _ = PoolCase(channels=3, rows=3, columns=2, cell=4).tensors()
    pooled, _ = backend.sp_pool(features, association, 4)
    close(pooled, brute_force_pool(features, association, 4), torch.float32)


def test_sp_diffuse_is_adjoint_to_the_weighted_sum(backend: ModuleType):
    features, association, tokens = PoolCase(dtype=torch.float64).tensors()
    sums, _ = reference.sp_aggregate(features, association, 16)
    left = (backend.sp_diffuse(tokens, association, 16) * features).sum()
    torch.testing.assert_close(left, (tokens * sums).sum() * 16**2)


def test_constant_features_stay_constant(backend: ModuleType):
    _, association, tokens = PoolCase().tensors()
    constant = torch.full_like(association[:, :5], 2.5)
    pooled, weight = backend.sp_pool(constant, association, 16)
    torch.testing.assert_close(pooled, torch.full_like(pooled, 2.5))
    # Weights that lie outside the grid are dropped, the others sum to the area.
    inside = backend.sp_diffuse(torch.ones_like(tokens[:, :1]), association, 16)
    torch.testing.assert_close(weight.sum() * 16**2, inside.sum())


def test_superpixel_nobody_wants_is_zero(backend: ModuleType):
    association = torch.zeros(1, 9, 16, 32)
    association[:, 4, :, :16] = 1  # the right-hand cell's pixels join the left-hand superpixel
    association[:, 3, :, 16:] = 1
    pooled, weight = backend.sp_pool(torch.ones(1, 2, 16, 32), association, 16)
    assert pooled[..., 1].eq(0).all()
    assert weight.flatten().tolist() == [2, 0]
    assert backend.superpixel_size(association, 16).flatten().tolist() == [2, 0]


def test_nan_of_candidates_outside_the_grid_is_ignored(backend: ModuleType):
    features, association, tokens = PoolCase(rows=2, columns=2).tensors()
    poisoned = association.clone()
    poisoned[:, :3, :16] = poisoned[:, 6:, 16:] = float("nan")
    poisoned[:, ::3, :, :16] = poisoned[:, 2::3, :, 16:] = float("nan")
    for op, first in ((backend.sp_pool, features), (backend.sp_diffuse, tokens)):
        clean, dirty = op(first, association, 16), op(first, poisoned, 16)
        torch.testing.assert_close(dirty, clean, rtol=0, atol=0)


def test_pixels_with_a_nan_join_nobody(backend: ModuleType):
    association = torch.zeros(1, 9, 16, 16)
    association[:, 4, :, :10] = 1
    association[:, 4, 3, 5:7] = float("inf")
    association[:, 0, 1, 2] = association[:, 4, 8, 9] = float("nan")
    # 160 pixels say 4; elsewhere all nine tie, and the cell itself is one of them.
    assert backend.superpixel_size(association, 16).item() == (256 - 2) / 256


def test_two_runs_and_any_batch_give_the_same_bits(backend: ModuleType):
    features, association, tokens = PoolCase(images=5).tensors()
    pooled = backend.sp_pool(features, association, 16)[0]
    spread = backend.sp_diffuse(tokens, association, 16)
    assert torch.equal(pooled, backend.sp_pool(features, association, 16)[0])
    assert torch.equal(pooled[3:4], backend.sp_pool(features[3:4], association[3:4], 16)[0])
    assert torch.equal(spread[3:4], backend.sp_diffuse(tokens[3:4], association[3:4], 16))


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_change_nothing(threads: int):
    features, association, tokens = PoolCase().tensors()
    expected = ops.sp_pool(features, association, 16)[0], ops.sp_diffuse(tokens, association, 16)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        actual = ops.sp_pool(features, association, 16)[0], ops.sp_diffuse(tokens, association, 16)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


def test_any_strides_are_read(backend: ModuleType):
    features, association, tokens = PoolCase().tensors()
    views = [
        t.transpose(2, 3).contiguous().transpose(2, 3) for t in (features, association, tokens)
    ]
    pooled, _ = backend.sp_pool(views[0], views[1], 16)
    close(pooled, reference.sp_pool(features.double(), association.double(), 16)[0], torch.float32)
    spread = backend.sp_diffuse(views[2], association[:1].expand(2, -1, -1, -1), 16)
    expected = reference.sp_diffuse(tokens.double(), association[[0, 0]].double(), 16)
    close(spread, expected, torch.float32)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # it holds no state of an example
)
@given(
    images=st.integers(1, 3),
    channels=st.integers(1, 40),
    rows=st.integers(1, 4),
    columns=st.integers(1, 4),
    cell=st.integers(1, 17),
    channels_last=st.booleans(),
    association=st.sampled_from(["soft", "one-hot", "uniform", "ties", "denormal"]),
)
def test_any_shape(device: torch.device, **shape):
    case = PoolCase(**shape)
    features, association, tokens = (t.to(device) for t in case.tensors())
    pooled, weight = ops.sp_pool(features, association, case.cell)
    expected, expected_weight = reference.sp_pool(
        features.double(), association.double(), case.cell
    )
    wanted = expected_weight > 1e-6  # below, the quotient amplifies the rounding of its parts
    close(torch.where(wanted, pooled, 0), torch.where(wanted, expected, 0), torch.float32)
    close(weight, expected_weight, torch.float32)
    spread = ops.sp_diffuse(tokens, association, case.cell)
    expected = reference.sp_diffuse(tokens.double(), association.double(), case.cell)
    close(spread, expected, torch.float32)


def far_apart(shape: tuple[int, ...], channel_stride: int) -> Tensor:
    """Zeros whose channels lie that many elements apart; untouched memory costs nothing."""
    n, channels, height, width = shape
    room = torch.empty((channels - 1) * channel_stride + n * height * width, dtype=torch.float16)
    view = room.as_strided(shape, (height * width, channel_stride, width, 1))
    return view.zero_()


def test_tensors_of_more_than_two_billion_elements(emulated_gpu: ModuleType):
    features, association, tokens = PoolCase(
        images=1, channels=4, rows=1, columns=1, dtype=torch.float16
    ).tensors()
    wide = far_apart(tuple(features.shape), 2**30 + 8)
    wide.copy_(features)
    expected = emulated_gpu.sp_pool(features, association, 16)[0]
    assert torch.equal(emulated_gpu.sp_pool(wide, association, 16)[0], expected)
    correlate = torch.ops.disco_fast.sp_correlate
    expected = correlate(features, tokens, None, 16)
    assert torch.equal(correlate(wide, tokens, None, 16), expected)
    distant = far_apart(tuple(association.shape), 2**28 + 8)
    distant.copy_(association)
    expected = emulated_gpu.sp_diffuse(tokens, association, 16)
    assert torch.equal(emulated_gpu.sp_diffuse(tokens, distant, 16), expected)


def small(device: torch.device, **changes) -> tuple[Tensor, ...]:
    """The tensors of a small case in fp64, with gradients."""
    case = PoolCase(
        **{"images": 1, "channels": 2, "rows": 2, "columns": 2, "cell": 2} | changes,
        dtype=torch.float64,
    )
    return tuple(t.to(device).requires_grad_() for t in case.tensors())


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("op", ["sp_pool", "sp_pool_with_size"])
def test_gradients_of_sp_pool(device: torch.device, op: str, channels_last: bool):
    features, association, _ = small(device, channels=4, cell=4, channels_last=channels_last)
    assert torch.autograd.gradcheck(
        lambda f, a: getattr(ops, op)(f, a, 4)[:2], (features, association), fast_mode=True
    )


@pytest.mark.parametrize("shape", [{}, {"rows": 1, "columns": 3}, {"channels": 5}])
def test_gradients_of_sp_diffuse(device: torch.device, shape: dict):
    features, association, tokens = small(device, **shape)
    assert torch.autograd.gradcheck(lambda t, a: ops.sp_diffuse(t, a, 2), (tokens, association))
    lead = features.detach()[:, :1].requires_grad_()
    arguments = tokens, association, lead
    for channels in (1, 4):
        assert torch.autograd.gradcheck(
            lambda t, a, e, channels=channels: ops.sp_diffuse(t, a, 2, e, channels), arguments
        )


@pytest.mark.parametrize("channels_last", [False, True])
def test_gradients_match_those_of_the_specification(device: torch.device, channels_last: bool):
    gradients = []
    for namespace in (ops, reference):
        tensors = PoolCase(channels_last=channels_last).tensors()
        features, association, tokens = (t.to(device).requires_grad_() for t in tensors)
        pooled, weight = namespace.sp_pool(features, association, 16)
        spread = namespace.sp_diffuse(tokens + pooled, association, 16)
        (spread.square().mean() + weight.square().mean()).backward()
        gradients.append((features.grad, association.grad, tokens.grad))
    for actual, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-7)


def test_gradients_of_features_of_16_bits(device: torch.device):
    tensors = PoolCase().tensors()
    gradients = []
    for dtype in (torch.bfloat16, torch.float32):
        features = tensors[0].bfloat16().to(device, dtype).requires_grad_()
        association = tensors[1].to(device).requires_grad_()
        pooled, weight = ops.sp_pool(features, association, 16)
        (pooled.square().mean() + weight.square().mean()).backward()
        assert features.grad.dtype == dtype
        gradients.append((features.grad.float(), association.grad))
    # The features' gradient is rounded to the 8 bits of bf16.
    torch.testing.assert_close(gradients[0][0], gradients[1][0], rtol=2**-8, atol=1e-9)
    torch.testing.assert_close(gradients[0][1], gradients[1][1], rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("channels_last", [False, True])
def test_opcheck(channels_last: bool):
    case = PoolCase(channels=3, cell=8, channels_last=channels_last)
    features, association, tokens = case.tensors()
    offset = tokens[:, :1].contiguous()
    library = torch.ops.disco_fast
    torch.library.opcheck(library.sp_aggregate.default, (features, association, 8))
    torch.library.opcheck(library.superpixel_size.default, (association, 8))
    torch.library.opcheck(library.sp_correlate.default, (features, tokens, offset, 8))
    torch.library.opcheck(library.sp_correlate.default, (features, tokens, None, 8))
    features.requires_grad_(), association.requires_grad_(), tokens.requires_grad_()
    torch.library.opcheck(library.sp_pool.default, (features, association, 8))
    torch.library.opcheck(library.sp_pool_with_size.default, (features, association, 8))
    torch.library.opcheck(library.sp_diffuse.default, (tokens, association, 8))
    lead = features.detach()[:, :1]
    torch.library.opcheck(library.sp_diffuse.default, (tokens, association, 8, lead, 4))


def test_what_is_not_differentiable_detaches_or_raises():
    features, association, _ = small(torch.device("cpu"))
    assert not ops.sp_pool_with_size(features, association, 2)[2].requires_grad
    assert not ops.superpixel_size(association, 2).requires_grad
    (grad,) = torch.autograd.grad(
        ops.sp_pool(features, association, 2)[0].sum(), association, create_graph=True
    )
    with pytest.raises(RuntimeError):
        grad.sum().backward()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cell": 0}, "cell_size of at least 1, got 0"),
        ({"cell": 7}, "multiples of cell_size=7"),
        ({"association": torch.ones(2, 8, 32, 32)}, r"association \[N,9,H,W\]"),
        ({"association": torch.ones(3, 9, 32, 32)}, "features"),
        ({"association": torch.ones(2, 9, 32, 32).double()}, "features in torch.float64"),
        ({"features": torch.ones(2, 4, 32, 16)}, r"got \(2, 4, 32, 16\)"),
        ({"features": torch.ones(2, 0, 32, 32)}, r"got \(2, 0, 32, 32\)"),
        ({"features": torch.zeros(2, 4, 32, 32, dtype=torch.int32)}, "features floating"),
    ],
)
def test_errors_name_the_argument(change: dict, message: str):
    arguments = {
        "features": torch.ones(2, 4, 32, 32),
        "association": torch.ones(2, 9, 32, 32),
        "cell": 16,
    } | change
    with pytest.raises(ValueError, match=message):
        ops.sp_pool(*arguments.values())


def test_wrong_types_are_refused():
    with pytest.raises(TypeError, match="features must be a tensor, got str"):
        ops.sp_pool("x", torch.ones(1, 9, 16, 16), 16)
    with pytest.raises(ValueError, match=r"tokens \[N,C,h,w\]"):
        ops.sp_diffuse(torch.ones(1, 4, 2, 2), torch.ones(1, 9, 16, 16), 16)
    tokens, association = torch.ones(1, 4, 1, 1), torch.ones(1, 9, 16, 16)
    with pytest.raises(ValueError, match=r"lead \[N,1,H,W\].*got \(1, 2, 16, 16\)"):
        ops.sp_diffuse(tokens, association, 16, torch.ones(1, 2, 16, 16))
    with pytest.raises(ValueError, match=r"lead_channels at least 1, got 0"):
        ops.sp_diffuse(tokens, association, 16, torch.ones(1, 1, 16, 16), 0)
    with pytest.raises(ValueError, match=r"lead in torch.float32 .*got torch.float64"):
        ops.sp_diffuse(tokens, association, 16, torch.ones(1, 1, 16, 16).double())


def test_kernels_check_for_themselves(native: ModuleType):
    """Called past the wrapper, the library still refuses what would read outside a tensor."""
    with pytest.raises(RuntimeError, match="features must be"):
        torch.ops.disco_fast.sp_pool(torch.ones(1, 4, 16, 16), torch.ones(1, 9, 32, 32), 16)
    with pytest.raises(RuntimeError, match="tokens must be"):
        torch.ops.disco_fast.sp_diffuse(torch.ones(1, 4, 1, 1), torch.ones(1, 9, 32, 32), 16)


def test_no_images_are_no_launch(emulated_gpu: ModuleType):
    """The wrappers refuse them; exported programs come past the wrappers."""
    features, association, tokens = (t[:0] for t in PoolCase().tensors())
    pooled, weight = torch.ops.disco_fast.sp_pool(features, association, 16)
    assert (pooled.shape, weight.shape) == ((0, 64, 3, 4), (0, 1, 3, 4))
    assert torch.ops.disco_fast.sp_diffuse(tokens, association, 16).shape == (0, 64, 48, 64)
    assert torch.ops.disco_fast.rgb_to_l(features[:, :3]).shape == (0, 1, 48, 64)
