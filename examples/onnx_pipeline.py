"""The networks in onnxruntime, and the ops of disco_fast between them.

disco-fast export networks/
python examples/onnx_pipeline.py networks/ examples/photographs/coffee.jpg colored.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import onnxruntime
import torch
from torch import Tensor

from disco_fast import ops
from disco_fast.color import AB_SCALE, bin_centers, normalize_lightness
from disco_fast.io.images import Picture, read_image, to_pixels, to_tensor, write_image
from disco_fast.model.pooling import pool
from disco_fast.model.readout import TEMPERATURE, Readout
from disco_fast.model.transformer import position_encoding

CELL_SIZE = 16


class Networks:
    """The four exported networks."""

    def __init__(self, folder: Path):
        self._sessions = {
            path.stem: onnxruntime.InferenceSession(path) for path in folder.glob("*.onnx")
        }

    def offset(self, vividness: float | None) -> Tensor:
        """What a vividness adds to the color logits, [313]."""
        metadata = self._sessions["color_modeler"].get_modelmeta().custom_metadata_map
        readout = Readout.from_json(metadata["readout"])
        likely, vivid = readout.ends()
        return likely + vivid * (readout.vividness if vividness is None else vividness)

    def run(self, name: str, **inputs: Tensor) -> list[Tensor]:
        """The outputs of one of them."""
        given = {key: value.numpy() for key, value in inputs.items()}
        return [torch.from_numpy(array) for array in self._sessions[name].run(None, given)]


def chroma(
    networks: Networks, gray: Tensor, n_anchors: int = 8, vividness: float | None = None
) -> Tensor:
    """Lightness (L - 50) / 50 [1,1,H,W], sides multiples of 16, to ab/110 [1,2,H,W]."""
    rows, columns = (side // CELL_SIZE for side in gray.shape[2:])
    position = position_encoding(rows, columns)
    association, features = networks.run("features", gray=gray)
    pooled, _, size = pool(features, association, CELL_SIZE)
    tokens = pooled.flatten(2).transpose(1, 2).contiguous()
    color_tokens, logits = networks.run("color_modeler", tokens=tokens, position=position)
    labels, _, _ = ops.kmeans(color_tokens, ops.kmeans_init(color_tokens, n_anchors))
    anchors, bins = ops.choose_anchors(
        labels, size.flatten(1), logits, bin_centers("cpu"), n_anchors, 1,
        networks.offset(vividness), TEMPERATURE,
    )  # fmt: skip
    mask = torch.zeros(1, rows * columns, 1).scatter_(1, anchors[..., None], 1.0)
    label = torch.zeros(1, rows * columns, dtype=torch.int64).scatter_(1, anchors, bins[:, 0])
    (guided,) = networks.run(
        "color_generator", tokens=tokens, mask=mask, bins=label, position=position
    )
    guided_map = guided.transpose(1, 2).unflatten(2, (rows, columns)).contiguous()
    pixels = ops.sp_diffuse(guided_map, association, CELL_SIZE, gray)
    return networks.run("refinenet", pixels=pixels)[0]


def main() -> None:
    """Colorize a picture, cut to multiples of 16."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()

    image = to_tensor(read_image(arguments.picture).pixels)
    height, width = (side // CELL_SIZE * CELL_SIZE for side in image.shape[1:])
    lightness = ops.rgb_to_l(image[None, :, :height, :width].contiguous())
    ab = AB_SCALE * chroma(Networks(arguments.networks), normalize_lightness(lightness))
    colored = ops.lab_to_rgb(lightness, ab, True)[0]
    write_image(arguments.target, Picture(to_pixels(colored, colored.numpy().dtype)))


if __name__ == "__main__":
    main()
