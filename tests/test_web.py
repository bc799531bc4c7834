"""The page: what a visitor does with a photograph, without a browser and with a real one."""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import browser
import cv2
import numpy as np
import pytest

from disco_fast import Analysis, Colorizer
from disco_fast.cli.main import main
from disco_fast.io.images import Picture, read_image, to_tensor, write_image

pytest.importorskip("gradio")

from disco_fast.web.drawing import LONGEST, shown, swatch_at, swatches, with_anchors
from disco_fast.web.session import Limits, Session, SessionError

PHOTOGRAPHS = Path(__file__).parents[1] / "examples" / "photographs"
COFFEE = PHOTOGRAPHS / "coffee.jpg"


@pytest.fixture(scope="module")
def colorizer() -> Colorizer:
    return Colorizer(device="cpu")


@pytest.fixture
def session(colorizer: Colorizer) -> Session:
    return Session(colorizer, COFFEE)


@pytest.fixture(scope="module")
def analysis(colorizer: Colorizer) -> Analysis:
    return colorizer.analyze(to_tensor(read_image(COFFEE).pixels))


def painted(analysis: Analysis, anchors: Any) -> np.ndarray:
    return analysis.colorize(anchors).permute(1, 2, 0).numpy()


# ---- what a visitor does ------------------------------------------------------------------------


def test_at_first_it_is_the_networks_work(session: Session, analysis: Analysis) -> None:
    assert session.anchors == analysis.anchors
    assert np.array_equal(session.result, painted(analysis, None))
    assert session.selected is None
    assert session.gray.std(axis=2).max() < 1.5  # of bytes that are rounded
    variants = session.variants()
    assert len(variants) == 3
    assert np.array_equal(variants[0], session.color)
    assert np.array_equal(session.color, shown(session.result))


def test_select_recolor_move_remove_reset(session: Session, analysis: Analysis) -> None:
    session.click(analysis.anchors[2].pixel)
    assert session.selected == 2
    assert len(session.anchors) == 8
    session.recolor("#2040d0")
    expected = list(analysis.anchors)
    expected[2] = expected[2].recolored("#2040d0")
    assert np.array_equal(session.result, painted(analysis, expected))
    session.recolor(session.anchors[2].palette[3])
    expected[2] = expected[2].recolored(expected[2].palette[3])
    assert np.array_equal(session.result, painted(analysis, expected))
    session.click((3, 5), move=True)
    assert session.anchors[2].pixel == (3, 5)
    expected[2] = analysis.anchor((3, 5), expected[2].palette[3])
    assert np.array_equal(session.result, painted(analysis, expected))
    session.remove()
    del expected[2]
    assert np.array_equal(session.result, painted(analysis, expected))
    assert session.selected is None
    session.reset()
    assert session.anchors == analysis.anchors


def test_a_click_elsewhere_adds_an_anchor(session: Session, analysis: Analysis) -> None:
    session.click((500, 10))
    assert session.selected == 8
    assert session.anchors[8] == analysis.anchor((500, 10))
    assert np.array_equal(session.result, painted(analysis, session.anchors))


def test_a_variant_is_gone_on_with(session: Session, analysis: Analysis) -> None:
    session.variant(2)
    assert session.anchors == analysis.variants(3)[2]
    assert np.array_equal(session.result, painted(analysis, session.anchors))


def test_the_vividness_changes_all_colors_but_chosen_ones(
    session: Session, analysis: Analysis
) -> None:
    assert session.vividness == analysis.vividness
    session.click(analysis.anchors[2].pixel)
    session.recolor("#2040d0")
    session.set_vividness(1.0)
    vivid = analysis.at(1.0)
    expected = list(vivid.anchors)
    expected[2] = expected[2].recolored("#2040d0")
    assert session.anchors == tuple(expected)
    assert session.selected == 2
    assert np.array_equal(session.result, painted(vivid, expected))
    session.reset()
    assert session.anchors == vivid.anchors
    session.set_vividness(analysis.vividness)
    assert session.anchors == analysis.anchors


def test_what_cannot_be_done_changes_nothing(session: Session, tmp_path: Path) -> None:
    empty = tmp_path / "empty.json"
    empty.write_text("{}")
    before = session.anchors, session.color
    for impossible in (
        session.remove,
        lambda: session.recolor("#fff"),
        lambda: session.click((1, 1), move=True),
        lambda: session.load(empty),
        lambda: session.variant(99),
        lambda: session.variant(-1),
        lambda: session.click((1e308, 0.0)),
    ):
        with pytest.raises(SessionError):
            impossible()
    session.selected = 0
    with pytest.raises(SessionError, match="an anchor in that place already"):
        session.click(session.anchors[1].pixel, move=True)
    with pytest.raises(SessionError, match="color: expected"):
        session.recolor("blue")
    assert session.anchors == before[0]
    assert session.color is before[1]
    while len(session.anchors) > 1:
        session.selected = 0
        session.remove()
    session.selected = 0
    with pytest.raises(SessionError, match="The last anchor stays"):
        session.remove()


def test_files(colorizer: Colorizer) -> None:
    session = Session(colorizer, COFFEE)
    session.selected = 1
    session.recolor("#2040d0")
    picture, anchors = session.save()
    assert picture.name == "coffee-color.jpg"
    saved = read_image(picture).pixels.astype(int)
    assert np.abs(saved - session.result).mean() < 4  # JPEG
    again = Session(colorizer, COFFEE)
    again.load(anchors)
    assert np.array_equal(again.result, session.result)
    del session
    gc.collect()
    assert not picture.exists()


def test_alpha_and_16_bits_are_kept(colorizer: Colorizer, tmp_path: Path) -> None:
    pixels = np.linspace(0, 65535, 40 * 60).reshape(40, 60, 1).astype(np.uint16)
    alpha = np.full((40, 60), 30000, np.uint16)
    write_image(tmp_path / "deep.png", Picture(pixels, alpha))
    session = Session(colorizer, tmp_path / "deep.png")
    assert session.result.dtype == np.uint8
    saved = read_image(session.save()[0])
    assert saved.pixels.dtype == np.uint16
    assert saved.alpha is not None
    assert np.array_equal(saved.alpha, alpha)


# ---- what is refused ----------------------------------------------------------------------------


def large(tmp_path: Path) -> Path:
    """Fifty megapixels in a small file."""
    path = tmp_path / "large.png"
    cv2.imwrite(str(path), np.zeros((5000, 10000), np.uint8))
    return path


def bad_uploads(tmp_path: Path) -> dict[Path, str]:
    text, empty = tmp_path / "text.jpg", tmp_path / "empty.jpg"
    text.write_text("no picture")
    empty.touch()
    return {
        large(tmp_path): "large.png: 10000 x 5000 pixels are 50 megapixels; at most 40 are read.",
        text: "text.jpg: not a JPEG, PNG, TIFF or WebP picture, or damaged.",
        empty: "empty.jpg: the file is empty.",
    }


def test_bad_uploads(colorizer: Colorizer, tmp_path: Path) -> None:
    for path, sentence in bad_uploads(tmp_path).items():
        with pytest.raises(SessionError) as refused:
            Session(colorizer, path)
        assert str(refused.value) == sentence
    with pytest.raises(SessionError, match=r"coffee\.jpg has 0 MB; at most 0\.01 MB"):
        Session(colorizer, COFFEE, Limits(megabytes=0.01))
    assert Session(colorizer, COFFEE, Limits(megapixels=0.2)).size == (512, 341)


def test_without_gradio_the_extra_is_named(monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["web"]) == 1
    assert "disco_fast[web]" in capsys.readouterr().err


# ---- what is drawn ------------------------------------------------------------------------------


def test_anchors_are_drawn_in_their_colors(analysis: Analysis) -> None:
    gray = np.full((341, 512, 3), 128, np.uint8)
    drawn = with_anchors(gray, analysis.anchors, 1, analysis.size)
    for anchor in analysis.anchors:
        x, y = (int(value) for value in anchor.pixel)
        assert tuple(drawn[y, x]) == anchor.rgb
    other = with_anchors(gray, analysis.anchors, None, analysis.size)
    assert (drawn != gray).sum() > (other != gray).sum()  # the selected one is larger
    assert (gray == 128).all()


def test_swatches_are_found_where_they_are_drawn(analysis: Analysis) -> None:
    anchor = analysis.anchors[0].recolored(analysis.anchors[0].palette[4])
    strip = swatches(anchor)
    for number, swatch in enumerate(anchor.palette):
        middle = (2 * number + 1) * strip.shape[1] // 20
        assert tuple(strip[20, middle]) == swatch.rgb
        assert swatch_at(middle) == number
        assert (strip[-6, middle] < 100).all() == (number == 4)
    assert (swatches(None) == 255).all()


def test_pictures_have_one_size_on_the_page() -> None:
    assert shown(np.zeros((4000, 3000, 3), np.uint8)).shape == (LONGEST, 900, 3)
    assert shown(np.zeros((10, 1, 3), np.uint8)).shape == (LONGEST, 120, 3)


# ---- in a browser -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    if browser.CHROMIUM is None:
        (pytest.skip if browser.may_skip() else pytest.fail)("chromium is not installed")
    pytest.importorskip("playwright")
    with browser.served() as found:
        yield found


class Visitor:
    """Somebody in front of the page."""

    def __init__(self, tab: Any):
        self.tab = tab
        self.errors: list[str] = []
        tab.on("pageerror", lambda error: self.errors.append(str(error)))
        tab.on("console", lambda m: m.type == "error" and self.errors.append(m.text))

    def status(self) -> str:
        return self.tab.locator("#status textarea").input_value()

    def until(self, fits: Callable[[str], bool]) -> str:
        """The status, once it fits."""
        for _ in range(300):
            if fits(self.status()):
                return self.status()
            time.sleep(0.1)
        raise AssertionError(f"the status stays {self.status()!r}")

    def upload(self, path: Path) -> None:
        remove = self.tab.locator("#upload button[aria-label='Clear']")
        if remove.count():
            remove.click()
            self.until(lambda words: "Drop a photograph" in words)
        self.tab.set_input_files("#upload input[type=file]", str(path))

    def click(self, picture: str, x: float, y: float) -> None:
        """A click at shares of a picture's width and height."""
        image = self.tab.locator(f"{picture} img").first
        image.scroll_into_view_if_needed()
        image.evaluate("image => image.decode()")  # a place in it is known once it is loaded
        box = image.bounding_box()
        image.click(position={"x": x * box["width"], "y": y * box["height"]})

    def files_when(
        self, fits: Callable[[np.ndarray, dict[str, Any]], bool], folder: Path
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Those files, once they fit."""
        for _ in range(20):
            found = self.files(folder)
            if fits(*found):
                return found
        raise AssertionError(f"the anchors stay {found[1]}")

    def files(self, folder: Path) -> tuple[np.ndarray, dict[str, Any]]:
        """The picture and the anchors that are offered for download."""
        links = self.tab.locator("#files a[download]")
        before = [link.get_attribute("href") for link in links.all()]
        self.tab.click("#prepare")
        links.nth(1).wait_for()
        for _ in range(50):  # until they are others than before; equal ones keep their names
            if [link.get_attribute("href") for link in links.all()] != before:
                break
            time.sleep(0.1)
        found = []
        for number in range(2):
            with self.tab.expect_download() as download:
                links.nth(number).click()
            found.append(folder / download.value.suggested_filename)
            download.value.save_as(found[-1])
        picture, anchors = found
        return read_image(picture).pixels, json.loads(anchors.read_text())


@pytest.fixture
def visitor(address: str) -> Iterator[Visitor]:
    with browser.opened(address) as tab:
        yield Visitor(tab)


def test_the_whole_visit(visitor: Visitor, colorizer: Colorizer, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    source = tmp_path / "coffee.png"  # comes back as PNG, so pixels can be compared
    write_image(source, Picture(read_image(COFFEE).pixels))
    analysis = colorizer.analyze(to_tensor(read_image(source).pixels))
    width, height = analysis.size
    visitor.upload(source)
    visitor.until(lambda words: words == "512 x 341 pixels, 8 anchors.")

    # Recolor: one of the probable colors, then any.
    anchor = analysis.anchors[0]
    visitor.click("#anchors", anchor.pixel[0] / width, anchor.pixel[1] / height)
    visitor.until(lambda words: f"Selected: {anchor.hex}." in words)
    visitor.click("#swatches", 0.65, 0.5)
    probable = anchor.recolored(anchor.palette[6])
    visitor.until(lambda words: f"Selected: {probable.hex}." in words)
    visitor.tab.click("#use")
    chosen = anchor.recolored("#c03030")
    visitor.until(lambda words: f"Selected: {chosen.hex}." in words)
    expected = [chosen, *analysis.anchors[1:]]

    # Add one, move it, and remove it again.
    visitor.click("#anchors", 0.97, 0.04)
    visitor.until(lambda words: "9 anchors" in words)
    pixels, kept = visitor.files(tmp_path)
    added = analysis.from_json(json.dumps(kept))
    assert [a.bin for a in added[:8]] == [a.bin for a in expected]
    assert added[8].pixel == pytest.approx((0.97 * width, 0.04 * height), abs=2)
    assert np.array_equal(pixels, painted(analysis, added))  # at full size
    visitor.tab.locator("#move input").check()
    visitor.click("#anchors", 0.9, 0.95)
    _, kept = visitor.files_when(
        lambda _, found: found["anchors"][8] != kept["anchors"][8], tmp_path
    )
    moved = analysis.from_json(json.dumps(kept))
    assert moved[8].pixel == pytest.approx((0.9 * width, 0.95 * height), abs=2)
    assert moved[8].bin == added[8].bin
    expect(visitor.tab.locator("#move input")).not_to_be_checked(timeout=20_000)
    visitor.tab.click("#remove")
    visitor.until(lambda words: words == "512 x 341 pixels, 8 anchors.")
    assert np.array_equal(visitor.files(tmp_path)[0], painted(analysis, expected))

    # Variants, anchors of a file, and the beginning.
    visitor.tab.locator("#variants button img").nth(1).click()
    second = painted(analysis, analysis.variants(3)[1])
    visitor.files_when(lambda found, _: np.array_equal(found, second), tmp_path)
    (tmp_path / "mine.json").write_text(analysis.to_json(expected[:5]))
    with visitor.tab.expect_file_chooser() as chooser:
        visitor.tab.click("#load")
    chooser.value.set_files(tmp_path / "mine.json")
    visitor.until(lambda words: words == "512 x 341 pixels, 5 anchors.")
    visitor.tab.click("#reset")
    visitor.until(lambda words: words == "512 x 341 pixels, 8 anchors.")
    assert np.array_equal(visitor.files(tmp_path)[0], painted(analysis, None))

    # The dial.
    number = visitor.tab.locator("#vividness input[type=number]")
    number.fill("1")
    number.blur()
    vivid = painted(analysis.at(1.0), None)
    visitor.files_when(lambda found, _: np.array_equal(found, vivid), tmp_path)
    assert not visitor.errors


def test_a_bad_upload_gets_a_sentence(visitor: Visitor, tmp_path: Path) -> None:
    for path, sentence in bad_uploads(tmp_path).items():
        visitor.upload(path)
        visitor.until(lambda words, sentence=sentence: words == sentence)
    visitor.upload(COFFEE)
    visitor.until(lambda words: words == "512 x 341 pixels, 8 anchors.")
    visitor.tab.click("#remove")
    visitor.until(lambda words: words == "Click an anchor first.")
    assert "Traceback" not in visitor.tab.content()
    assert not visitor.errors


def test_nothing_is_asked_of_other_machines(address: str) -> None:
    asked: list[str] = []
    with browser.opened(address) as tab:
        tab.on("request", lambda request: asked.append(request.url))
        tab.reload()
        tab.wait_for_selector("#upload input[type=file]", state="attached")
        tab.set_input_files("#upload input[type=file]", str(COFFEE))
        tab.wait_for_selector("#anchors img")
    assert asked
    assert not [url for url in asked if not url.startswith((address, "data:", "blob:"))]
