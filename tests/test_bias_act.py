"""What follows a convolution in one pass: against PyTorch's own modules one after the other."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from disco_fast import ops, reference
from disco_fast.reference import wide_dtype

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
LAYOUTS = (torch.contiguous_format, torch.channels_last)
# Each with as many channels as make whole packs of 16 bytes, or not, and so for the pixels.
SHAPES = ((2, 24, 5, 7), (1, 3, 6, 8), (3, 5, 3, 3), (1, 72, 4, 4))


def arguments(shape: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format):
    """x, bias, residual, scale and shift; negative values as often as positive ones."""
    generator = torch.Generator().manual_seed(0)
    x, residual = (
        torch.randn(shape, generator=generator).to(dtype).to(memory_format=layout) for _ in range(2)
    )
    rows = (torch.randn(shape[1], generator=generator).to(wide_dtype(dtype)) for _ in range(3))
    bias, scale, shift = rows
    return x, bias, residual, scale, shift


def check(actual: Tensor, expected: Tensor, x: Tensor) -> None:
    assert actual.dtype == x.dtype
    assert actual.stride() == x.stride()
    torch.testing.assert_close(actual.double(), expected.double(), **tolerance(x.dtype))


def tolerance(dtype: torch.dtype) -> dict[str, float]:
    """Half a unit in the last place of the result, and what sums in another order differ by."""
    relative = {torch.bfloat16: 2**-8, torch.float16: 2**-11}.get(dtype, 1e-6)
    return {"rtol": relative, "atol": relative}


@pytest.mark.parametrize("layout", LAYOUTS, ids=["planar", "last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_is_the_modules_one_after_the_other(
    backend: ModuleType,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    layout: torch.memory_format,
):
    x, bias, residual, scale, shift = arguments(shape, dtype, layout)
    norm = nn.BatchNorm2d(shape[1]).double().eval()
    norm.weight.data, norm.bias.data = scale.double(), shift.double()
    norm.eps = 1e-300  # none: torch up to 2.11 refuses 0
    for slope, module in ((0.0, nn.ReLU()), (0.2, nn.LeakyReLU(0.2)), (1.0, nn.Identity())):
        summed = x.double() + bias.double()[:, None, None] + residual.double()
        check(backend.bias_act(x, bias, residual, slope, scale, shift), norm(module(summed)), x)
        check(backend.bias_act(x, None, None, slope), module(x.double()), x)
        alone = backend.bias_act(x, bias, None, slope, shift=shift)
        expected = module(x.double() + bias.double()[:, None, None])
        check(alone, expected + shift.double()[:, None, None], x)


@pytest.mark.parametrize("layout", LAYOUTS, ids=["planar", "last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("lead_channels", [1, 8, 40])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_lead_stands_in_front_as_it_is(
    backend: ModuleType,
    shape: tuple[int, ...],
    lead_channels: int,
    dtype: torch.dtype,
    layout: torch.memory_format,
):
    x, bias, residual, scale, shift = arguments(shape, dtype, layout)
    generator = torch.Generator().manual_seed(1)
    lead = torch.randn(shape[0], lead_channels, *shape[2:], generator=generator).to(dtype)
    alone = backend.bias_act(x, bias, residual, 0.1, scale, shift)
    for given in (lead, lead.to(memory_format=torch.channels_last)):
        found = backend.bias_act(x, bias, residual, 0.1, scale, shift, given)
        assert torch.equal(found, torch.cat([lead, alone], dim=1))
        assert found.is_contiguous(memory_format=layout)


def test_a_relu_ends_infinity_and_keeps_nan(backend: ModuleType):
    x = torch.tensor([-torch.inf, torch.nan, torch.inf, -0.5]).view(1, 1, 2, 2)
    actual = backend.bias_act(x, None, None, 0.0).flatten()
    torch.testing.assert_close(actual, torch.relu(x).flatten(), equal_nan=True, rtol=0, atol=0)


def test_other_strides_are_read_too(backend: ModuleType):
    x, bias, residual, *_ = arguments((2, 8, 6, 8), torch.float32, torch.contiguous_format)
    cut, other = x[:, :, 1:5, ::2], residual.to(memory_format=torch.channels_last)[:, :, 1:5, ::2]
    expected = reference.bias_act(cut.contiguous(), bias, other.contiguous(), 0.1)
    torch.testing.assert_close(backend.bias_act(cut, bias, other, 0.1), expected)


@pytest.mark.parametrize("layout", LAYOUTS, ids=["planar", "last"])
def test_bias_act_passes_opcheck(native: ModuleType, layout: torch.memory_format):
    x, bias, residual, scale, shift = arguments((2, 24, 4, 4), torch.bfloat16, layout)
    op = torch.ops.disco_fast.bias_act.default
    torch.library.opcheck(op, (x, bias, residual, 0.1, scale, shift))
    torch.library.opcheck(op, (x, bias, None, 0.1, None, None, residual[:, :8]))
    torch.library.opcheck(op, (x, None, None, 0.0, None, None))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.ones(3, 4)}, r"bias_act: expected x \[N,C,H,W\]"),
        ({"x": torch.ones(1, 3, 2, 2, dtype=torch.int64)}, "bias_act: expected x floating"),
        ({"bias": torch.ones(4)}, r"bias_act: expected bias \[3\]"),
        ({"scale": torch.ones(3, dtype=torch.float64)}, r"bias_act: expected scale \[3\]"),
        ({"residual": torch.ones(1, 3, 2, 1)}, r"bias_act: expected residual \[1, 3, 2, 2\]"),
        ({"lead": torch.ones(1, 3, 2, 1)}, r"bias_act: expected lead \[1,L,2,2\]"),
        ({"lead": torch.ones(1, 4, 2, 2).double()}, r"bias_act: expected lead \[1,L,2,2\]"),
        ({"slope": float("nan")}, "bias_act: expected slope finite"),
    ],
)
def test_arguments_that_do_not_fit_are_named(change: dict[str, object], message: str):
    good = {"x": torch.ones(1, 3, 2, 2), "bias": None, "residual": None, "slope": 0.0}
    with pytest.raises(ValueError, match=message):
        ops.bias_act(**{**good, **change})  # type: ignore[arg-type]
