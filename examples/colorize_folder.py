"""A folder by the Python API; the command `disco-fast colorize` does more.

python examples/colorize_folder.py examples/photographs out/
"""

from __future__ import annotations

import argparse
from pathlib import Path

from disco_fast import Colorizer
from disco_fast.io.images import Picture, read_image, to_pixels, to_tensor, write_image

AT_ONCE = 16  # pictures in memory


def main() -> None:
    """Colorize the JPEG files of a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    arguments.target.mkdir(parents=True, exist_ok=True)

    colorizer = Colorizer()
    paths = sorted(arguments.source.glob("*.jpg"))
    for start in range(0, len(paths), AT_ONCE):
        batch = paths[start : start + AT_ONCE]
        images = [to_tensor(read_image(path).pixels) for path in batch]
        for path, image in zip(batch, colorizer.colorize_all(images), strict=True):
            pixels = to_pixels(image, images[0].numpy().dtype)
            write_image(arguments.target / path.name, Picture(pixels))


if __name__ == "__main__":
    main()
