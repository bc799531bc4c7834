"""One set of options behind every signature, images that are checked once, and extras."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from disco_fast import ColorizeOptions, Colorizer, colorize
from disco_fast._extras import MissingExtraError, need
from disco_fast.options import Settings
from disco_fast.transforms import Colorize

ROOT = Path(__file__).parents[1]
IMAGE = torch.linspace(0, 1, 48 * 64).view(1, 48, 64)
NETWORK = {"device": "cpu", "precision": "fp32"}


def test_they_are_values():
    given = ColorizeOptions(n_anchors=np.int64(5), seed=np.uint8(3), vividness=np.float32(0.5))
    assert given == ColorizeOptions(n_anchors=5, seed=3, vividness=0.5)
    assert (type(given.n_anchors), type(given.vividness)) == (int, float)
    with pytest.raises(FrozenInstanceError):
        given.seed = 4


def test_the_typed_names_are_the_options():
    options = {field.name: field.type for field in fields(ColorizeOptions)}
    typed = {name: kind.__forward_arg__ for name, kind in Settings.__annotations__.items()}
    assert typed == options


@pytest.mark.parametrize(
    "call",
    [
        lambda **settings: colorize(IMAGE, **NETWORK, **settings),
        lambda **settings: Colorizer(**NETWORK).colorize(IMAGE, **settings),
        lambda **settings: Colorizer(**NETWORK).colorize_all([IMAGE], **settings),
        lambda **settings: Colorizer(**NETWORK).analyze(IMAGE, **settings),
        Colorize,
    ],
    ids=["colorize", "Colorizer.colorize", "colorize_all", "analyze", "transform"],
)
def test_every_signature_refuses_alike(call: Callable[..., object]):
    with pytest.raises(TypeError, match="unexpected keyword argument 'anchor_count'"):
        call(anchor_count=3)
    with pytest.raises(ValueError, match=r"working_size: expected 16\.\.4096, got 8"):
        call(working_size=8)


@pytest.mark.parametrize(
    ("call", "where"),
    [
        (lambda image, **s: Colorizer(**NETWORK).analyze(image, **s), "in an analysis"),
        (lambda _, **s: Colorize(**s), "in a"),
    ],
    ids=["analyze", "transform"],
)
def test_one_result_has_one_variant(call: Callable[..., object], where: str):
    with pytest.raises(ValueError, match=f"variants: expected 1 {where}"):
        call(IMAGE, variants=2)
    with pytest.raises(ValueError, match=f"mode: expected full {where}"):
        call(IMAGE, mode="reference")


class Extremes(TorchDispatchMode):
    """Counts how often the range of a tensor as large as the image is taken."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.name().startswith("aten::aminmax"):
            self.count += args[0].numel() == IMAGE.numel()
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "call",
    [
        lambda image: colorize(image, **NETWORK),
        lambda image: colorize(image, **NETWORK, anchors=[((9, 9), "#c03030")]),
        lambda image: colorize(image, **NETWORK, n_anchors="auto"),
        lambda image: Colorizer(**NETWORK).colorize_all([image]),
        lambda image: Colorizer(**NETWORK).analyze(image).colorize(),
    ],
    ids=["colorize", "anchors", "auto", "colorize_all", "analyze"],
)
def test_an_image_is_checked_once(call: Callable[[Tensor], object]):
    with Extremes() as extremes:
        call(IMAGE)
    assert extremes.count == 1


def test_every_extra_that_is_named_exists():
    text = (ROOT / "pyproject.toml").read_text()
    table = text.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    extras = set(re.findall(r"^(\w+) = \[", table, flags=re.MULTILINE))
    sources = "".join(path.read_text() for path in (ROOT / "disco_fast").rglob("*.py"))
    named = set(re.findall(r'need\(\s*"(\w+)"', sources))
    assert named >= {"download", "evaluate", "export", "formats", "train", "video", "web"}
    assert named <= extras


def test_what_is_missing_is_named_with_its_extra():
    message = r"no_such_package is missing: python -m pip install 'disco_fast\[video\]'"
    with pytest.raises(MissingExtraError, match=message) as caught:
        need("video", "no_such_package.inner")
    assert isinstance(caught.value, ImportError)
    assert caught.value.name == "no_such_package"
