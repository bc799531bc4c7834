"""Images in, images out: `colorize` and the `Colorizer` behind it."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from .analysis import Analysis, GivenAnchor
from .checkpoints import COMPACT, load_checkpoint, random_network
from .engine import Engine
from .engine.autocast import without_autocast
from .engine.batching import activation_bytes, enough, fitting, full_bytes, retry_smaller
from .engine.precision import resolve
from .model import DISCO
from .options import AnchorSettings, ColorizeOptions, Settings
from .preprocess import Full, Reference, preprocessing, working_shape
from .reference import MAX_VARIANTS

if TYPE_CHECKING:
    from typing_extensions import Unpack

_FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_TOLERANCE = 1e-3  # floating images may leave 0..1 by as much, as resampling rounds


class Colorizer:
    """A network ready to colorize.

    It can be pickled and copied: the other end gets one of the same checkpoint (read there again,
    if it is a file), device and precision.

    Args:
        checkpoint: a file (see `checkpoints.load_checkpoint`), a `DISCO`, "random" for fixed random
            weights (for trying and timing only), or None for the compact network that ships with
            the package.
        device: where to compute; CUDA where there is one, else the CPU, if None.
        precision: "auto", "fp32", "bf16", "fp16" or "int8"; see `engine.precision.resolve`.

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
        if isinstance(checkpoint, (str, Path)) and checkpoint != "random":
            checkpoint = Path(checkpoint).absolute()  # also for a worker in another folder
        self._made_of = checkpoint, device, precision
        where = usable_device(device)
        resolve(precision, where)  # before a network is read for nothing
        self._engine = Engine(_network(checkpoint), precision, where)
        self._fitted: dict[Hashable, int] = {}  # batch sizes that memory allows
        self.device, self.precision = self._engine.device, self._engine.precision

    def __reduce__(self) -> tuple[type[Colorizer], tuple[Any, ...]]:
        return Colorizer, self._made_of

    @property
    def engine(self) -> Engine:
        """The network itself, for what needs more of it than images."""
        return self._engine

    @property
    def launching(self) -> str:
        """How the network's steps reach the device, in words; see `Engine.launching`."""
        return self._engine.launching

    @property
    def vividness(self) -> float:
        """What suits the checkpoint best, 0..1."""
        return self._engine.network.readout.vividness

    @without_autocast
    def colorize(
        self,
        image: Tensor,
        *,
        anchors: Sequence[GivenAnchor] | None = None,
        **settings: Unpack[Settings],
    ) -> Tensor:
        """Colorize images of one size.

        `torch.autocast` around it changes nothing.

        Args:
            image: (..., 1 or 3, H, W), uint8 0-255 or floating 0-1, any device. Of RGB only the
                lightness is used.
            anchors: of one image, in the place of the network's own: ((x, y), color) pairs, or
                of an analysis of it; see `Analysis.colorize`. Then `n_anchors`, `seed`,
                `temperature` and `vividness` mean nothing.
            settings: `ColorizeOptions` by name.

        Returns:
            RGB of the same dtype, device, leading dimensions and (in mode "full") size; with
            variants > 1 a dimension is inserted before the channels.

        Raises:
            TypeError, ValueError: naming the argument that does not fit, before any work.
            MemoryError: not even one image at a time fits into memory.
        """
        _check_image(image)
        return self._colorize(image, anchors, ColorizeOptions(**settings))

    @without_autocast
    def colorize_all(self, images: Sequence[Tensor], **settings: Unpack[Settings]) -> list[Tensor]:
        """Colorize images of any sizes; those of equal working shape share forward passes.

        Args:
            images: each as for `colorize`, of any size, type and device.
            settings: `ColorizeOptions` by name.

        Returns:
            What `colorize` returns for each of `images`, in their order.

        Raises:
            TypeError, ValueError: naming the argument, and of an image its index, that does not
                fit, before any work.
            MemoryError: as `colorize`.
        """
        if not isinstance(images, Sequence):
            raise TypeError(f"images: expected a sequence of tensors, got {type(images).__name__}")
        for index, image in enumerate(images):
            _check_image(image, f"images[{index}]")
        return self._colorize_all(images, ColorizeOptions(**settings))

    @without_autocast
    def analyze(self, image: Tensor, **settings: Unpack[AnchorSettings]) -> Analysis:
        """Run the network's first half on one image, whose anchors can then be changed.

        Args:
            image: [1 or 3,H,W], uint8 0-255 or floating 0-1.
            settings: `ColorizeOptions` by name; one variant in mode "full". The vividness can be
                changed afterwards at little cost.

        Returns:
            The analysis. Its `colorize()` gives what `colorize` of these settings gives.

        Raises:
            TypeError, ValueError: naming the argument that does not fit, before any work.
        """
        _check_image(image)
        if image.dim() != 3:
            raise ValueError(f"image: expected one image [C,H,W], got shape {tuple(image.shape)}")
        options = ColorizeOptions(**settings)
        return Analysis(
            self._engine, image, options.only("in an analysis", mode="full", variants=1)
        )

    def working_shape(self, height: int, width: int, working_size: int = 256) -> tuple[int, int]:
        """Size at which color is predicted in mode "full"; those that share it share a pass."""
        return working_shape(height, width, working_size, self._engine.network.stride)

    # From here on images are checked, and options valid.

    def _colorize(
        self, image: Tensor, anchors: Sequence[GivenAnchor] | None, options: ColorizeOptions
    ) -> Tensor:
        if anchors is None:
            return self._colorize_all([image], options)[0]
        if image[..., 0, 0, 0].numel() != 1:
            raise ValueError(f"anchors: expected one image, got shape {tuple(image.shape)}")
        options.only("with anchors", mode="full", variants=1)
        few = ColorizeOptions(n_anchors=1, working_size=options.working_size)
        painted = Analysis(self._engine, image.reshape(image.shape[-3:]), few).colorize(anchors)
        return painted.reshape(*image.shape[:-3], *painted.shape)

    def _colorize_all(self, images: Sequence[Tensor], options: ColorizeOptions) -> list[Tensor]:
        if options.n_anchors == "auto" or options.variants > MAX_VARIANTS:
            return [self._one_by_one(image, options) for image in images]
        mode = preprocessing(options, self._engine.network.stride)
        sources = [_Source(image, self.device) for image in images]
        where = (
            f"the memory of {self.device} at working_size {options.working_size}: "
            "choose a smaller working_size, or a smaller image"
        )
        for shape, alike in _by_working_shape(sources, mode).items():
            at_once = self._at_once(shape, alike, options.variants)
            kind = shape, options.variants
            for attempt in retry_smaller(alike, at_once, self._fitted, kind, where):
                with attempt as batch:
                    self._paint(batch, mode, options)
        if self.device.type == "cuda" and any(image.device.type == "cpu" for image in images):
            torch.cuda.current_stream(self.device).synchronize()
        return [source.result(options.variants) for source in sources]

    def _one_by_one(self, image: Tensor, options: ColorizeOptions) -> Tensor:
        """Colorize what no batch can: images with anchor counts of their own, or drawn colors."""
        painted = []
        for picture in image.reshape(-1, *image.shape[-3:]):
            analysis = Analysis(self._engine, picture, options)
            variants = analysis.variants(options.variants, options.temperature)
            painted.append(torch.stack([analysis.colorize(anchors) for anchors in variants]))
        each = (options.variants,) if options.variants > 1 else ()
        result = torch.stack(painted)
        return result.reshape(*image.shape[:-3], *each, *result.shape[2:])

    def _paint(
        self, batch: Sequence[_Image], mode: Full | Reference, options: ColorizeOptions
    ) -> None:
        """Colorize images of one working shape in one forward pass."""
        runs = list(_runs(batch))
        pixels = [source.pixels[rows] for source, rows in runs]
        lightness, gray = zip(*(mode.read(p, self.device) for p in pixels), strict=True)
        ab = self._chroma(torch.cat(gray), mode, options)
        split = ab.split([len(p) * options.variants for p in pixels])
        for (source, rows), full, chroma in zip(runs, lightness, split, strict=True):
            source.keep(rows, mode.paint(full, chroma, source.pixels.dtype), options.variants)

    def _chroma(self, gray: Tensor, mode: Full | Reference, options: ColorizeOptions) -> Tensor:
        """Chroma ab/110, [M,2,h,w], of the network's inputs [N,1,h,w]."""
        count = gray.shape[2] * gray.shape[3] // self._engine.network.cell_size**2
        n_anchors = min(int(options.n_anchors), count)
        init = mode.first_centers(n_anchors, count, options.seed)
        if init is not None:
            init = init.to(gray.device).expand(len(gray), -1)
        offset = self._engine.offset(options.vividness) if options.mode == "full" else None
        return self._engine.chroma(gray, n_anchors, init, options.variants, options.seed, offset)

    def _at_once(self, shape: tuple[int, int], images: Sequence[_Image], variants: int) -> int:
        """How many images of a working shape go through the network together, to begin with."""
        pixels = shape[0] * shape[1] * variants
        network = pixels * activation_bytes(self._engine.network.width, self.precision)
        largest = max(full_bytes(image.source.pixels, variants) for image in images)
        return min(enough(self.device, pixels), fitting(self.device, largest + network))


class _Source:
    """The images of one argument, and their results as far as there are any.

    Args:
        image: the argument, (..., C, H, W).
        device: where it is colorized.

    Attributes:
        pixels: [N,C,H,W].
    """

    def __init__(self, image: Tensor, device: torch.device):
        self.pixels = image.detach().reshape(-1, *image.shape[-3:])
        self._lead = image.shape[:-3]
        # A GPU copies to pinned memory while it computes.
        self._pin = device.type == "cuda" and self.pixels.is_pinned()
        self._painted: Tensor | None = None  # [N,V,3,H,W]

    def keep(self, rows: slice, rgb: Tensor, variants: int) -> None:
        """Keep results [M,3,H,W] of neighboring images, without waiting for a GPU."""
        if self._painted is None:
            self._painted = torch.empty(
                (len(self.pixels), variants, *rgb.shape[1:]),
                dtype=self.pixels.dtype,
                device=self.pixels.device,
                pin_memory=self._pin,
            )
        self._painted[rows].flatten(0, 1).copy_(rgb, non_blocking=rgb.is_cuda)

    def result(self, variants: int) -> Tensor:
        """All results, in the form of the argument."""
        assert self._painted is not None
        each = (variants,) if variants > 1 else ()
        return self._painted.reshape(*self._lead, *each, *self._painted.shape[2:])


class _Image(NamedTuple):
    """An image: which argument, and which row of it."""

    source: _Source
    row: int

    def __str__(self) -> str:
        height, width = self.source.pixels.shape[-2:]
        return f"an image of {height} x {width} pixels"


def _by_working_shape(
    sources: Sequence[_Source], mode: Full | Reference
) -> dict[tuple[int, int], list[_Image]]:
    images: dict[tuple[int, int], list[_Image]] = {}
    for source in sources:
        shape = mode.working_shape(*source.pixels.shape[-2:])
        rows = (_Image(source, row) for row in range(len(source.pixels)))
        images.setdefault(shape, []).extend(rows)
    return images


def _runs(batch: Sequence[_Image]) -> Iterator[tuple[_Source, slice]]:
    """Neighboring rows of one argument as one slice of it."""
    for _, neighbors in groupby(batch, key=lambda image: id(image.source)):
        first, *rest = neighbors
        yield first.source, slice(first.row, first.row + 1 + len(rest))


@without_autocast
def colorize(
    image: Tensor,
    *,
    checkpoint: str | Path | None = None,
    precision: str = "auto",
    device: torch.device | str | None = None,
    anchors: Sequence[GivenAnchor] | None = None,
    **settings: Unpack[Settings],
) -> Tensor:
    """Colorize images: `Colorizer(checkpoint, device, precision).colorize(image, ...)`.

    The last few networks are kept, so that calls in a loop load a checkpoint once.

    Args:
        image: (..., 1 or 3, H, W), uint8 0-255 or floating 0-1.
        checkpoint: as for `Colorizer`, but not a module.
        precision: as for `Colorizer`.
        device: where to compute; where `image` is, if None.
        anchors: as for `Colorizer.colorize`.
        settings: `ColorizeOptions` by name.

    Returns:
        RGB like `image`; see `Colorizer.colorize`.

    Raises:
        TypeError, ValueError, FileNotFoundError: naming the argument that does not fit, before any
            work.
    """
    _check_image(image)
    options = ColorizeOptions(**settings)
    where = str(image.device if device is None else device)
    return _cached_colorizer(checkpoint, where, precision)._colorize(image, anchors, options)


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


def _check_image(image: Tensor, name: str = "image") -> None:
    expected = f"{name}: expected a tensor (..., 1 or 3, H, W), uint8 0-255 or floating 0-1"
    if not isinstance(image, Tensor):
        raise TypeError(f"{expected}, got {type(image).__name__}")
    if image.dtype != torch.uint8 and image.dtype not in _FLOATING:
        raise TypeError(f"{expected}, got {image.dtype}")
    if image.is_nested or image.layout != torch.strided:
        kind = "nested" if image.is_nested else str(image.layout)
        raise TypeError(f"{expected}, got a {kind.removeprefix('torch.')} one")
    if image.device.type == "meta":
        raise TypeError(f"{expected}, got one without values (device meta)")
    shape = tuple(image.shape)
    if len(shape) < 3 or shape[-3] not in (1, 3):
        raise ValueError(f"{expected}, got shape {shape}")
    if image.numel() == 0:
        raise ValueError(f"{expected}, got an empty tensor of shape {shape}")
    if image.is_floating_point():
        low, high = torch.stack(image.detach().aminmax()).tolist()  # a GPU is waited for once
        if not (low >= -_TOLERANCE and high <= 1 + _TOLERANCE):  # false for NaN too
            raise ValueError(f"{expected}, got values from {low} to {high}")
