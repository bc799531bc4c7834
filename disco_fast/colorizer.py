"""Pictures in, pictures out: `colorize` and the `Colorizer` behind it."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from . import ops
from .checkpoints import COMPACT, load_checkpoint, random_network
from .color import AB_SCALE, normalize_lightness
from .engine import Engine
from .engine.precision import resolve
from .model import DISCO
from .reference import MAX_VARIANTS

MODES = ("full", "reference")
REFERENCE_SIDE = 256  # the official script stretches every picture to this
_CHUNK_PIXELS = 8 * 256 * 256  # working pixels in one forward pass on a GPU, times variants
_LONGEST = 4  # a working picture's side is at most this many working sizes
_TOLERANCE = 1e-3  # floating pictures may leave 0..1 by as much, as resampling rounds


class Colorizer:
    """A network ready to colorize.

    Args:
        checkpoint: a file (see `checkpoints.load_checkpoint`), a `DISCO`, "random" for fixed random
            weights (for trying and timing only), or None for the compact network that ships with
            the package.
        device: where to compute; CUDA where there is one, else the CPU, if None.
        precision: "auto", "fp32", "bf16" or "fp16"; see `engine.precision.resolve`.

    Attributes:
        device: where it computes.
        precision: what `precision` was resolved to.

    Raises:
        FileNotFoundError, CheckpointError: no such checkpoint, or none of this network.
        ValueError: a precision or a device that is not to be had here.
    """

    def __init__(
        self,
        checkpoint: str | Path | DISCO | None = None,
        device: torch.device | str | None = None,
        precision: str = "auto",
    ):
        where = usable_device(device)
        resolve(precision, where)  # before a network is read for nothing
        self._engine = Engine(_network(checkpoint), precision, where)
        self.device, self.precision = self._engine.device, self._engine.precision

    @property
    def launching(self) -> str:
        """How the network's steps reach the device, in words; see `Engine.launching`."""
        return self._engine.launching

    def colorize(
        self,
        image: Tensor,
        *,
        n_anchors: int = 8,
        variants: int = 1,
        seed: int = 0,
        working_size: int = 256,
        mode: str = "full",
    ) -> Tensor:
        """Colorize pictures of one size.

        The same picture, seed and settings give the same colours, alone or in a batch, on one
        machine.

        Args:
            image: (..., 1 or 3, H, W), uint8 0-255 or floating 0-1, any device. Of RGB only the
                lightness is used.
            n_anchors: colour anchors, at least 1; at most one per superpixel are placed.
            variants: 1..3 colourings of each picture.
            seed: of the anchors' placement.
            working_size: colour is predicted on a picture of about working_size^2 pixels with the
                same aspect ratio (sides are multiples of 16; beyond 16:1 strips are squeezed), then
                spread to full size; at least 16. The networks were trained at 256.
            mode: "full": the picture's own size and lightness. "reference": what the official
                script does: stretch to 256x256, initial clusters as after
                    `numpy.random.seed(seed)`, result at 256x256.

        Returns:
            RGB of the same dtype, device, leading dimensions and (in mode "full") size; with
            variants > 1 a dimension is inserted before the channels.

        Raises:
            TypeError, ValueError: naming the argument that does not fit, before any work.
        """
        _check_image(image)
        check_settings(n_anchors, variants, seed, working_size, mode)
        lead = image.shape[:-3]
        pictures = image.detach().reshape(-1, *image.shape[-3:])
        if pictures.is_floating_point():
            pictures = pictures.clamp(0, 1)
        paint = self._paint if mode == "full" else self._paint_reference
        painted = paint(pictures, n_anchors, variants, seed, working_size)
        each = (variants,) if variants > 1 else ()
        return painted.reshape(*lead, *each, *painted.shape[1:])

    def _paint(
        self, pictures: Tensor, n_anchors: int, variants: int, seed: int, working_size: int
    ) -> Tensor:
        """[N,C,H,W] to [N*variants,3,H,W] at full size."""
        height, width = pictures.shape[-2:]
        size = working_shape(height, width, working_size, self._engine.network.stride)
        painted = []
        for chunk in pictures.split(self._chunk(size, variants)):
            here = chunk.to(self.device)
            if here.dtype in (torch.float16, torch.bfloat16):
                here = here.float()
            lightness = ops.rgb_to_l(here)
            gray = normalize_lightness(_resize(lightness, size)).float()
            ab = self._predict(gray, n_anchors, variants, seed).to(lightness.dtype) * AB_SCALE
            ab = _resize(ab, (min(size[0], height), min(size[1], width)))
            full = lightness.repeat_interleave(variants, 0) if variants > 1 else lightness
            rgb = ops.lab_to_rgb(full, ab, pictures.dtype == torch.uint8)
            painted.append(rgb.to(pictures.device, pictures.dtype))
        return painted[0] if len(painted) == 1 else torch.cat(painted)

    def _chunk(self, size: tuple[int, int], variants: int) -> int:
        """Pictures in one forward pass.

        One on a CPU: its convolutions round differently for different batch sizes, which in bf16
            can move an anchor,
        and several at a time are no faster there.
        """
        if self.device.type == "cpu":
            return 1
        return max(1, _CHUNK_PIXELS // (size[0] * size[1] * variants))

    def _predict(
        self,
        gray: Tensor,
        n_anchors: int,
        variants: int,
        seed: int,
        kmeans_init: Tensor | None = None,
    ) -> Tensor:
        count = gray.shape[2] * gray.shape[3] // self._engine.network.cell_size**2
        return self._engine.chroma(gray, min(n_anchors, count), kmeans_init, variants, seed)

    def _paint_reference(
        self, pictures: Tensor, n_anchors: int, variants: int, seed: int, working_size: int
    ) -> Tensor:
        """[N,C,H,W] to [N*variants,3,256,256] by the official script's (OpenCV's) steps."""
        count = REFERENCE_SIDE**2 // self._engine.network.cell_size**2
        clusters = min(n_anchors, count)
        first = np.random.RandomState(seed % 2**32).choice(count, clusters, replace=False)
        init = torch.from_numpy(first).to(self.device, torch.int64)[None]
        painted = []
        for picture in pictures:
            lightness = _reference_lightness(picture)
            gray = normalize_lightness(torch.from_numpy(lightness)).to(self.device)[None, None]
            ab = self._predict(gray, n_anchors, variants, seed, init) * AB_SCALE
            painted += [_reference_rgb(lightness, chroma, pictures.dtype) for chroma in ab.cpu()]
        return torch.stack(painted).to(pictures.device)


def colorize(
    image: Tensor,
    *,
    checkpoint: str | Path | None = None,
    n_anchors: int = 8,
    variants: int = 1,
    seed: int = 0,
    working_size: int = 256,
    precision: str = "auto",
    device: torch.device | str | None = None,
    mode: str = "full",
) -> Tensor:
    """Colorize pictures: `Colorizer(checkpoint, device, precision).colorize(image, ...)`.

    The last few networks are kept, so that calls in a loop load a checkpoint once.

    Args:
        image: (..., 1 or 3, H, W), uint8 0-255 or floating 0-1.
        checkpoint: as for `Colorizer`, but not a module.
        n_anchors: as for `Colorizer.colorize`, like the next three and `mode`.
        variants: see there.
        seed: see there.
        working_size: see there.
        precision: as for `Colorizer`.
        device: where to compute; where `image` is, if None.
        mode: see there.

    Returns:
        RGB like `image`; see `Colorizer.colorize`.

    Raises:
        TypeError, ValueError, FileNotFoundError: naming the argument that does not fit, before any
            work.
    """
    _check_image(image)
    check_settings(n_anchors, variants, seed, working_size, mode)
    colorizer = _cached_colorizer(
        checkpoint, str(image.device if device is None else device), precision
    )
    return colorizer.colorize(
        image,
        n_anchors=n_anchors,
        variants=variants,
        seed=seed,
        working_size=working_size,
        mode=mode,
    )


@lru_cache(maxsize=4)
def _cached_colorizer(checkpoint: str | Path | None, device: str, precision: str) -> Colorizer:
    return Colorizer(checkpoint, device, precision)


def usable_device(device: torch.device | str | None) -> torch.device:
    """The device to compute on: CUDA where there is one, else the CPU, if None.

    Raises:
        ValueError: torch does not know it or cannot use it here.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # the latter from a torch built without CUDA
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"device: expected one usable here, got {str(device)!r} ({reason})"
        ) from None


def _network(checkpoint: str | Path | DISCO | None) -> DISCO:
    if isinstance(checkpoint, DISCO):
        return checkpoint
    if checkpoint == "random":
        return random_network()
    return load_checkpoint(COMPACT if checkpoint is None else checkpoint)


def working_shape(height: int, width: int, working_size: int, stride: int) -> tuple[int, int]:
    """Size at which colour is predicted: about working_size^2 pixels, the same aspect ratio.

    Sides are multiples of `stride`. No side is shorter than `stride` or longer than four working
    sizes, so that a strip of 1x8000 costs no more than a photograph.
    """
    scale = working_size / math.sqrt(height * width)

    def side(length: int) -> int:
        fitted = min(length * scale, _LONGEST * working_size)
        return max(stride, round(fitted / stride) * stride)

    return side(height), side(width)


def _resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, with a wider filter where it shrinks."""
    if tuple(x.shape[-2:]) == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=True)


def _reference_lightness(picture: Tensor) -> np.ndarray:
    """L [256,256] fp32 of the picture stretched, without antialiasing, in its own dtype."""
    if picture.is_floating_point():
        picture = picture.float()
    rgb = picture.expand(3, -1, -1).permute(1, 2, 0).cpu().numpy()
    rgb = cv2.resize(rgb, (REFERENCE_SIDE, REFERENCE_SIDE), interpolation=cv2.INTER_LINEAR)
    unit = (rgb / 255.0 if rgb.dtype == np.uint8 else rgb).astype(np.float32)
    return cv2.cvtColor(unit, cv2.COLOR_RGB2LAB)[..., 0]


def _reference_rgb(lightness: np.ndarray, ab: Tensor, dtype: torch.dtype) -> Tensor:
    """RGB [3,256,256] as the official script saves it: bytes are cut off, not rounded."""
    lab = np.dstack([lightness, ab.permute(1, 2, 0).numpy()]).astype(np.float32)
    rgb = torch.from_numpy(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)).clamp(0, 1).permute(2, 0, 1)
    return (rgb * 255).to(torch.uint8) if dtype == torch.uint8 else rgb.to(dtype)


def _check_image(image: Tensor) -> None:
    expected = "image: expected a tensor (..., 1 or 3, H, W), uint8 0-255 or floating 0-1"
    if not isinstance(image, Tensor):
        raise TypeError(f"{expected}, got {type(image).__name__}")
    if image.dtype != torch.uint8 and not image.is_floating_point():
        raise TypeError(f"{expected}, got {image.dtype}")
    shape = tuple(image.shape)
    if len(shape) < 3 or shape[-3] not in (1, 3):
        raise ValueError(f"{expected}, got shape {shape}")
    if image.numel() == 0:
        raise ValueError(f"{expected}, got an empty tensor of shape {shape}")
    if image.is_floating_point():
        low, high = (value.item() for value in image.detach().aminmax())
        if not (low >= -_TOLERANCE and high <= 1 + _TOLERANCE):  # false for NaN too
            raise ValueError(f"{expected}, got values from {low} to {high}")


def check_settings(n_anchors: int, variants: int, seed: int, working_size: int, mode: str) -> None:
    """Raise TypeError or ValueError, naming the setting of `colorize` that does not fit."""
    for name, value, low, high in (
        ("n_anchors", n_anchors, 1, 2**31),
        ("variants", variants, 1, MAX_VARIANTS),
        ("seed", seed, -(2**63), 2**63 - 1),
        ("working_size", working_size, 16, 4096),
    ):
        if not isinstance(value, int):
            raise TypeError(f"{name}: expected an int, got {type(value).__name__}")
        if not low <= value <= high:
            raise ValueError(f"{name}: expected {low}..{high}, got {value}")
    if mode not in MODES:
        raise ValueError(f"mode: expected one of {', '.join(MODES)}, got {mode!r}")
