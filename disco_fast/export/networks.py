"""The four networks between the ops as ONNX, checked against the originals.

Superpixels and anchors are the ops' work (`ops.sp_pool`, `ops.kmeans`, `ops.choose_anchors`,
`ops.sp_diffuse`), which ONNX has no operators for; `examples/onnx_pipeline.py` puts both together.
How colors are read from the color modeler's logits is in its file's metadata, see `READOUT`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._extras import need
from ..color import N_BINS
from ..engine.convolutions import fold_spectral_norm
from ..io.atomic import whole_file
from ..model import DISCO
from ..model.scale import TOKEN_DIM
from ..model.transformer import position_encoding

TOLERANCE = 1e-3  # onnxruntime sums in another order; the widest network differs by some 1e-5
OPSET = 17  # the first with LayerNormalization
READOUT = "readout"  # its value: `readout.Readout.to_json`


class MismatchError(RuntimeError):
    """What was exported computes something else than the original."""


class _Features(nn.Module):
    """Lightness to association map and pixel features."""

    def __init__(self, network: DISCO):
        super().__init__()
        self.segnet, self.repnet = network.segnet, network.repnet

    def forward(self, gray: Tensor) -> tuple[Tensor, Tensor]:
        return self.segnet(gray), self.repnet(gray)


class _ColorModeler(nn.Module):
    """Superpixels' tokens to color tokens and color logits."""

    def __init__(self, network: DISCO):
        super().__init__()
        self.encoder, self.projection = network.wildpath, network.mid_word_prj

    def forward(self, tokens: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        color_tokens = self.encoder(tokens, position)
        return color_tokens, self.projection(color_tokens)


class _ColorGenerator(nn.Module):
    """Tokens, and anchors with their colors, to guided tokens."""

    def __init__(self, network: DISCO):
        super().__init__()
        self.encoder, self.embedding = network.hintpath, network.trg_word_emb

    def forward(self, tokens: Tensor, mask: Tensor, bins: Tensor, position: Tensor) -> Tensor:
        colors = mask * F.one_hot(bins, N_BINS).to(tokens.dtype)
        return self.encoder(self.embedding(torch.cat([tokens, colors, mask], dim=-1)), position)


class _Model(NamedTuple):
    """One file: its network, and the names of what goes in and comes out with their free axes."""

    name: str
    network: nn.Module
    inputs: Mapping[str, Mapping[int, str]]
    outputs: Mapping[str, Mapping[int, str]]


def export_onnx(
    network: DISCO, folder: Path, opset: int = OPSET, replace: bool = True
) -> list[Path]:
    """Write `features`, `color_modeler`, `color_generator` and `refinenet` as .onnx files.

    Batch, height and width, and the number of superpixels are free. Weights are fp32. Before a file
    takes its name onnxruntime has run it, at two sizes, with the original's results.

    Args:
        network: as published, not one that an engine has prepared; it is not changed.
        folder: an existing one.
        opset: of ONNX, at least 17.
        replace: whether files of these names are replaced.

    Returns:
        The files.

    Raises:
        MissingExtraError: the extra is not installed.
        MismatchError: a result differs by more than 1e-3.
        FileExistsError: there is a file that may not be replaced.
    """
    onnxruntime, onnx = need("export", "onnxruntime"), need("export", "onnx")
    weights = {key: value.clone().cpu() for key, value in network.state_dict().items()}
    copy = network.alike(weights)
    fold_spectral_norm(copy)
    written = []
    for model in _models(copy):
        model.network.eval()  # torch leaves all of it in the mode of its outermost part
        target = folder / f"{model.name}.onnx"
        with whole_file(target, replace) as partial:
            _write(model, partial, network, opset)
            if "color_logits" in model.outputs:
                _add_metadata(onnx, partial, {READOUT: network.readout.to_json()})
            session = onnxruntime.InferenceSession(partial.read_bytes())
            for grid in ((3, 4), (5, 2)):
                _compare(model, session, grid, network)
        written.append(target)
    return written


def _models(network: DISCO) -> list[_Model]:
    pixels = {0: "pictures", 2: "height", 3: "width"}
    tokens = {0: "pictures", 1: "superpixels"}
    position = {1: "superpixels"}
    return [
        _Model(
            "features",
            _Features(network),
            {"gray": pixels},
            {"association": pixels, "features": {0: "pictures", 2: "rows", 3: "columns"}},
        ),
        _Model(
            "color_modeler",
            _ColorModeler(network),
            {"tokens": tokens, "position": position},
            {"color_tokens": tokens, "color_logits": tokens},
        ),
        _Model(
            "color_generator",
            _ColorGenerator(network),
            {"tokens": tokens, "mask": tokens, "bins": tokens, "position": position},
            {"guided_tokens": tokens},
        ),
        _Model("refinenet", network.enhanceNet, {"pixels": pixels}, {"ab": pixels}),
    ]


def _example(name: str, grid: tuple[int, int], network: DISCO) -> Tensor:
    """An input of that name for two pictures of a grid of strides; the same every time."""
    cell_size, cells = network.cell_size, network.stride // network.cell_size
    rows, columns = (length * cells for length in grid)
    draws = torch.Generator().manual_seed(rows)
    count, size = rows * columns, (rows * cell_size, columns * cell_size)
    if name == "position":
        return position_encoding(rows, columns)
    if name == "bins":
        return torch.randint(0, N_BINS, (2, count), generator=draws)
    if name == "mask":
        return (torch.rand(2, count, 1, generator=draws) < 0.3).float()
    if name == "tokens":
        return torch.rand(2, count, TOKEN_DIM, generator=draws)
    return 2 * torch.rand(2, 1 if name == "gray" else 1 + TOKEN_DIM, *size, generator=draws) - 1


def _write(model: _Model, path: Path, network: DISCO, opset: int) -> None:
    example = tuple(_example(name, (4, 3), network) for name in model.inputs)
    with warnings.catch_warnings(), torch.no_grad():
        # torch advises its newer exporter, which fixes what is free here.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.network,
            example,
            str(path),
            input_names=list(model.inputs),
            output_names=list(model.outputs),
            dynamic_axes={**model.inputs, **model.outputs},
            opset_version=opset,
            dynamo=False,
        )


def _add_metadata(onnx: ModuleType, path: Path, metadata: dict[str, str]) -> None:
    written = onnx.load(path)
    onnx.helper.set_model_props(written, metadata)
    onnx.save(written, path)


def _compare(model: _Model, session: Any, grid: tuple[int, int], network: DISCO) -> None:
    given = {name: _example(name, grid, network) for name in model.inputs}
    with torch.no_grad():
        expected = model.network(*given.values())
    expected = (expected,) if isinstance(expected, Tensor) else expected
    found = session.run(None, {name: value.numpy() for name, value in given.items()})
    for name, was, got in zip(model.outputs, expected, found, strict=True):
        difference = float(np.abs(was.numpy() - got).max())
        if not difference <= TOLERANCE:
            raise MismatchError(
                f"{model.name}: {name} differs by {difference:.2g} from the original"
            )
