"""Nothing is timed before it is right: disco_fast against the published path."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from disco_fast.engine.graphs import settled
from disco_fast.model import DISCOOutput

# Largest absolute difference in fp32; labels and anchors must be equal.
FP32_BOUNDS = {
    "association": 1e-5,
    "color_tokens": 2e-4,
    "kmeans_labels": 0,
    "anchor_index": 0,
    "guided_tokens": 2e-4,
    "ab": 1e-3,
}
# In a reduced precision only ab is compared, of the pictures whose anchors and colours came out
# equal, and by its mean difference in units of 110. The bound is a tenth of ab's own spread, so it
# tells a wrong result from a rounded one.
REDUCED_BOUND = 0.005

Forward = Callable[..., DISCOOutput]


class ValidationError(AssertionError):
    """disco_fast computes something else than the published path."""


def validate(
    published: Forward, fast: Forward, precision: str, gray: Tensor, init: Tensor
) -> dict[str, float]:
    """Compare both on the same pictures.

    Args:
        published: the published path.
        fast: what is about to be timed.
        precision: of `fast`; decides the bounds.
        gray: [N,1,H,W].
        init: [N,K] first centers for both.

    Returns:
        Largest differences by name; in a reduced precision of ab alone, and its mean, which is
        what the bound is for.

    Raises:
        ValidationError: a difference is above its bound.
    """
    with torch.inference_mode(), settled(gray.device):  # the published path without TF32 too
        expected, got = published(gray, kmeans_init=init), fast(gray, kmeans_init=init)
    return compare(expected, got, precision)


def compare(expected: DISCOOutput, got: DISCOOutput, precision: str) -> dict[str, float]:
    """As `validate`, of results that are there."""
    return _compare_fp32(expected, got) if precision == "fp32" else _compare_ab(expected, got)


def compare_chroma(expected: Tensor, got: Tensor) -> dict[str, float]:
    """As `validate` in fp32, of a rival that gives ab alone."""
    bound, worst = FP32_BOUNDS["ab"], _difference(expected, got).max().item()
    _require(worst <= bound, f"ab: differs by {worst:.3g}, allowed {bound}")
    return {"ab": worst}


def _difference(expected: Tensor, got: Tensor) -> Tensor:
    return (expected.double() - got.double()).abs()


def _compare_fp32(expected: DISCOOutput, got: DISCOOutput) -> dict[str, float]:
    found = {}
    for name, bound in FP32_BOUNDS.items():
        found[name] = _difference(getattr(expected, name), getattr(got, name)).max().item()
        _require(found[name] <= bound, f"{name}: differs by {found[name]:.3g}, allowed {bound}")
    return found


def _compare_ab(expected: DISCOOutput, got: DISCOOutput) -> dict[str, float]:
    alike = (_difference(expected.anchor_colors, got.anchor_colors).flatten(1) == 0).all(1)
    alike &= (expected.anchor_index == got.anchor_index).all(1)
    _require(bool(alike.any()), "no picture has the published path's anchors and colours")
    difference = _difference(expected.ab[alike], got.ab[alike])
    mean = difference.mean().item()
    _require(
        mean <= REDUCED_BOUND, f"ab: differs by {mean:.3g} on average, allowed {REDUCED_BOUND}"
    )
    return {
        "ab_mean": mean,
        "ab": difference.max().item(),
        "pictures_compared": int(alike.sum()),
    }


def _require(condition: bool, message: str) -> None:
    if not condition:  # a NaN fails every comparison, so it ends up here too
        raise ValidationError(f"validation: {message}")
