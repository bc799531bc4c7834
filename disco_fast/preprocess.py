"""From an image to what the network sees, and from the network's chroma back to an image."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from . import ops
from .color import AB_SCALE, normalize_lightness
from .io.opencv import opencv
from .options import ColorizeOptions

REFERENCE_SIDE = 256  # the official script stretches every picture to this
_LONGEST = 4  # a working picture's side is at most this many working sizes


class Full:
    """Mode "full": the picture's own size and lightness.

    Args:
        working_size: side of a square as large as the picture on which color is predicted.
        stride: of the network.
    """

    def __init__(self, working_size: int, stride: int):
        self._working_size, self._stride = working_size, stride

    def working_shape(self, height: int, width: int) -> tuple[int, int]:
        """Size at which color is predicted."""
        return working_shape(height, width, self._working_size, self._stride)

    def first_centers(self, n_anchors: int, count: int, seed: int) -> Tensor | None:
        """Superpixels, of `count`, that are the first cluster centers; None: the network draws."""
        return None

    def read(self, pictures: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """Lightness [N,1,H,W] 0-100 and the network's input [N,1,h,w] fp32, both on `device`.

        Args:
            pictures: [N,1 or 3,H,W] uint8 0-255 or floating 0-1.
            device: where to compute.
        """
        here = pictures.to(device, non_blocking=device.type == "cuda")
        if here.is_floating_point():
            here = here.clamp(0, 1)
        if here.dtype in (torch.float16, torch.bfloat16):
            here = here.float()
        lightness = ops.rgb_to_l(here)
        size = self.working_shape(*pictures.shape[-2:])
        return lightness, normalize_lightness(resize(lightness, size)).float()

    def paint(self, lightness: Tensor, ab: Tensor, dtype: torch.dtype) -> Tensor:
        """RGB [M,3,H,W], uint8 if `dtype` is, else floating.

        Args:
            lightness: of `read`, [N,1,H,W].
            ab: [M,2,h,w], ab / 110; M is N times the variants, image-major.
            dtype: of the pictures.
        """
        height, width = lightness.shape[-2:]
        ab = ab.to(lightness.dtype) * AB_SCALE
        ab = resize(ab, (min(ab.shape[-2], height), min(ab.shape[-1], width)))
        variants = len(ab) // len(lightness)
        full = lightness.repeat_interleave(variants, 0) if variants > 1 else lightness
        return ops.lab_to_rgb(full, ab, dtype == torch.uint8)


class Reference:
    """Mode "reference": the official script's (OpenCV's) steps; its methods are as `Full`'s."""

    def working_shape(self, height: int, width: int) -> tuple[int, int]:
        """256x256."""
        return REFERENCE_SIDE, REFERENCE_SIDE

    def first_centers(self, n_anchors: int, count: int, seed: int) -> Tensor | None:
        """[K] int64, drawn as after `numpy.random.seed(seed)`."""
        draw = np.random.RandomState(seed % 2**32).choice(count, n_anchors, replace=False)
        return torch.from_numpy(draw).to(torch.int64)

    def read(self, pictures: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """Lightness [N,1,256,256] on the CPU, the network's input on `device`."""
        lightness = np.stack([_reference_lightness(picture) for picture in pictures])[:, None]
        gray = normalize_lightness(torch.from_numpy(lightness))
        return torch.from_numpy(lightness), gray.to(device)

    def paint(self, lightness: Tensor, ab: Tensor, dtype: torch.dtype) -> Tensor:
        """RGB [M,3,256,256] on the CPU."""
        chroma = (ab * AB_SCALE).cpu()
        full = lightness.repeat_interleave(len(ab) // len(lightness), 0)
        pairs = zip(full.numpy(), chroma.numpy(), strict=True)
        return torch.stack([_reference_rgb(*pair, dtype) for pair in pairs])


def preprocessing(options: ColorizeOptions, stride: int) -> Full | Reference:
    """The way there and back of a mode.

    Args:
        options: the mode, and its working size.
        stride: of the network.
    """
    return Full(options.working_size, stride) if options.mode == "full" else Reference()


def working_shape(height: int, width: int, working_size: int, stride: int) -> tuple[int, int]:
    """Size at which color is predicted: about working_size^2 pixels, the same aspect ratio.

    Sides are multiples of `stride`. No side is shorter than `stride` or longer than four working
    sizes, so that a strip of 1x8000 costs no more than a photograph.
    """
    scale = working_size / math.sqrt(height * width)

    def side(length: int) -> int:
        fitted = min(length * scale, _LONGEST * working_size)
        return max(stride, round(fitted / stride) * stride)

    return side(height), side(width)


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, with a wider filter where it shrinks."""
    if tuple(x.shape[-2:]) == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=True)


def _reference_lightness(picture: Tensor) -> np.ndarray:
    """L [256,256] fp32 of the picture stretched, without antialiasing, in its own dtype."""
    if picture.is_floating_point():
        picture = picture.clamp(0, 1).float()
    rgb = picture.expand(3, -1, -1).permute(1, 2, 0).cpu().numpy()
    cv2 = opencv('mode "reference"')
    rgb = cv2.resize(rgb, (REFERENCE_SIDE, REFERENCE_SIDE), interpolation=cv2.INTER_LINEAR)
    unit = (rgb / 255.0 if rgb.dtype == np.uint8 else rgb).astype(np.float32)
    return cv2.cvtColor(unit, cv2.COLOR_RGB2LAB)[..., 0]


def _reference_rgb(lightness: np.ndarray, ab: np.ndarray, dtype: torch.dtype) -> Tensor:
    """RGB [3,256,256] as the official script saves it: bytes are cut off, not rounded."""
    cv2 = opencv('mode "reference"')
    lab = np.ascontiguousarray(np.concatenate([lightness, ab]).transpose(1, 2, 0))
    rgb = torch.from_numpy(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)).clamp(0, 1).permute(2, 0, 1)
    return (rgb * 255).to(torch.uint8) if dtype == torch.uint8 else rgb.to(dtype)
