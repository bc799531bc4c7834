"""Pictures on many machines by Ray Data.

python examples/ray_data.py examples/photographs out/ --workers 2
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import ray

from disco_fast.image_files import Picture, read_image, write_image
from disco_fast.integrations.ray import Colorize


def read(row: dict[str, Any]) -> dict[str, Any]:
    """A file's picture; `ray.data.read_images` where all files can be read by Pillow."""
    return {**row, "image": read_image(row["path"]).pixels}


def main() -> None:
    """Colorize the JPEG files of a folder; a worker that dies is replaced, and its batch redone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    arguments.target.mkdir(parents=True, exist_ok=True)

    paths = sorted(arguments.source.glob("*.jpg"))
    rows = ray.data.from_items([{"path": str(path)} for path in paths])
    colored = rows.map(read).map_batches(
        Colorize,
        fn_constructor_kwargs={"n_anchors": 8},
        compute=ray.data.ActorPoolStrategy(size=arguments.workers),  # on GPUs also num_gpus=0.25
        batch_size=4,
    )
    for row in colored.select_columns(["path", "colorized"]).iter_rows():
        write_image(arguments.target / Path(row["path"]).name, Picture(row["colorized"]))


if __name__ == "__main__":
    main()
