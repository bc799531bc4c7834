"""Color conversion and the color bins."""

from __future__ import annotations

from types import ModuleType

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from disco_fast import ops, reference
from disco_fast.color import bin_centers, rgb_to_lab


def every_color(step: int = 5) -> Tensor:
    """[1,3,H,W] uint8: a regular grid over the color cube."""
    axis = torch.arange(0, 256, step, dtype=torch.uint8)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"))
    return grid.reshape(1, 3, len(axis), -1)


def lab_of(rgb: Tensor) -> Tensor:
    """[1,3,H,W] fp32 Lab by OpenCV."""
    pixels = (rgb[0].permute(1, 2, 0).numpy() / 255).astype(np.float32)
    return torch.from_numpy(cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB)).permute(2, 0, 1)[None]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [1, 3])
def test_rgb_to_l_matches_specification(backend: ModuleType, dtype: torch.dtype, channels: int):
    image = every_color()[:, :channels]
    image = image if dtype == torch.uint8 else image.to(dtype) / 255
    expected = reference.rgb_to_l(every_color()[:, :channels].double() / 255)
    # Worst seen 3e-5 of 100 in fp32, from roots by Newton's method; times 3.
    tolerance = 1e-12 if dtype == torch.float64 else 1e-4
    actual = backend.rgb_to_l(image).double()
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)


def test_rgb_to_l_matches_opencv(backend: ModuleType):
    # OpenCV's own floating conversion is off by up to 0.2 (it interpolates tables); worst seen
    # 0.19.
    actual = backend.rgb_to_l(every_color())
    torch.testing.assert_close(actual, lab_of(every_color())[:, :1], rtol=0, atol=0.3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [(37, 53), (9, 7), (4, 3), (1, 1)])
def test_lab_to_rgb_matches_specification(backend: ModuleType, dtype: torch.dtype, size: tuple):
    generator = torch.Generator().manual_seed(3)
    lightness = torch.rand(2, 1, *size, generator=generator, dtype=dtype) * 100
    ab = torch.rand(2, 2, 9, 7, generator=generator, dtype=dtype) * 200 - 100
    expected = reference.lab_to_rgb(lightness.double(), ab.double(), False)
    tolerance = 1e-13 if dtype == torch.float64 else 1e-5  # worst seen 2e-6 in fp32
    actual = backend.lab_to_rgb(lightness, ab, False)
    torch.testing.assert_close(actual.double(), expected, rtol=0, atol=tolerance)
    rounded = backend.lab_to_rgb(lightness, ab, True)
    assert rounded.dtype == torch.uint8
    assert (rounded - 255 * expected).abs().max() < 0.5 + 255 * tolerance


def test_lab_to_rgb_inverts_opencv(backend: ModuleType):
    colors = every_color(17)
    lab = lab_of(colors)
    back = backend.lab_to_rgb(lab[:, :1].contiguous(), lab[:, 1:].contiguous(), True)
    assert (back.int() - colors.int()).abs().max() <= 2  # OpenCV's tables, as above


def test_gray_survives(backend: ModuleType):
    gray = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    back = backend.lab_to_rgb(backend.rgb_to_l(gray), torch.zeros(1, 2, 1, 1), True)
    assert torch.equal(back, gray.expand(1, 3, 16, 16))


def test_bins_are_those_of_the_official_code():
    bins = bin_centers("cpu")
    assert bins.shape == (313, 2)
    assert (bins % 10 == 0).all()
    assert bins[0].tolist() == [-90, 50]
    assert bins[-1].tolist() == [100, 0]
    order = bins[:, 0] * 1000 + bins[:, 1]
    assert (order.diff() > 0).all()


def test_opcheck():
    image = every_color(60)
    torch.library.opcheck(torch.ops.disco_fast.rgb_to_l.default, (image,))
    arguments = (torch.full((1, 1, 8, 8), 50.0), torch.zeros(1, 2, 4, 4), True)
    torch.library.opcheck(torch.ops.disco_fast.lab_to_rgb.default, arguments)


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match=r"image \[N,1 or 3,H,W\]"):
        ops.rgb_to_l(torch.zeros(1, 2, 4, 4))
    with pytest.raises(ValueError, match="image in uint8, fp32 or fp64"):
        ops.rgb_to_l(torch.zeros(1, 3, 4, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"ab \[N,2,h,w\]"):
        ops.lab_to_rgb(torch.zeros(1, 1, 4, 4), torch.zeros(1, 3, 4, 4), True)


def test_rgb_to_lab_is_that_of_opencv():
    steps = np.arange(0, 256, 15, dtype=np.uint8)
    rgb = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
    expected = cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    lab = rgb_to_lab(torch.from_numpy(rgb.astype(np.float32) / 255))
    assert np.abs(lab.numpy() - expected).max() < 0.5  # OpenCV interpolates in a table
