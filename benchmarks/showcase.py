"""The picture at the top of the README: input, result and original of four example photographs.

python benchmarks/showcase.py docs/images/showcase.jpg
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from _extras import need
from _photographs import FOLDER

from disco_fast import Colorizer, ops
from disco_fast.io.images import Picture, read_image, write_image

NAMES = ("china", "coffee", "chelsea", "flower")
ROWS = ("input", "disco_fast", "original")
HEIGHT, WIDTH, GUTTER, MARGIN = 172, 258, 6, 134
FONT = 22


def column(colorizer: Colorizer, photograph: torch.Tensor) -> list[np.ndarray]:
    """Input, result and original, each (HEIGHT, WIDTH, 3), of a photograph [3,H,W] uint8."""
    gray = ops.lab_to_rgb(ops.rgb_to_l(photograph[None]), torch.zeros(1, 2, 1, 1), True)
    rows = torch.stack([*gray, colorizer.colorize(photograph), photograph])
    _, height, width = photograph.shape
    scale = max(HEIGHT / height, WIDTH / width)
    size = [max(HEIGHT, round(height * scale)), max(WIDTH, round(width * scale))]
    small = torch.nn.functional.interpolate(
        rows.float(), size, mode="bilinear", antialias=True, align_corners=False
    )
    top, left = (size[0] - HEIGHT) // 2, (size[1] - WIDTH) // 2
    tiles = small[..., top : top + HEIGHT, left : left + WIDTH].round().clamp(0, 255)
    return [*tiles.to(torch.uint8).permute(0, 2, 3, 1).numpy()]


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", type=Path)
    target = parser.parse_args().target
    images, drawing, fonts = (need(f"PIL.{name}") for name in ("Image", "ImageDraw", "ImageFont"))
    colorizer = Colorizer(device="cpu")
    size = (
        MARGIN + len(NAMES) * (WIDTH + GUTTER) - GUTTER,
        len(ROWS) * (HEIGHT + GUTTER) - GUTTER,
    )
    canvas = images.new("RGB", size, "white")
    pen, font = drawing.Draw(canvas), fonts.load_default(FONT)
    for row, label in enumerate(ROWS):
        middle = row * (HEIGHT + GUTTER) + HEIGHT // 2
        pen.text((MARGIN - 14, middle), label, fill="black", font=font, anchor="rm")
    for number, name in enumerate(NAMES):
        pixels = torch.from_numpy(read_image(FOLDER / f"{name}.jpg").pixels).permute(2, 0, 1)
        for row, tile in enumerate(column(colorizer, pixels)):
            place = (MARGIN + number * (WIDTH + GUTTER), row * (HEIGHT + GUTTER))
            canvas.paste(images.fromarray(tile), place)
    write_image(target, Picture(np.array(canvas)), quality=90)


if __name__ == "__main__":
    main()
