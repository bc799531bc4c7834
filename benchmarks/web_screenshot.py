"""The screenshot in docs/web.md; needs Debian's chromium and `pip install '.[web,test]'`.

python benchmarks/web_screenshot.py docs/images/web.png
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import cv2
from _measure import ROOT

from disco_fast.io.images import Picture, read_image, write_image

sys.path.insert(0, str(ROOT / "tests"))

import browser

PHOTOGRAPH = ROOT / "examples" / "photographs" / "china.jpg"
SIDE = 1000  # of the picture in pixels


def main() -> None:
    """Colorize a photograph on the page, select an anchor, and take a picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", type=Path)
    target = parser.parse_args().target
    with browser.served("--device", "cpu") as address, browser.opened(address) as tab:
        tab.set_input_files("#upload input[type=file]", str(PHOTOGRAPH))
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


if __name__ == "__main__":
    main()
