"""Renders the tables and images of the documents from benchmarks/results/*.json.

    python benchmarks/render.py              # rewrite the documents, and the plots if stale
    python benchmarks/render.py --check      # fail if that would change anything
    python benchmarks/render.py --draw web   # take the screenshot anew; or the showcase

A table stands between `<!-- table:NAME -->` and `<!-- /table -->`, each in exactly one of the
documents: README.md, docs/*.md and benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import functools
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import anchors
import cv2
import engine
import flicker
import gpu_check
import numpy as np
import official
import ops
import precision
import quality
import serving
import timing
import torch
import training
from harness import plots
from harness.inputs import PHOTOGRAPHS
from harness.report import NONE, RESULTS, ROOT, Report, load, machine, table

from disco_fast import Colorizer
from disco_fast._extras import need
from disco_fast.io.images import Picture, read_image, write_image
from disco_fast.ops import lab_to_rgb, rgb_to_l

IMAGES = ROOT / "docs" / "images"
DOCUMENTS = ("README.md", "docs/*.md", "benchmarks/README.md")
MARKED = re.compile(r"(<!-- table:(\w+) -->\n).*?(<!-- /table -->)", re.DOTALL)

Table = Callable[[Sequence[Report]], str]

SUITES = {  # by what their reports say that they are
    "timing": timing,
    "ops": ops,
    "official": official,
    "engine": engine,
    "precision": precision,
    "training": training,
    "quality": quality,
    "anchors": anchors,
    "flicker": flicker,
    "serving": serving,
    "gpu": gpu_check,
}
PERFORMANCE = ("timing", "ops", "official", "engine", "gpu", "profile")
PLOTS = {  # by file: of which reports, and how
    "speed.svg": ("engine", plots.speed),
    "engine.svg": ("engine", plots.costs),
    "quality.svg": ("quality", plots.tradeoff),
}


# ---- Tables --------------------------------------------------------------------------------------


def machines(reports: Sequence[Report]) -> str:
    """What the performance tables were measured on, and when: once, for all of them."""
    parts = []
    for name in dict.fromkeys(map(machine, reports)):
        own = [report for report in reports if machine(report) == name]
        torches = dict.fromkeys(report["context"]["torch"] for report in own)
        rows = [
            [
                f"[{report['file']}]({_from_root(RESULTS / report['file'])})",
                report["context"]["date"],
                report["context"]["commit"],
                report.get("inputs", "random tensors" if report["what"] == "ops" else NONE),
            ]
            for report in own
        ]
        header = ["results", "measured", "commit", "inputs"]
        parts += [f"Measured on {name}, with torch {', '.join(torches)}.", table(header, rows)]
    return "\n\n".join(parts)


def cost_plot(reports: Sequence[Report]) -> str:
    """The plot of the sweeps."""
    file = _from_root(IMAGES / "engine.svg")
    return (
        f"![Milliseconds per image against its pixels and against the batch]({file})\n\n"
        "Both axes are logarithmic. Lines are the engine, points its rivals with one image "
        "on the first machine."
    )


TABLES: dict[str, tuple[tuple[str, ...], Table]] = {
    "machine": (PERFORMANCE, machines),
    "engine_plot": (("engine",), cost_plot),
    **{
        name: ((what,), make)
        for what, suite in SUITES.items()
        for name, make in suite.TABLES.items()
    },
    "gpu": (("gpu", "profile"), gpu_check.gpu_table),
}


def _from_root(path: Path) -> str:
    """A link as it is in a document of the root; `render` turns it for others."""
    return path.relative_to(ROOT).as_posix()


def documents() -> list[Path]:
    """Where tables may stand."""
    return [path for pattern in DOCUMENTS for path in sorted(ROOT.glob(pattern))]


def render(texts: dict[Path, str], reports: Sequence[Report]) -> dict[Path, str]:
    """The documents with their tables made anew.

    Raises:
        ValueError: a table is unknown, missing, or there more than once.
    """
    found = Counter(name for text in texts.values() for _, name, _ in MARKED.findall(text))
    wrong = [f"table:{name}: unknown" for name in found if name not in TABLES]
    counts = {name: found[name] for name in TABLES if found[name] != 1}
    wrong += [f"table:{name}: expected once, found {n} times" for name, n in counts.items()]
    if wrong:
        raise ValueError("\n".join(wrong))
    return {
        path: MARKED.sub(functools.partial(_rendered, document=path, reports=reports), text)
        for path, text in texts.items()
    }


def _rendered(match: re.Match, document: Path, reports: Sequence[Report]) -> str:
    begin, name, end = match.groups()
    kinds, make = TABLES[name]
    measured = [report for report in reports if report["what"] in kinds]
    text = make(measured) if measured else "Not measured yet."
    root = os.path.relpath(ROOT, document.parent)
    links = text if root == "." else re.sub(r"\]\((?=docs/|benchmarks/)", f"]({root}/", text)
    return f"{begin}{links}\n{end}"


# ---- Images that are made of nothing measured ----------------------------------------------------

NAMES = ("china", "coffee", "chelsea", "flower")
ROWS = ("input", "disco_fast", "original")
HEIGHT, WIDTH, GUTTER, MARGIN = 172, 258, 6, 134
FONT = 22
SIDE = 1000  # of the screenshot in pixels


def showcase(target: Path) -> None:
    """Input, result and original of four example photographs."""
    images, drawing, fonts = (
        need("bench", f"PIL.{name}") for name in ("Image", "ImageDraw", "ImageFont")
    )
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
        pixels = torch.from_numpy(read_image(PHOTOGRAPHS / f"{name}.jpg").pixels).permute(2, 0, 1)
        for row, tile in enumerate(_column(colorizer, pixels)):
            place = (MARGIN + number * (WIDTH + GUTTER), row * (HEIGHT + GUTTER))
            canvas.paste(images.fromarray(tile), place)
    write_image(target, Picture(np.array(canvas)), quality=90)


def _column(colorizer: Colorizer, photograph: torch.Tensor) -> list[np.ndarray]:
    """Input, result and original, each (HEIGHT, WIDTH, 3), of a photograph [3,H,W] uint8."""
    gray = lab_to_rgb(rgb_to_l(photograph[None]), torch.zeros(1, 2, 1, 1), True)
    rows = torch.stack([*gray, colorizer.colorize(photograph), photograph])
    scale = max(HEIGHT / rows.shape[2], WIDTH / rows.shape[3])
    size = [max(HEIGHT, round(rows.shape[2] * scale)), max(WIDTH, round(rows.shape[3] * scale))]
    small = torch.nn.functional.interpolate(
        rows.float(), size, mode="bilinear", antialias=True, align_corners=False
    )
    top, left = (size[0] - HEIGHT) // 2, (size[1] - WIDTH) // 2
    tiles = small[..., top : top + HEIGHT, left : left + WIDTH].round().clamp(0, 255)
    return [*tiles.to(torch.uint8).permute(0, 2, 3, 1).numpy()]


def screenshot(target: Path) -> None:
    """The web app with a photograph and a selected anchor; needs chromium, extras web and test."""
    sys.path.insert(0, str(ROOT / "tests"))
    import browser

    with browser.served("--device", "cpu") as address, browser.opened(address) as tab:
        tab.set_input_files("#upload input[type=file]", str(PHOTOGRAPHS / "china.jpg"))
        tab.wait_for_selector("#anchors img")
        tab.wait_for_timeout(2000)
        box = tab.locator("#anchors img").bounding_box()
        tab.click("#anchors img", position={"x": 0.62 * box["width"], "y": 0.2 * box["height"]})
        tab.wait_for_timeout(2000)
        with tempfile.TemporaryDirectory() as folder:
            taken = Path(folder, "page.png")
            tab.screenshot(path=taken, full_page=True)
            pixels = read_image(taken).pixels
    scale = SIDE / pixels.shape[1]
    smaller = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    write_image(target, Picture(smaller))


DRAWN = {"showcase": (showcase, "showcase.jpg"), "web": (screenshot, "web.png")}


# ---- Command line --------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="change nothing, fail if stale")
    parser.add_argument("--draw", choices=DRAWN, help="an image that is made of nothing measured")
    a = parser.parse_args(argv)
    if a.draw:
        draw, name = DRAWN[a.draw]
        draw(IMAGES / name)
        return 0
    reports = load(RESULTS)
    texts = {path: path.read_text() for path in documents()}
    try:
        rendered = render(texts, reports)
    except ValueError as error:
        print(error)
        return 1
    stale = {path for path in texts if rendered[path] != texts[path]}
    plotted = {name: [r for r in reports if r["what"] == what] for name, (what, _) in PLOTS.items()}
    old = [name for name, own in plotted.items() if own and not plots.is_fresh(IMAGES / name, own)]
    if a.check:
        for file in (*sorted(path.name for path in stale), *old):
            print(f"{file} is stale: run python benchmarks/render.py")
        return int(bool(stale or old))
    for path in stale:
        path.write_text(rendered[path])
    for name in old:
        plots.save(IMAGES / name, PLOTS[name][1], plotted[name])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
