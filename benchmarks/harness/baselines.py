"""Other ways to run the whole network, and the comparison each must pass before it is timed."""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock, patch

import torch
from torch import Tensor, nn

from disco_fast._extras import MissingExtraError, need
from disco_fast.engine import Engine
from disco_fast.engine.convolutions import fold_spectral_norm
from disco_fast.engine.graphs import settled
from disco_fast.model import DISCO, DISCOOutput
from disco_fast.model.scale import TOKEN_DIM

from . import N_ANCHORS
from . import published as published_ops
from .inputs import calibration_crops

CONVOLUTIONAL = {"segnet": 1, "repnet": 1, "enhanceNet": 1 + TOKEN_DIM}  # input channels
HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "bf16"}  # int8: of what is not quantized

# From gray [1,1,H,W] and first centers [1,K] to a DISCOOutput, or to ab alone.
Forward = Callable[[Tensor, Tensor], Any]
Build = Callable[[DISCO, int, torch.device], Forward]  # of a network, for images of one side


class LeftOutError(RuntimeError):
    """A rival that cannot run here; the message says why."""


# ---- Rivals --------------------------------------------------------------------------------------


def published(network: DISCO, size: int, device: torch.device) -> Forward:
    """The published eager path: the network on `harness.published`."""
    return _forward(_published(network, device))


def compiled(network: DISCO, size: int, device: torch.device) -> Forward:
    """The published path, torch.compile around its three convolutional networks."""
    eager = _published(network, device)
    for name in CONVOLUTIONAL:
        setattr(eager, name, torch.compile(getattr(eager, name), dynamic=False))
    forward = _forward(eager)
    try:
        with torch.inference_mode():
            gray = torch.zeros(1, 1, size, size, device=device)
            forward(gray, torch.arange(1, device=device)[None])
    except RuntimeError as error:  # no C++ compiler, no Triton, no header of Python
        raise LeftOutError(f"torch.compile: {str(error).strip().splitlines()[0]}") from error
    return forward


def openvino(precision: str) -> Build:
    """The engine, its three convolutional networks run by OpenVINO."""

    def build(network: DISCO, size: int, device: torch.device) -> Forward:
        if device.type != "cpu":
            raise LeftOutError("runs on CPUs only")
        # It would report this use to OpenVINO's makers.
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
        vino = _needed("openvino")
        folded = _copy(network, device)
        fold_spectral_norm(folded)
        fast = Engine(network, "fp32", device).network
        seen = _inputs_of(fast) if precision == "int8" else {}
        for name, channels in CONVOLUTIONAL.items():
            example = torch.zeros(1, channels, size, size)
            part = "fp32" if precision == "int8" and name == "segnet" else precision  # as ours
            inside = _InOpenVINO(vino, getattr(folded, name), example, part, seen.get(name, ()))
            setattr(fast, name, inside)
        return _forward(fast)

    return build


def _needed(package: str) -> Any:
    """A package without which a rival is left out."""
    try:
        return need("bench", package)
    except MissingExtraError as error:
        raise LeftOutError(str(error)) from error


def _inputs_of(network: DISCO) -> dict[str, list[Tensor]]:
    """What its convolutional networks take for the crops that ranges are measured on."""
    seen: dict[str, list[Tensor]] = {name: [] for name in CONVOLUTIONAL}
    hooks = [
        network.get_submodule(name).register_forward_pre_hook(
            lambda _, inputs, into=into: into.append(inputs[0])
        )
        for name, into in seen.items()
    ]
    with torch.inference_mode():
        for gray in calibration_crops():
            network(gray, N_ANCHORS)
    for hook in hooks:
        hook.remove()
    return seen


class _InOpenVINO(nn.Module):
    """A network converted for inputs shaped as an example; as many threads as torch has.

    Args:
        vino: the package.
        network: what is converted.
        example: of its input.
        precision: of its convolutions.
        seen: inputs, if those are to be in int8, by NNCF.
    """

    def __init__(
        self,
        vino: Any,
        network: nn.Module,
        example: Tensor,
        precision: str,
        seen: Sequence[Tensor] = (),
    ):
        super().__init__()
        model = vino.convert_model(network, example_input=example, input=[list(example.shape)])
        if precision == "int8":
            nncf = _needed("nncf")
            model = nncf.quantize(model, nncf.Dataset([x.numpy() for x in seen]))
        settings = {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        self._request = vino.Core().compile_model(model, "CPU", settings)

    def forward(self, x: Tensor) -> Tensor:
        """As the network."""
        return torch.from_numpy(self._request(x.numpy())[0])


def official(folder: Path) -> Build:
    """The official network, which gives ab alone."""

    def build(network: DISCO, size: int, device: torch.device) -> Forward:
        code = load_official(folder, network.state_dict(), device)

        def forward(gray: Tensor, kmeans_init: Tensor) -> Any:
            def start(points: Tensor, _: int) -> Tensor:
                return points[kmeans_init[0]]

            with patch.object(code.clusterkit, "initialize", start):
                return code(gray)

        return forward

    return build


def engine(fast: Engine) -> Forward:
    """The engine, for comparison: everything it computes."""
    return _forward(fast)


def chroma(fast: Engine) -> Forward:
    """The engine, for timing: ab alone, as a user gets it."""

    def forward(gray: Tensor, kmeans_init: Tensor) -> Tensor:
        return fast.chroma(gray, kmeans_init.shape[1], kmeans_init)

    return forward


def _copy(network: DISCO, device: torch.device) -> DISCO:
    weights = {key: value.clone() for key, value in network.state_dict().items()}
    return network.alike(weights).requires_grad_(False).to(device)


def _published(network: DISCO, device: torch.device) -> DISCO:
    eager = _copy(network, device)
    eager.ops = published_ops
    return eager


def _forward(network: nn.Module) -> Forward:
    def forward(gray: Tensor, kmeans_init: Tensor) -> Any:
        return network(gray, kmeans_init.shape[1], kmeans_init)

    return forward


RIVALS: dict[str, tuple[Build, str]] = {
    "published": (published, "fp32"),
    "compiled": (compiled, "fp32"),
    "openvino_fp32": (openvino("fp32"), "fp32"),
    "openvino_bf16": (openvino("bf16"), "bf16"),
    "openvino_int8": (openvino("int8"), "int8"),
}

# ---- The official code ---------------------------------------------------------------------------

UNUSED = ("torchvision", "matplotlib", "matplotlib.pyplot", "skimage", "skimage.segmentation")


@dataclass(frozen=True)
class Official:
    """The official modules and its network in eval mode.

    https://github.com/MenghanXia/DisentangledImageColorization, from a checkout; nothing of it is
    copied. It is made to run where it otherwise would not: on a CPU its hard-coded `.cuda()` calls
    become the identity, and packages that its inference never calls may be absent.

    Attributes:
        basic: holds `poolfeat`, `upfeat` and `get_spixel_size`.
        clusterkit: holds `kmeans` and `batch_kmeans_pytorch`.
        network: `AnchorColorProb` as its `inference.py` builds it.
    """

    basic: ModuleType
    clusterkit: ModuleType
    network: nn.Module

    def __call__(self, gray: Tensor) -> Tensor:
        """Chroma ab / 110 of one image, [1,2,H,W]."""
        colors = gray.new_zeros(1, 2, *gray.shape[-2:])
        return self.network(gray, colors, test_mode=True)[2]


def load_official(folder: Path, state: dict[str, Tensor], device: torch.device) -> Official:
    """Import the checkout and build its network with the given weights. Changes torch.

    Raises:
        FileNotFoundError: the folder is no checkout of the official repository.
    """
    if not (folder / "models" / "clusterkit.py").is_file():
        raise FileNotFoundError(f"--official: no models/clusterkit.py in {folder}")
    for name in UNUSED:
        try:
            importlib.import_module(name)
        except ImportError:
            sys.modules[name] = MagicMock()
    if device.type == "cpu":
        torch.Tensor.cuda = torch.nn.Module.cuda = lambda self, *_, **__: self  # type: ignore
    sys.path[:0] = [str(folder.resolve()), str(folder.resolve() / "models")]
    basic, clusterkit = importlib.import_module("basic"), importlib.import_module("clusterkit")
    basic.ColorLabel = functools.partial(_color_label, basic.ColorLabel, device)  # type: ignore
    with _inside(folder / "main" / "colorizer"):  # it loads ../../utils/*.npy
        network = importlib.import_module("model").AnchorColorProb(enhanced=True)
    network.load_state_dict(state)
    return Official(basic, clusterkit, network.to(device).eval())


def _color_label(original: type, here: torch.device, device: object = None) -> object:
    return original(device=here)


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


# ---- Nothing is timed before it is right ---------------------------------------------------------

VALIDATED = 4  # images

# Largest absolute difference in fp32; labels and anchors must be equal.
FP32_BOUNDS = {
    "association": 1e-5,
    "color_tokens": 2e-4,
    "kmeans_labels": 0,
    "anchor_index": 0,
    "guided_tokens": 2e-4,
    "ab": 1e-3,
}
# In a reduced precision only ab is compared, of the images whose anchors and colors came out equal,
# and by its mean difference in units of 110. The bound is a tenth of ab's own spread, so it tells a
# wrong result from a rounded one.
REDUCED_BOUND = 0.005


class ValidationError(AssertionError):
    """disco_fast computes something else than the published path."""


def validate(
    published: Callable[..., DISCOOutput],
    fast: Callable[..., DISCOOutput],
    precision: str,
    gray: Tensor,
    init: Tensor,
) -> dict[str, float]:
    """Compare both on the same images.

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
    """As `validate`, for results that are there."""
    return _compare_fp32(expected, got) if precision == "fp32" else _compare_ab(expected, got)


def compare_chroma(expected: Tensor, got: Tensor) -> dict[str, float]:
    """As `validate` in fp32, for a rival that gives ab alone."""
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
    _require(bool(alike.any()), "no image has the published path's anchors and colors")
    difference = _difference(expected.ab[alike], got.ab[alike])
    mean = difference.mean().item()
    _require(
        mean <= REDUCED_BOUND, f"ab: differs by {mean:.3g} on average, allowed {REDUCED_BOUND}"
    )
    return {
        "ab_mean": mean,
        "ab": difference.max().item(),
        "images_compared": int(alike.sum()),
    }


def _require(condition: bool, message: str) -> None:
    if not condition:  # a NaN fails every comparison, so it ends up here too
        raise ValidationError(f"validation: {message}")
