"""Many colorings of a picture, and one in the colors of another.

python examples/variants.py examples/photographs/china.jpg examples/photographs/flower.jpg out/
"""

from __future__ import annotations

import argparse
from pathlib import Path

from disco_fast import Colorizer
from disco_fast.io.images import Picture, read_image, to_pixels, to_tensor, write_image


def main() -> None:
    """Write six variants, and one by the reference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", type=Path)
    parser.add_argument("reference", type=Path, help="a photograph in color")
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    picture, reference = read_image(arguments.picture), read_image(arguments.reference)

    colorizer = Colorizer()
    analysis = colorizer.analyze(to_tensor(picture.pixels), n_anchors="auto")
    named = {
        f"variant-{number}": anchors
        for number, anchors in enumerate(analysis.variants(6, temperature=0.8), 1)
    }
    named["reference"] = analysis.anchors_from(colorizer.analyze(to_tensor(reference.pixels)))

    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name, anchors in named.items():
        pixels = to_pixels(analysis.colorize(anchors), picture.pixels.dtype)
        write_image(arguments.folder / f"{name}.png", Picture(pixels))


if __name__ == "__main__":
    main()
