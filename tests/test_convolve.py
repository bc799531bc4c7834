"""A convolution and what follows it in one kernel: against PyTorch's modules in fp64."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import emulated
import pytest
import torch
from torch import Tensor, nn

from disco_fast import ops
from disco_fast.engine.fused import has_convolve

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
# N, I, O, H, W: fewer inputs, outputs and pixels than a block takes at a time, as many, and more.
SHAPES = (
    (1, 8, 8, 3, 5),
    (2, 64, 64, 16, 16),
    (1, 72, 24, 9, 17),
    (1, 136, 72, 20, 7),
    (2, 40, 136, 17, 33),
    (1, 48, 16, 19, 18),
)
MANY, FEW = 1000, 1  # multiprocessors, so that small tiles are chosen, and large ones


def arguments(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, ...]:
    """x, weight, bias, residual, scale and shift; results of the order of 1, of either sign."""
    images, inputs, outputs, *sides = shape
    generator = torch.Generator().manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator)

    weight = (normal(outputs, inputs, 3, 3) / (9 * inputs) ** 0.5).to(dtype)
    maps = (normal(images, channels, *sides).to(dtype) for channels in (inputs, outputs))
    x, residual = (one.to(memory_format=torch.channels_last) for one in maps)
    return x, weight, normal(outputs), residual, normal(outputs), normal(outputs)


def rounded(x: Tensor) -> Tensor:
    """In fp64; of fp32 the nearest that has 11 bits, halves away from zero."""
    if x.dtype != torch.float32:
        return x.double()
    fraction, exponent = torch.frexp(x.double())
    return torch.ldexp((fraction.abs() * 2**11 + 0.5).floor() * fraction.sign(), exponent - 11)


def expected(
    x: Tensor, weight: Tensor, *rows: Tensor | None, residual: Tensor | None, module: nn.Module
) -> Tensor:
    """By the modules one after the other."""
    bias, scale, shift = (None if row is None else row.double()[:, None, None] for row in rows)
    value = torch.conv2d(rounded(x), rounded(weight), padding=1)
    value = value if bias is None else value + bias
    value = module(value if residual is None else value + residual)
    value = value if scale is None else value * scale
    return value if shift is None else value + shift


def check(found: Tensor, right: Tensor, dtype: torch.dtype) -> None:
    assert found.dtype == dtype
    assert found.is_contiguous(memory_format=torch.channels_last)
    # The result is rounded once. Before, a thousand products are added in fp32.
    half_a_unit = {torch.bfloat16: 2**-8, torch.float16: 2**-11}.get(dtype, 0)
    bounds = {"rtol": 1.001 * half_a_unit, "atol": 1e-5}
    torch.testing.assert_close(found.double(), right, **bounds)


@pytest.fixture(params=[MANY, FEW])
def tiles(request: pytest.FixtureRequest, backend: ModuleType) -> Iterator[None]:
    """Both sizes of tiles, on the emulated GPU; elsewhere one."""
    if backend is ops:
        with emulated.multiprocessors(request.param):
            yield
    elif request.param == MANY:
        yield
    else:
        pytest.skip("the size of tiles can be chosen on the emulated GPU only")


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_is_the_modules_one_after_the_other(
    backend: ModuleType, shape: tuple[int, ...], dtype: torch.dtype
):
    x, weight, bias, residual, scale, shift = arguments(shape, dtype)
    for slope, module in ((0.0, nn.ReLU()), (0.2, nn.LeakyReLU(0.2)), (1.0, nn.Identity())):
        whole = backend.convolve(x, weight, bias, residual, slope, scale, shift)
        right = expected(x, weight, bias, scale, shift, residual=residual, module=module)
        check(whole, right, dtype)
    alone = backend.convolve(x, weight, None, None, 0.1)
    right = expected(x, weight, None, None, None, residual=None, module=nn.LeakyReLU(0.1))
    check(alone, right, dtype)


@pytest.mark.parametrize("order", emulated.Order, ids=lambda order: order.name.lower())
@pytest.mark.parametrize("processors", [MANY, FEW])
def test_no_order_of_threads_and_copies_changes_a_bit(
    emulated_gpu: ModuleType, processors: int, order: emulated.Order
):
    x, weight, bias, residual, scale, shift = arguments(SHAPES[3], torch.bfloat16)
    rest = weight, bias, residual, 0.1, scale, shift
    with emulated.multiprocessors(processors):
        right = emulated_gpu.convolve(x, *rest)
        with emulated.thread_order(order):
            assert torch.equal(emulated_gpu.convolve(x, *rest), right)


def test_a_gpu_without_tensor_cores_is_told_from_one_that_has_them(emulated_gpu: ModuleType):
    assert has_convolve(torch.device("cpu"))
    with emulated.architecture(75):
        assert not has_convolve(torch.device("cpu"))
        with pytest.raises(RuntimeError, match=r"convolve: .*DISCO_FAST_CUDA_ARCHS"):
            emulated_gpu.convolve(HALF, WEIGHT, None, None, 0.0)


def test_any_layout_is_read(backend: ModuleType):
    x, weight, bias, residual, scale, shift = arguments(SHAPES[2], torch.float16)
    rest = bias, residual, 0.1, scale, shift
    right = backend.convolve(x, weight, *rest)
    other = backend.convolve(
        x.contiguous(),
        weight.to(memory_format=torch.channels_last),
        bias,
        residual.contiguous(),
        *rest[2:],
    )
    assert torch.equal(other, right)
    odd = torch.cat([x.new_zeros(3), x.permute(0, 2, 3, 1).flatten()])[3:]  # not at 16 bytes
    odd = odd.view(1, *x.shape[2:], -1).permute(0, 3, 1, 2)
    assert odd.data_ptr() % 16
    assert torch.equal(backend.convolve(odd, weight, *rest), right)


def test_it_passes_opcheck():
    x, weight, bias, residual, scale, shift = arguments(SHAPES[2], torch.bfloat16)
    op = torch.ops.disco_fast.convolve.default
    torch.library.opcheck(op, (x, weight, bias, residual, 0.1, scale, shift))
    torch.library.opcheck(op, (x, weight, None, None, 0.0, None, None))


HALF = torch.ones(1, 8, 2, 2, dtype=torch.float16)
WEIGHT = torch.ones(16, 8, 3, 3, dtype=torch.float16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": HALF[0]}, r"convolve: expected x \[N,I,H,W\]"),
        ({"x": HALF[:, :6]}, r"convolve: expected x \[N,I,H,W\] .* I a multiple of 16 bytes"),
        ({"x": HALF.double()}, r"convolve: expected x \[N,I,H,W\] in fp32, fp16 or bf16"),
        ({"x": HALF.float()}, r"convolve: expected weight \[O,8,3,3\] in torch.float32"),
        ({"x": HALF.to(torch.int64)}, "convolve: expected x floating"),
        ({"weight": WEIGHT[:, :4]}, r"convolve: expected weight \[O,8,3,3\]"),
        ({"weight": WEIGHT[:12]}, r"convolve: expected weight \[O,8,3,3\] .* O a multiple of 8"),
        ({"weight": WEIGHT.bfloat16()}, r"convolve: expected weight \[O,8,3,3\] in torch.float16"),
        ({"bias": torch.ones(8)}, r"convolve: expected bias \[16\] in torch.float32"),
        ({"shift": torch.ones(16).double()}, r"convolve: expected shift \[16\] in torch.float32"),
        ({"residual": HALF}, r"convolve: expected residual \[1, 16, 2, 2\]"),
        ({"slope": float("inf")}, "convolve: expected slope finite"),
    ],
)
def test_arguments_that_do_not_fit_are_named(change: dict[str, object], message: str):
    good = {"x": HALF, "weight": WEIGHT, "bias": None, "residual": None, "slope": 0.0}
    with pytest.raises(ValueError, match=message):
        ops.convolve(**{**good, **change})  # type: ignore[arg-type]
