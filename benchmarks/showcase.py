"""The picture at the top of the README: photographs without colour, and three colourings of each.

python benchmarks/showcase.py benchmarks/results/showcase.jpg
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
from _photographs import FOLDER

from disco_fast import Colorizer, ops
from disco_fast.image_files import Picture, read_image, write_image

TILE = 224


def tile(path: Path) -> torch.Tensor:
    """The middle square of a photograph, [3,TILE,TILE] uint8."""
    pixels = read_image(path).pixels
    side = min(pixels.shape[:2])
    top, left = ((length - side) // 2 for length in pixels.shape[:2])
    square = np.ascontiguousarray(pixels[top : top + side, left : left + side])
    small = cv2.resize(square, (TILE, TILE), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(small).permute(2, 0, 1)


def column(colorizer: Colorizer, photograph: torch.Tensor) -> torch.Tensor:
    """Gray and three colourings, one below the other."""
    gray = ops.lab_to_rgb(ops.rgb_to_l(photograph[None]), torch.zeros(1, 2, 1, 1), True)
    return torch.cat([*gray, *colorizer.colorize(photograph, variants=3)], dim=1)


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", type=Path)
    target = parser.parse_args().target
    colorizer = Colorizer(device="cpu")
    columns = [column(colorizer, tile(path)) for path in sorted(FOLDER.glob("*.jpg"))]
    write_image(target, Picture(torch.cat(columns, dim=2).permute(1, 2, 0).numpy()))


if __name__ == "__main__":
    main()
