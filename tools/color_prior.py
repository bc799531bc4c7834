"""How often each color occurs in photographs: the prior that ships with the package.

    python tools/color_prior.py --data PHOTOGRAPHS --hold-out 600

writes disco_fast/weights/color-prior.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from disco_fast.io.atomic import whole_file
from disco_fast.io.photographs import Photographs
from disco_fast.train.losses import color_prior

TARGET = Path(__file__).parents[1] / "disco_fast" / "weights" / "color-prior.json"


def main() -> None:
    """Count, and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a folder of photographs")
    parser.add_argument("--hold-out", type=int, default=0, help="leave out the last N; default 0")
    parser.add_argument("--every", type=int, default=10, help="count every n-th; default 10")
    arguments = parser.parse_args()

    photographs = Photographs(arguments.data)
    counted = range(0, len(photographs) - arguments.hold_out, arguments.every)
    prior = color_prior(photographs, counted).double()
    shares = [float(f"{share:.6g}") for share in (prior / prior.sum()).tolist()]
    with whole_file(TARGET) as partial:
        partial.write_text(json.dumps({"photographs": len(counted), "prior": shares}) + "\n")


if __name__ == "__main__":
    main()
