"""Writes the small golden files of this folder from the full ones: python tests/data/make.py
GOLDEN_FOLDER.

The full activations of the published network are 16 MB; kept here are the photograph, the initial
centers, everything that must match exactly (labels, anchors, bins) and a regular sample of
everything that matches to rounding.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np

HERE = Path(__file__).parent
PIXELS = np.s_[..., 8::32, 8::32]
TOKENS = np.s_[:, ::16]
EXACT = ("kmeans_init", "kmeans_labels", "anchor_mask", "anchor_colors", "superpixel_size")
SAMPLED = {
    "association": PIXELS,
    "ab": np.s_[..., 4::8, 4::8],
    "color_tokens": TOKENS,
    "guided_tokens": TOKENS,
    "pooled": np.s_[..., ::4, ::4],
}


def shrink(source: Path, target: Path) -> None:
    """One golden file to its small form."""
    with np.load(source) as full:
        small = {name: full[name] for name in EXACT}
        small |= {name: full[name][window] for name, window in SAMPLED.items()}
        (photograph,) = full["rgb"]
    png = cv2.imencode(".png", cv2.cvtColor(photograph, cv2.COLOR_RGB2BGR))[1]
    np.savez_compressed(target, photograph_png=png, **small)


if __name__ == "__main__":
    golden = Path(sys.argv[1])
    for name in ("square", "diverse"):
        shrink(golden / f"{name}.npz", HERE / f"golden_{name}.npz")
    shutil.copyfile(golden / "bn_stats.npz", HERE / "bn_stats.npz")
    shapes = json.loads((golden / "manifest.json").read_text())
    (HERE / "manifest.json").write_text(json.dumps(shapes, separators=(",", ":")) + "\n")
