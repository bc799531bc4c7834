"""Recolor a picture by its anchors.

python examples/anchors_by_hand.py examples/photographs/coffee.jpg recolored.png anchors.json
"""

from __future__ import annotations

import argparse
from pathlib import Path

from disco_fast import Colorizer
from disco_fast.io.images import Picture, read_image, to_pixels, to_tensor, write_image


def main() -> None:
    """Make the largest anchor blue, add one in the middle, and keep all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("anchors", type=Path, help="the JSON file to write")
    arguments = parser.parse_args()
    picture = read_image(arguments.picture)

    analysis = Colorizer().analyze(to_tensor(picture.pixels))  # the backbone runs here, once
    for anchor in analysis.anchors:
        x, y = anchor.pixel
        probable = " ".join(f"{swatch.probability:.0%}" for swatch in anchor.palette[:3])
        print(f"({x:.0f}, {y:.0f}) {anchor.hex}, its most probable colors: {probable}")

    first, *others = sorted(
        analysis.anchors, key=lambda anchor: int(analysis.cluster(anchor).sum()), reverse=True
    )
    width, height = analysis.size
    middle = analysis.anchor((width / 2, height / 2))
    changed = [first.recolored("#3050c0"), *others]
    if middle.superpixel not in {anchor.superpixel for anchor in changed}:
        changed.append(middle)
    colored = analysis.colorize(changed)

    write_image(arguments.target, Picture(to_pixels(colored, picture.pixels.dtype)))
    arguments.anchors.write_text(analysis.to_json(changed))


if __name__ == "__main__":
    main()
