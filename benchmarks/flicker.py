"""How much a video's colors flicker: frame by frame, and with what `disco-fast video` does.

    python benchmarks/flicker.py --frames 12  # a quick look
    python benchmarks/flicker.py --clip VIDEO --json benchmarks/results/flicker-cpu.json

Flicker is the mean change of ab from a frame to the next along the optical flow (Farneback, on the
lightness of the video as it came), where the lightness says that both show the same thing.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from harness.clock import context, default_device
from harness.inputs import PHOTOGRAPHS
from harness.report import Report, caption, digits, save, table
from torch import Tensor

from disco_fast import Colorizer
from disco_fast.evaluate.metrics import colorfulness
from disco_fast.io.images import read_image
from disco_fast.io.photographs import to_lab
from disco_fast.video import film
from disco_fast.video.tracking import Tracker

SIZE = 180, 320  # of the pan
STEP = 4  # pixels a frame
GRAIN = 4.0  # standard deviation of the pan's noise, of 255: as in an old film
SAME = 5.0  # of L: within that the flow is believed
WAYS = ("frame by frame", "anchors tracked", "and chroma smoothed")


def pan(photograph: Path, frames: int) -> Tensor:
    """A camera that moves over a photograph, with grain; [N,1,H,W] uint8."""
    rgb, (height, width) = read_image(photograph).pixels, SIZE
    scale = max(height / rgb.shape[0], (width + frames * STEP) / rgb.shape[1])
    gray = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    gray = cv2.resize(gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    top, draws, found = (gray.shape[0] - height) // 2, np.random.default_rng(0), []
    for start in range(0, frames * STEP, STEP):
        view = gray[top : top + height, start : start + width]
        noisy = view + draws.normal(0, GRAIN, view.shape)
        found.append(np.rint(noisy.clip(0, 255)).astype(np.uint8))
    return torch.from_numpy(np.stack(found))[:, None]


def clip(path: Path, frames: int) -> Tensor:
    """The first frames of a video without their colors, [N,1,H,W] uint8."""
    read = islice(film.frames(path), frames)
    grays = [cv2.cvtColor(frame.pixels, cv2.COLOR_RGB2GRAY) for frame in read]
    return torch.from_numpy(np.stack(grays))[:, None]


def colored(colorizer: Colorizer, frames: Tensor, way: str) -> Tensor:
    """The video in color, [N,3,H,W] uint8."""
    if way == WAYS[0]:
        return torch.cat([colorizer.colorize(frame[None]) for frame in frames])
    tracker = (
        Tracker(colorizer.engine, smoothing=0.0) if way == WAYS[1] else Tracker(colorizer.engine)
    )
    return torch.cat([tracker.colorize(frame[None]) for frame in frames])


def flicker(frames: Tensor, video: Tensor) -> float:
    """Mean length of the change of ab, in Lab units."""
    changes = []
    for n in range(1, len(frames)):
        before, now = (frame[0].numpy() for frame in frames[n - 1 : n + 1])
        flow = cv2.calcOpticalFlowFarneback(now, before, None, 0.5, 4, 21, 3, 7, 1.5, 0)  # type: ignore[call-overload]
        y, x = np.indices(now.shape, np.float32)
        places = x + flow[..., 0], y + flow[..., 1]
        was_ab, was = (
            cv2.remap(values, *places, cv2.INTER_LINEAR)
            for values in (_ab(video[n - 1]), cv2.GaussianBlur(before, (0, 0), 2))
        )
        difference = np.abs(was.astype(float) - cv2.GaussianBlur(now, (0, 0), 2)) / 2.55
        inside = (places[0] >= 0) & (places[0] < now.shape[1] - 1)
        inside &= (places[1] >= 0) & (places[1] < now.shape[0] - 1)
        change = np.hypot(*np.moveaxis(_ab(video[n]) - was_ab, 2, 0))
        changes.append(change[inside & (difference < SAME)].mean())
    return float(np.mean(changes))


def _ab(image: Tensor) -> np.ndarray:
    return np.ascontiguousarray(to_lab(image.permute(1, 2, 0).numpy())[..., 1:])


def measure(device: torch.device, clips: Sequence[Path], frames: int) -> Report:
    """Every video in every way."""
    colorizer = Colorizer(device=device)
    videos = {
        f"pan over {path.stem}": pan(path, frames) for path in sorted(PHOTOGRAPHS.glob("*.jpg"))
    }
    videos |= {path.name: clip(path, frames) for path in clips}
    rows = []
    for name, shown in videos.items():
        for way in WAYS:
            made = colored(colorizer, shown, way)
            rows.append(
                {
                    "video": name,
                    "frames": len(shown),
                    "way": way,
                    "flicker": round(flicker(shown, made), 4),
                    "colorfulness": round(float(colorfulness(made).mean()), 2),
                }
            )
    return {
        "what": "flicker",
        "context": context(device),
        "settings": {"grain": GRAIN, "step": STEP},
        "rows": rows,
    }


def flicker_table(reports: Sequence[Report]) -> str:
    """Flicker, and colorfulness in brackets, of every video in every way."""
    parts = []
    for report in reports:
        videos: dict[str, dict[str, Report]] = {}
        for row in report["rows"]:
            videos.setdefault(row["video"], {})[row["way"]] = row
        ways = list(next(iter(videos.values())))
        rows = []
        for name, found in videos.items():
            cells = [f"{found[w]['flicker']:.2f} ({found[w]['colorfulness']:.0f})" for w in ways]
            times = digits(found[ways[0]]["flicker"] / found[ways[-1]]["flicker"])
            rows.append([name, *cells, f"{times}x"])
        what = (
            "Mean change of ab from one frame to the next, along the optical flow (in brackets "
            "colorfulness)."
        )
        parts += [table(["", *ways, "less"], rows), f"{what} {caption(report)}"]
    return "\n\n".join(parts)


TABLES = {"flicker": flicker_table}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", type=torch.device, default=default_device())
    parser.add_argument("--clip", type=Path, nargs="*", default=[], metavar="VIDEO")
    parser.add_argument("--frames", type=int, default=60, help="of each video")
    parser.add_argument("--json", type=Path, metavar="FILE")
    a = parser.parse_args(argv)
    if a.frames < 2:
        parser.error(f"--frames: expected at least 2, got {a.frames}")
    report = measure(a.device, a.clip, a.frames)
    print(flicker_table([report]))
    if a.json:
        save(report, a.json)


if __name__ == "__main__":
    main()
