"""The picture at the top of the README: photographs without colour, colorized, and as they were.

python benchmarks/showcase.py benchmarks/results/showcase.jpg
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from _photographs import FOLDER

from disco_fast import Colorizer, ops
from disco_fast.io.images import Picture, write_image
from disco_fast.io.photographs import Photographs, middle_square

TILE = 224


def column(colorizer: Colorizer, photograph: torch.Tensor) -> torch.Tensor:
    """Gray, colorized and original, one below the other."""
    gray = ops.lab_to_rgb(ops.rgb_to_l(photograph[None]), torch.zeros(1, 2, 1, 1), True)
    return torch.cat([*gray, colorizer.colorize(photograph), photograph], dim=1)


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", type=Path)
    target = parser.parse_args().target
    colorizer, photographs = Colorizer(device="cpu"), Photographs(FOLDER)
    squares = [middle_square(photographs.read(i), TILE) for i in range(len(photographs))]
    columns = [column(colorizer, torch.from_numpy(s).permute(2, 0, 1)) for s in squares]
    write_image(target, Picture(torch.cat(columns, dim=2).permute(1, 2, 0).numpy()))


if __name__ == "__main__":
    main()
