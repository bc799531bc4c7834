"""Pictures on many machines by Ray Data.

python examples/ray_data.py examples/photographs out/ --workers 2
"""

from __future__ import annotations

import argparse
from pathlib import Path

import ray

from disco_fast.integrations.ray import Colorize
from disco_fast.io.images import Picture, write_image


def main() -> None:
    """Colorize the JPEG files of a folder; a worker that dies is replaced, and its batch redone.

    A file that is no picture is named, and the others are done.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    arguments.target.mkdir(parents=True, exist_ok=True)

    paths = [str(path.absolute()) for path in sorted(arguments.source.glob("*.jpg"))]
    files = ray.data.read_binary_files(paths, include_paths=True)
    colored = files.map_batches(
        Colorize,
        fn_constructor_kwargs={"column": "bytes", "n_anchors": 8},
        compute=ray.data.ActorPoolStrategy(size=arguments.workers),  # on GPUs also num_gpus=0.25
        batch_size=4,
    )
    for row in colored.select_columns(["path", "colorized", "error"]).iter_rows():
        if row["error"]:
            print(f"{row['path']}: {row['error']}")
        else:
            write_image(arguments.target / Path(row["path"]).name, Picture(row["colorized"]))


if __name__ == "__main__":
    main()
