"""Pictures in, pictures out: `colorize` and the `Colorizer` behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from numbers import Integral, Real
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .analysis import Analysis, GivenAnchor
from .checkpoints import COMPACT, load_checkpoint, random_network
from .engine import Engine
from .engine.autocast import without_autocast
from .engine.batching import Batches, activation_bytes, enough, fitting
from .engine.precision import resolve
from .model import DISCO
from .model.readout import check_vividness
from .preprocess import Full, Reference, working_shape
from .reference import MAX_VARIANTS

MODES = ("full", "reference")
MOST_VARIANTS = 64
_FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_HOTTEST = 100.0
_TOLERANCE = 1e-3  # floating pictures may leave 0..1 by as much, as resampling rounds


class Colorizer:
    """A network ready to colorize.

    It can be pickled and copied: the other end gets one of the same checkpoint (read there again,
    if it is a file), device and precision.

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
        if isinstance(checkpoint, (str, Path)) and checkpoint != "random":
            checkpoint = Path(checkpoint).absolute()  # also for a worker in another folder
        self._made_of = checkpoint, device, precision
        where = usable_device(device)
        resolve(precision, where)  # before a network is read for nothing
        self._engine = Engine(_network(checkpoint), precision, where)
        self._batches = Batches()
        self.device, self.precision = self._engine.device, self._engine.precision

    def __reduce__(self) -> tuple[type[Colorizer], tuple[Any, ...]]:
        return Colorizer, self._made_of

    @property
    def engine(self) -> Engine:
        """The network itself, for what needs more of it than pictures."""
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
        n_anchors: int | str = 8,
        variants: int = 1,
        temperature: float = 1.0,
        seed: int = 0,
        working_size: int = 256,
        mode: str = "full",
        vividness: float | None = None,
        anchors: Sequence[GivenAnchor] | None = None,
    ) -> Tensor:
        """Colorize pictures of one size.

        The same picture, seed and settings give the same colours, alone or in a batch, on one
        machine with one number of threads. `torch.autocast` around it changes nothing.

        Args:
            image: (..., 1 or 3, H, W), uint8 0-255 or floating 0-1, any device. Of RGB only the
                lightness is used.
            n_anchors: colour anchors, at least 1; at most one per superpixel are placed. "auto":
                each picture gets from 3 to 16, see `anchor_count.count_anchors`.
            variants: 1..64 colourings of each picture: the first three as published, of unlike
                colours; any more are drawn from the anchors' distributions.
            temperature: of that draw, more than 0; below 1 more of the probable, above 1 of the
                improbable colours.
            seed: of the anchors' placement, and of that draw.
            working_size: colour is predicted on a picture of about working_size^2 pixels with the
                same aspect ratio (sides are multiples of 16; beyond 16:1 strips are squeezed), then
                spread to full size; at least 16. The networks were trained at 256.
            mode: "full": the picture's own size and lightness. "reference": what the official
                script does: stretch to 256x256, initial clusters as after
                    `numpy.random.seed(seed)`, result at 256x256.
            vividness: from 0, the most likely colours, to 1, vivid ones; what suits the checkpoint
                if None. Not in mode "reference", where colours are chosen as published.
            anchors: of one picture, in the place of the network's own: ((x, y), color) pairs, or
                of an analysis of it; see `Analysis.colorize`. Then `n_anchors`, `seed`,
                `temperature` and `vividness` mean nothing.

        Returns:
            RGB of the same dtype, device, leading dimensions and (in mode "full") size; with
            variants > 1 a dimension is inserted before the channels.

        Raises:
            TypeError, ValueError: naming the argument that does not fit, before any work.
            MemoryError: not even one picture at a time fits into memory.
        """
        _check_image(image)
        settings = _settings(n_anchors, variants, seed, working_size, mode, temperature, vividness)
        if anchors is None:
            return self._colorize([image], settings)[0]
        return self._by_anchors(image, anchors, settings)

    @without_autocast
    def colorize_all(
        self,
        images: Sequence[Tensor],
        *,
        n_anchors: int | str = 8,
        variants: int = 1,
        temperature: float = 1.0,
        seed: int = 0,
        working_size: int = 256,
        mode: str = "full",
        vividness: float | None = None,
    ) -> list[Tensor]:
        """Colorize pictures of any sizes; those of equal working shape share forward passes.

        Args:
            images: each as for `colorize`, of any size, type and device.
            n_anchors: as for `colorize`, like the rest.
            variants: see there.
            temperature: see there.
            seed: see there.
            working_size: see there.
            mode: see there.
            vividness: see there.

        Returns:
            What `colorize` returns for each of `images`, in their order.

        Raises:
            TypeError, ValueError: naming the argument, and of a picture its index, that does not
                fit, before any work.
            MemoryError: as `colorize`.
        """
        if not isinstance(images, Sequence):
            raise TypeError(f"images: expected a sequence of tensors, got {type(images).__name__}")
        for index, image in enumerate(images):
            _check_image(image, f"images[{index}]")
        settings = _settings(n_anchors, variants, seed, working_size, mode, temperature, vividness)
        return self._colorize(images, settings)

    @without_autocast
    def analyze(
        self,
        image: Tensor,
        *,
        n_anchors: int | str = 8,
        seed: int = 0,
        working_size: int = 256,
        vividness: float | None = None,
    ) -> Analysis:
        """The network's first half for one picture, whose anchors can then be changed.

        Args:
            image: [1 or 3,H,W], uint8 0-255 or floating 0-1.
            n_anchors: as for `colorize`, like the rest.
            seed: see there.
            working_size: see there.
            vividness: see there; it can be changed afterwards at little cost.

        Returns:
            The analysis. Its `colorize()` gives what `colorize` of these settings gives.

        Raises:
            TypeError, ValueError: naming the argument that does not fit, before any work.
        """
        _check_image(image)
        if image.dim() != 3:
            raise ValueError(f"image: expected one picture [C,H,W], got shape {tuple(image.shape)}")
        settings = _settings(n_anchors, 1, seed, working_size, "full", vividness=vividness)
        mode = Full(settings.working_size, self._engine.network.stride)
        return Analysis(
            self._engine, image, mode, settings.n_anchors, settings.seed, settings.vividness
        )

    def working_shape(self, height: int, width: int, working_size: int = 256) -> tuple[int, int]:
        """Size at which colour is predicted in mode "full"; those that share it share a pass."""
        return working_shape(height, width, working_size, self._engine.network.stride)

    def _colorize(self, images: Sequence[Tensor], settings: _Settings) -> list[Tensor]:
        if settings.n_anchors == "auto" or settings.variants > MAX_VARIANTS:
            return [self._one_by_one(image, settings) for image in images]
        call = _Call(self._engine, images, settings)
        for shape, places in call.places().items():
            pixels = shape[0] * shape[1] * settings.variants
            at_once = min(
                enough(self.device, pixels), fitting(self.device, call.most_bytes(places, pixels))
            )
            kind = shape, settings.variants
            self._batches.run(places, call.compute, at_once, kind, call.does_not_fit)
        return call.results()

    def _by_anchors(
        self, image: Tensor, anchors: Sequence[GivenAnchor], settings: _Settings
    ) -> Tensor:
        if image[..., 0, 0, 0].numel() != 1:
            raise ValueError(f"anchors: expected one picture, got shape {tuple(image.shape)}")
        if settings.variants != 1 or settings.mode != "full":
            name, wanted = ("mode", "full") if settings.mode != "full" else ("variants", 1)
            raise ValueError(
                f"{name}: expected {wanted} with anchors, got {getattr(settings, name)}"
            )
        picture = image.reshape(image.shape[-3:])
        analysis = self.analyze(picture, n_anchors=1, working_size=settings.working_size)
        painted = analysis.colorize(anchors)
        return painted.reshape(*image.shape[:-3], *painted.shape)

    def _one_by_one(self, image: Tensor, settings: _Settings) -> Tensor:
        """What no batch can do: each picture has its own number of anchors, or draws colours."""
        mode = Full(settings.working_size, self._engine.network.stride)
        pictures = image.detach().reshape(-1, *image.shape[-3:])
        painted = []
        for picture in pictures:
            analysis = Analysis(
                self._engine,
                picture,
                mode,
                settings.n_anchors,
                settings.seed,
                settings.vividness,
            )
            variants = analysis.variants(settings.variants, settings.temperature)
            painted.append(torch.stack([analysis.colorize(anchors) for anchors in variants]))
        each = (settings.variants,) if settings.variants > 1 else ()
        result = torch.stack(painted)
        return result.reshape(*image.shape[:-3], *each, *result.shape[2:])


class _Settings(NamedTuple):
    """What `Colorizer.colorize` takes besides pictures."""

    n_anchors: int | str
    variants: int
    seed: int
    working_size: int
    mode: str
    temperature: float = 1.0
    vividness: float | None = None


def _settings(
    n_anchors: int | str,
    variants: int,
    seed: int,
    working_size: int,
    mode: str,
    temperature: float = 1.0,
    vividness: float | None = None,
) -> _Settings:
    """Settings that fit, NumPy's numbers as Python's; the errors are those of `check_settings`."""
    check_settings(n_anchors, variants, seed, working_size, mode, temperature, vividness)
    count = n_anchors if isinstance(n_anchors, str) else int(n_anchors)
    vivid = None if vividness is None else float(vividness)
    whole = int(variants), int(seed), int(working_size)
    return _Settings(count, *whole, mode, float(temperature), vivid)


class _Place(NamedTuple):
    """Where a picture is: which argument, and which row of it."""

    argument: int
    row: int


class _Call:
    """The pictures of one call and, as far as they are computed, their results."""

    def __init__(self, engine: Engine, images: Sequence[Tensor], settings: _Settings):
        self._engine, self._images, self._settings = engine, images, settings
        self._pictures = [image.detach().reshape(-1, *image.shape[-3:]) for image in images]
        self._painted: dict[int, Tensor] = {}  # [N,V,3,H,W] of each argument
        self._mode: Full | Reference = Reference()
        if settings.mode == "full":
            self._mode = Full(settings.working_size, engine.network.stride)

    def places(self) -> dict[tuple[int, int], list[_Place]]:
        """The pictures by their working shape."""
        places: dict[tuple[int, int], list[_Place]] = {}
        for argument, pictures in enumerate(self._pictures):
            shape = self._mode.working_shape(*pictures.shape[-2:])
            rows = (_Place(argument, row) for row in range(len(pictures)))
            places.setdefault(shape, []).extend(rows)
        return places

    def most_bytes(self, places: Sequence[_Place], pixels: int) -> float:
        """Memory that the largest picture takes at once, with `pixels` of them in the network."""
        largest = max(_full_bytes(self._pictures[i], self._settings.variants) for i, _ in places)
        network = activation_bytes(self._engine.network.width, self._engine.precision)
        return largest + pixels * network

    def compute(self, places: Sequence[_Place]) -> None:
        """Colorize pictures of one working shape in one forward pass."""
        slices = list(_slices(places))
        sources = [self._pictures[argument][rows] for argument, rows in slices]
        lightness, gray = zip(
            *(self._mode.read(source, self._engine.device) for source in sources), strict=True
        )
        ab = self._predict(torch.cat(gray))
        variants = self._settings.variants
        chroma = ab.split([len(source) * variants for source in sources])
        for (argument, rows), *lab in zip(slices, lightness, chroma, strict=True):
            rgb = self._mode.paint(lab[0], lab[1], self._pictures[argument].dtype)
            # Without waiting, so that the GPU goes on with the next; `results` waits for all.
            self._result(argument)[rows].flatten(0, 1).copy_(rgb, non_blocking=rgb.is_cuda)

    def _predict(self, gray: Tensor) -> Tensor:
        count = gray.shape[2] * gray.shape[3] // self._engine.network.cell_size**2
        n_anchors = min(int(self._settings.n_anchors), count)
        init = self._mode.first_centers(n_anchors, count, self._settings.seed)
        if init is not None:
            init = init.to(gray.device).expand(len(gray), -1)
        variants, seed = self._settings.variants, self._settings.seed
        offset = None
        if self._settings.mode == "full":
            offset = self._engine.offset(self._settings.vividness)
        return self._engine.chroma(gray, n_anchors, init, variants, seed, offset)

    def _result(self, argument: int) -> Tensor:
        if argument not in self._painted:
            pictures = self._pictures[argument]
            shape = self._mode.result_shape(*pictures.shape[-2:])
            # A GPU copies to pinned memory while it computes.
            self._painted[argument] = torch.empty(
                (len(pictures), self._settings.variants, 3, *shape),
                dtype=pictures.dtype,
                device=pictures.device,
                pin_memory=self._engine.device.type == "cuda" and pictures.is_pinned(),
            )
        return self._painted[argument]

    def does_not_fit(self, place: _Place) -> str:
        """What to say of a picture that alone needs more memory than there is."""
        height, width = self._pictures[place.argument].shape[-2:]
        return (
            f"a picture of {height} x {width} pixels does not fit into the memory of "
            f"{self._engine.device} at working_size {self._settings.working_size}: "
            "choose a smaller working_size, or a smaller picture"
        )

    def results(self) -> list[Tensor]:
        """The results in the form of the arguments."""
        to_cpu = any(image.device.type == "cpu" for image in self._images)
        if to_cpu and self._engine.device.type == "cuda":
            torch.cuda.current_stream(self._engine.device).synchronize()
        results = []
        for argument, image in enumerate(self._images):
            painted = self._painted[argument]
            each = painted.shape[1:2] if self._settings.variants > 1 else ()
            results.append(painted.reshape(*image.shape[:-3], *each, *painted.shape[2:]))
        return results


def _slices(places: Sequence[_Place]) -> Iterator[tuple[int, slice]]:
    """Neighbouring rows of one argument as one slice of it."""
    for argument, run in groupby(places, key=itemgetter(0)):
        rows = [place.row for place in run]
        yield argument, slice(rows[0], rows[-1] + 1)


def _full_bytes(pictures: Tensor, variants: int) -> int:
    """Most memory that a picture [C,H,W] of a batch takes at full size while it is computed.

    Itself (floating: also clamped), its lightness (of several variants: also once for each), and
    twice its results, in the type of the arithmetic and in its own.
    """
    _, channels, height, width = pictures.shape
    item, floating = pictures.element_size(), pictures.is_floating_point()
    arithmetic = max(4, item)
    picture = channels * (item + arithmetic if floating else item)
    lightness = arithmetic * (1 + variants if variants > 1 else 1)
    results = 3 * variants * (item + (arithmetic if floating else item))
    return height * width * (picture + lightness + results)


def colorize(
    image: Tensor,
    *,
    checkpoint: str | Path | None = None,
    n_anchors: int | str = 8,
    variants: int = 1,
    temperature: float = 1.0,
    seed: int = 0,
    working_size: int = 256,
    precision: str = "auto",
    device: torch.device | str | None = None,
    mode: str = "full",
    vividness: float | None = None,
    anchors: Sequence[GivenAnchor] | None = None,
) -> Tensor:
    """Colorize pictures: `Colorizer(checkpoint, device, precision).colorize(image, ...)`.

    The last few networks are kept, so that calls in a loop load a checkpoint once.

    Args:
        image: (..., 1 or 3, H, W), uint8 0-255 or floating 0-1.
        checkpoint: as for `Colorizer`, but not a module.
        n_anchors: as for `Colorizer.colorize`, like the next four.
        variants: see there.
        temperature: see there.
        seed: see there.
        working_size: see there.
        precision: as for `Colorizer`.
        device: where to compute; where `image` is, if None.
        mode: see there.
        vividness: see there.
        anchors: see there.

    Returns:
        RGB like `image`; see `Colorizer.colorize`.

    Raises:
        TypeError, ValueError, FileNotFoundError: naming the argument that does not fit, before any
            work.
    """
    _check_image(image)
    check_settings(n_anchors, variants, seed, working_size, mode, temperature, vividness)
    colorizer = _cached_colorizer(
        checkpoint, str(image.device if device is None else device), precision
    )
    return colorizer.colorize(
        image,
        n_anchors=n_anchors,
        variants=variants,
        temperature=temperature,
        seed=seed,
        working_size=working_size,
        mode=mode,
        vividness=vividness,
        anchors=anchors,
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
        low, high = (value.item() for value in image.detach().aminmax())
        if not (low >= -_TOLERANCE and high <= 1 + _TOLERANCE):  # false for NaN too
            raise ValueError(f"{expected}, got values from {low} to {high}")


def check_settings(
    n_anchors: int | str,
    variants: int,
    seed: int,
    working_size: int,
    mode: str,
    temperature: float = 1.0,
    vividness: float | None = None,
) -> None:
    """Raise TypeError or ValueError, naming the setting of `colorize` that does not fit."""
    _check_int("n_anchors", 8 if n_anchors == "auto" else n_anchors, 1, 2**31)
    _check_int("variants", variants, 1, MOST_VARIANTS)
    _check_int("seed", seed, -(2**63), 2**63 - 1)
    _check_int("working_size", working_size, 16, 4096)
    if not isinstance(temperature, Real):
        raise TypeError(f"temperature: expected a number, got {type(temperature).__name__}")
    if not 0 < temperature <= _HOTTEST:
        raise ValueError(f"temperature: expected more than 0, to {_HOTTEST}, got {temperature}")
    if mode not in MODES:
        raise ValueError(f"mode: expected one of {', '.join(MODES)}, got {mode!r}")
    if mode != "full" and (n_anchors == "auto" or variants > MAX_VARIANTS):
        raise ValueError(
            f'mode: only "full" finds the number of anchors, or draws more than {MAX_VARIANTS}'
            f" variants, got {mode!r}"
        )
    if vividness is not None:
        check_vividness(vividness)
        if mode != "full":
            raise ValueError(f"vividness: expected None in mode {mode!r}, got {vividness}")


def _check_int(name: str, value: object, low: int, high: int) -> None:
    if not isinstance(value, Integral):
        raise TypeError(f"{name}: expected an int, got {type(value).__name__}")
    if not low <= int(value) <= high:
        raise ValueError(f"{name}: expected {low}..{high}, got {value}")
