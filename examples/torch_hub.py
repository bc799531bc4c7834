"""By torch.hub, from a checkout or from GitHub.

python examples/torch_hub.py . examples/photographs/coffee.jpg colored.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from disco_fast.io.images import Picture, read_image, to_pixels, to_tensor, write_image


def main() -> None:
    """Colorize a picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("repository", help="a checkout, or OWNER/NAME on GitHub")
    parser.add_argument("picture", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()

    source = "local" if Path(arguments.repository).is_dir() else "github"
    colorizer = torch.hub.load(arguments.repository, "colorizer", source=source, device="cpu")
    picture = read_image(arguments.picture)
    colored = colorizer.colorize(to_tensor(picture.pixels))
    write_image(arguments.target, Picture(to_pixels(colored, picture.pixels.dtype)))


if __name__ == "__main__":
    main()
