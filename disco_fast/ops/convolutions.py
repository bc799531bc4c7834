"""A convolution and what follows it, in one kernel or pass, and what comes before one in 8 bits."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .. import reference
from .checks import check_floating, refuse
from .schemas import define

define(
    reference.bias_act,
    "(Tensor x, Tensor? bias, Tensor? residual, float slope, Tensor? scale=None,"
    " Tensor? shift=None, Tensor? lead=None) -> Tensor",
)
define(
    reference.convolve,
    "(Tensor x, Tensor weight, Tensor? bias, Tensor? residual, float slope, Tensor? scale=None,"
    " Tensor? shift=None) -> Tensor",
)
define(
    reference.quantize,
    "(Tensor x, float slope, Tensor scale, Tensor shift, int padding, int zero) -> Tensor",
)


def bias_act(
    x: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    slope: float,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    lead: Tensor | None = None,
) -> Tensor:
    """What follows a convolution, in one pass; see `reference.bias_act`. No gradient.

    Args:
        x: [N,C,H,W], fp64, fp32, fp16 or bf16; planar and channels-last are read in place.
        bias: [C], fp64 for fp64 and otherwise fp32, added first; or None.
        residual: like x, added before the activation; or None.
        slope: what negative values are multiplied by, finite: 0 is a ReLU, 1 no activation.
        scale: [C] like the bias, of a batch norm behind the activation; or None.
        shift: [C] like the bias, added last; or None.
        lead: [N,L,H,W] in the dtype of x, put in front of the result as it is; or None.

    Returns:
        [N,L+C,H,W] in the dtype of x, channels-last where x is, otherwise planar.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """
    rows = {"bias": bias, "scale": scale, "shift": shift}
    given = {name: row for name, row in rows.items() if row is not None}
    maps = {"residual": residual, "lead": lead}
    others = {**given, **{name: other for name, other in maps.items() if other is not None}}
    check_floating("bias_act", x=x, **others)
    shape = tuple(x.shape)
    if len(shape) != 4 or min(shape) == 0:
        refuse("bias_act", "x [N,C,H,W], none of them 0", shape)
    _check_following("bias_act", shape, x.dtype, given, residual, slope)
    around = None if lead is None else (*lead.shape[:1], *lead.shape[2:])
    if lead is not None and (around != (shape[0], *shape[2:]) or lead.dtype != x.dtype):
        expected = f"lead [{shape[0]},L,{shape[2]},{shape[3]}] in {x.dtype} like x"
        refuse("bias_act", expected, _kind(lead))
    detached = {name: row.detach() for name, row in others.items()}
    return torch.ops.disco_fast.bias_act(
        x.detach(),
        detached.get("bias"),
        detached.get("residual"),
        slope,
        detached.get("scale"),
        detached.get("shift"),
        detached.get("lead"),
    )


@torch.library.register_fake("disco_fast::bias_act")
def _(
    x: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    slope: float,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    lead: Tensor | None = None,
) -> Tensor:
    images, channels, rows, columns = x.shape
    channels += 0 if lead is None else lead.shape[1]
    shape = (images, channels, rows, columns)
    layout = reference.layout_of(x)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout)


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    slope: float,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
) -> Tensor:
    """A 3x3 convolution and what follows it, in one kernel; see `reference.convolve`. No gradient.

    On CPU tensors the specification computes it: oneDNN has such convolutions itself.

    Args:
        x: [N,I,H,W], fp16 or bf16, I a multiple of 8; or fp32, I a multiple of 4, multiplied in
            TF32. Channels-last is read in place.
        weight: [O,I,3,3] in the dtype of x, O a multiple like I; channels-last is read in place.
        bias: [O] fp32, added first; or None.
        residual: [N,O,H,W] in the dtype of x, added before the activation; or None.
        slope: what negative values are multiplied by, finite: 0 is a ReLU, 1 no activation.
        scale: [O] fp32, of a batch norm behind the activation; or None.
        shift: [O] fp32, added last; or None.

    Returns:
        [N,O,H,W] in the dtype of x, channels-last.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
        RuntimeError: the GPU has no tensor cores for these types (compute capability below 8.0).
    """
    rows = {"bias": bias, "scale": scale, "shift": shift}
    given = {name: row for name, row in rows.items() if row is not None}
    others = {"weight": weight, **given, **({} if residual is None else {"residual": residual})}
    check_floating("convolve", x=x, **others)
    piece = 16 // x.element_size()  # channels in 16 bytes
    if x.dim() != 4 or 0 in x.shape or x.shape[1] % piece or x.dtype == torch.float64:
        expected = "x [N,I,H,W] in fp32, fp16 or bf16, I a multiple of 16 bytes, none of them 0"
        refuse("convolve", expected, _kind(x))
    outputs = len(weight) if weight.dim() else 0
    fits = tuple(weight.shape) == (outputs, x.shape[1], 3, 3) and outputs and outputs % piece == 0
    if not fits or weight.dtype != x.dtype:
        expected = f"weight [O,{x.shape[1]},3,3] in {x.dtype} like x, O a multiple of {piece}"
        refuse("convolve", expected, _kind(weight))
    shape = (x.shape[0], outputs, *x.shape[2:])
    _check_following("convolve", shape, x.dtype, given, residual, slope)
    detached = {name: other.detach() for name, other in others.items()}
    return torch.ops.disco_fast.convolve(
        x.detach(),
        detached["weight"],
        detached.get("bias"),
        detached.get("residual"),
        slope,
        detached.get("scale"),
        detached.get("shift"),
    )


@torch.library.register_fake("disco_fast::convolve")
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    slope: float,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
) -> Tensor:
    images, _, rows, columns = x.shape
    return torch.empty(
        (images, len(weight), rows, columns),
        dtype=x.dtype,
        device=x.device,
        memory_format=torch.channels_last,
    )


def quantize(
    x: Tensor, slope: float, scale: Tensor, shift: Tensor, padding: int, zero: int
) -> Tensor:
    """The bytes that a convolution in 8 bits takes; see `reference.quantize`. No gradient.

    On CUDA tensors the specification computes it: nothing there takes the result.

    Args:
        x: [N,C,H,W], fp32, fp16 or bf16.
        slope: what negative values are multiplied by, finite: 0 is a ReLU, 1 no activation.
        scale: [C] fp32, quantization steps in a unit.
        shift: [C] fp32, added last.
        padding: rows and columns of the border on each side, not negative.
        zero: the byte of the border, 0..255.

    Returns:
        [N,C,H+2*padding,W+2*padding] uint8, channels-last.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """
    check_floating("quantize", x=x, scale=scale, shift=shift)
    if x.dim() != 4 or 0 in x.shape or x.dtype == torch.float64:
        refuse("quantize", "x [N,C,H,W] in fp32, fp16 or bf16, none of them 0", _kind(x))
    for name, row in (("scale", scale), ("shift", shift)):
        if tuple(row.shape) != tuple(x.shape[1:2]) or row.dtype != torch.float32:
            refuse("quantize", f"{name} [{x.shape[1]}] in {torch.float32}", _kind(row))
    if not math.isfinite(slope):
        refuse("quantize", "slope finite", slope)
    if padding < 0:
        refuse("quantize", "padding not negative", padding)
    if not 0 <= zero <= 255:
        refuse("quantize", "zero in 0..255", zero)
    tensors = x.detach(), slope, scale.detach(), shift.detach()
    return torch.ops.disco_fast.quantize(*tensors, padding, zero)


def _check_following(
    op: str,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    rows: dict[str, Tensor],
    residual: Tensor | None,
    slope: float,
) -> None:
    """What follows a convolution fits its result, of this shape and dtype."""
    wide = reference.wide_dtype(dtype)
    for name, row in rows.items():
        if tuple(row.shape) != shape[1:2] or row.dtype != wide:
            refuse(op, f"{name} [{shape[1]}] in {wide}", _kind(row))
    if residual is not None and (tuple(residual.shape) != shape or residual.dtype != dtype):
        refuse(op, f"residual {list(shape)} in {dtype} like x", _kind(residual))
    if not math.isfinite(slope):
        refuse(op, "slope finite", slope)


def _kind(tensor: Tensor) -> tuple[tuple[int, ...], torch.dtype]:
    return tuple(tensor.shape), tensor.dtype


@torch.library.register_fake("disco_fast::quantize")
def _(x: Tensor, slope: float, scale: Tensor, shift: Tensor, padding: int, zero: int) -> Tensor:
    images, channels, rows, columns = x.shape
    return torch.empty(
        (images, channels, rows + 2 * padding, columns + 2 * padding),
        dtype=torch.uint8,
        device=x.device,
        memory_format=torch.channels_last,
    )
