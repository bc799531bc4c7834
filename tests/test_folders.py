"""Folders of many pictures: going on after a stop, what failed, whose colors, and bounds."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from disco_fast import ColorizeOptions, Colorizer
from disco_fast.cli.coloring import ByNetwork
from disco_fast.cli.failures import NAME
from disco_fast.cli.main import main
from disco_fast.cli.plan import Job, plan
from disco_fast.cli.steps import Colorizing, Writing
from disco_fast.console import UsageError
from disco_fast.io import pipeline
from disco_fast.io.atomic import remove_stale, whole_file
from disco_fast.io.images import Pages, Picture, read_image, read_pages, write_image, write_pages
from disco_fast.io.mark import SOURCE_TYPE
from disco_fast.video.tracking import Tracker

QUICK = ["--working-size", "32", "--device", "cpu", "--precision", "fp32"]
PHOTOGRAPHS = Path(__file__).parents[1] / "examples" / "photographs"


def gray(seed: int, height: int = 24, width: int = 36) -> np.ndarray:
    y, x = np.mgrid[:height, :width] / 5
    return np.rint(127 + 110 * np.sin(x + seed) * np.cos(y * (1 + seed % 3))).astype(np.uint8)[
        ..., None
    ]


def make(folder: Path, count: int) -> Path:
    """A folder of pictures, every fifth in a folder below."""
    for number in range(count):
        below = folder / "below" if number % 5 == 4 else folder
        below.mkdir(parents=True, exist_ok=True)
        write_image(below / f"{number:04}.png", Picture(gray(number)))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def start(*arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "disco_fast.cli", "colorize", *map(str, arguments), *QUICK]
    # Elsewhere: -m would prefer the source folder, which has no kernels, to what is installed.
    return subprocess.Popen(command, stderr=subprocess.PIPE, cwd=tempfile.gettempdir())


def wait_for_files(process: subprocess.Popen[bytes], folder: Path, count: int) -> None:
    while len(list(folder.glob("*.png"))) < count:
        assert process.poll() is None, process.stderr.read().decode()
        time.sleep(0.005)


@pytest.mark.thorough
@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGINT])
def test_stopped_it_leaves_whole_files_and_goes_on(kind: signal.Signals, tmp_path: Path) -> None:
    photos, whole, stopped = make(tmp_path / "in", 300), tmp_path / "whole", tmp_path / "stopped"
    assert main(["colorize", str(photos), "-o", str(whole), *QUICK]) == 0
    process = start(photos, "-o", stopped)
    wait_for_files(process, stopped, 20)
    process.send_signal(kind)
    process.communicate(timeout=60)
    assert process.returncode == (130 if kind == signal.SIGINT else -signal.SIGKILL)
    expected, found = contents(whole), contents(stopped)
    partial = [name for name in found if Path(name).name.startswith(".")]
    assert len(expected) == 300
    assert 20 <= len(found) < 300
    assert kind == signal.SIGKILL or not partial
    assert all(found[name] == expected[name] for name in found if name not in partial)
    before = {path: path.stat().st_mtime_ns for path in stopped.rglob("*.png")}
    assert main(["colorize", str(photos), "-o", str(stopped), "--skip-existing", *QUICK]) == 0
    assert {n: b for n, b in contents(stopped).items() if n not in partial} == expected
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())


def test_what_a_killed_process_left_is_removed_an_hour_later(tmp_path: Path) -> None:
    old, young = (tmp_path / f".disco-fast-{name}.part" for name in ("aaaa", "bbbb"))
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 3700,) * 2)
    remove_stale(tmp_path)
    assert not old.exists()
    assert young.exists()
    photos = make(tmp_path / "in", 1)
    os.utime(young, (time.time() - 3700,) * 2)
    assert main(["colorize", str(photos), "-o", str(tmp_path), *QUICK]) == 0
    assert not young.exists()


def test_missing_variants_alone_are_written(tmp_path: Path) -> None:
    photos, out = make(tmp_path / "in", 2), tmp_path / "out"
    command = ["colorize", str(photos), "-o", str(out), "--variants", "4", *QUICK]
    assert main(command) == 0
    expected = contents(out)
    assert len(expected) == 8
    (out / "0001-3.png").unlink()
    (out / "0000-1.png").write_bytes(b"mine")
    assert main([*command, "--skip-existing"]) == 0
    assert contents(out) == expected | {"0000-1.png": b"mine"}


def test_nothing_left_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos, out = make(tmp_path / "in", 3), tmp_path / "out"
    command = ["colorize", str(photos), "-o", str(out), "--skip-existing", *QUICK]
    assert main(command) == 0
    assert main(command) == 0
    assert "3 pictures are done already" in capsys.readouterr().err
    assert main(["colorize", str(photos), "-o", str(out), *QUICK]) == 2
    assert "add --overwrite or --skip-existing" in capsys.readouterr().err


def test_an_input_is_never_taken_for_an_output(tmp_path: Path) -> None:
    photos = make(tmp_path / "in", 2)
    with pytest.raises(UsageError, match="is an input, and would be overwritten"):
        plan([photos / "0000.png", photos / "0001.png"], photos, skip_existing=True)


def test_what_failed_is_listed_until_it_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, out = make(tmp_path / "in", 7), tmp_path / "out"
    good = (photos / "0002.png").read_bytes()
    (photos / "0002.png").write_bytes(good[:60])
    (photos / "below" / "x\u00e9.jpg").write_bytes(b"no picture")
    command = ["colorize", str(photos), "-o", str(out), "--skip-existing", *QUICK]
    assert main(command) == 1
    assert f"which, and why: {out / NAME}" in capsys.readouterr().err
    listed = [json.loads(line) for line in (out / NAME).read_text().splitlines()]
    assert {entry["source"] for entry in listed} == {
        str(photos / "0002.png"),
        str(photos / "below" / "x\u00e9.jpg"),
    }
    assert all("not a picture in a known format" in entry["error"] for entry in listed), listed
    (photos / "0002.png").write_bytes(good)
    assert main(command) == 1
    assert len((out / NAME).read_text().splitlines()) == 1
    (photos / "below" / "x\u00e9.jpg").unlink()
    assert main(command) == 0
    assert not (out / NAME).exists()
    assert len(list(out.rglob("*.png"))) == 7


def test_ten_thousand_files_are_planned_at_once(tmp_path: Path) -> None:
    photos = tmp_path / "in"
    for number in range(10_000):
        below = photos / f"{number // 1000}"
        below.mkdir(parents=True, exist_ok=True)
        (below / f"{number}.jpg").touch()
    out = tmp_path / "out"
    (out / "3").mkdir(parents=True)
    (out / "3" / "3456.jpg").touch()
    jobs = plan([photos], out, skip_existing=True)
    assert len(jobs) == 10_000
    done = [job for job in jobs if not job.targets]
    assert done == [Job(photos / "3" / "3456.jpg", (), ())]


# ---- whose colors ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def colorizer() -> Colorizer:
    return Colorizer(device="cpu", precision="fp32")


def read(path: Path) -> torch.Tensor:
    return torch.from_numpy(read_image(path).pixels).permute(2, 0, 1)


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    pixels = read_image(PHOTOGRAPHS / "coffee.jpg").pixels[::4, ::4]
    write_image(tmp_path / "photo.png", Picture(np.ascontiguousarray(pixels)))
    return tmp_path / "photo.png"


def test_anchors_of_a_file(photograph: Path, tmp_path: Path, colorizer: Colorizer, capsys) -> None:
    settings = ["--working-size", "96", "--device", "cpu", "--precision", "fp32"]
    kept = tmp_path / "kept.json"
    assert main(["anchors", str(photograph), "-o", str(kept), "--anchors", "5", *settings]) == 0
    analysis = colorizer.analyze(read(photograph), n_anchors=5, working_size=96)
    assert kept.read_text() == analysis.to_json()
    assert main(["anchors", str(photograph), "-o", str(kept), *settings]) == 2
    capsys.readouterr()
    assert main(["anchors", str(photograph), "--anchors", "5", *settings]) == 0
    assert capsys.readouterr().out == analysis.to_json()
    edited = json.loads(kept.read_text())
    edited["anchors"][0] |= {"color": "#2030d0"}
    del edited["anchors"][0]["ab"]
    kept.write_text(json.dumps(edited))
    target = tmp_path / "new.png"
    colorize = ["colorize", str(photograph), "-o", str(target), *settings]
    assert main([*colorize, "--anchors", str(kept)]) == 0
    first, *others = analysis.anchors
    expected = analysis.colorize([first.recolored("#2030d0"), *others])
    assert torch.equal(read(target), expected)


def test_as_many_anchors_as_needed(photograph: Path, tmp_path: Path, colorizer: Colorizer) -> None:
    target = tmp_path / "new.png"
    options = ["--anchors", "auto", "--working-size", "96", "--device", "cpu"]
    assert main(["colorize", str(photograph), "-o", str(target), *options]) == 0
    automatic = Colorizer(device="cpu").colorize(
        read(photograph), n_anchors="auto", working_size=96
    )
    assert torch.equal(read(target), automatic)


def test_colors_of_a_reference(photograph: Path, tmp_path: Path, colorizer: Colorizer) -> None:
    out = tmp_path / "out"
    photos = make(tmp_path / "in", 2)
    options = ["--reference", str(photograph), *QUICK]
    assert main(["colorize", str(photos), "-o", str(out), *options]) == 0
    analysis = colorizer.analyze(read(photos / "0001.png"), working_size=32)
    reference = colorizer.analyze(read(photograph), working_size=32)
    expected = analysis.colorize(analysis.anchors_from(reference))
    assert torch.equal(read(out / "0001.png"), expected)


def test_anchors_that_do_not_fit_a_picture_fail_it_alone(tmp_path: Path) -> None:
    photos, out, kept = make(tmp_path / "in", 3), tmp_path / "out", tmp_path / "kept.json"
    anchors = [{"x": 1, "y": 1, "color": "#fff"}, {"x": 30, "y": 20, "color": "#f00"}]
    kept.write_text(json.dumps({"anchors": anchors}))
    write_image(photos / "0001.png", Picture(gray(1, 12, 12)))  # the second lies outside
    command = ["colorize", str(photos), "-o", str(out), "--anchors", str(kept), *QUICK]
    assert main(command) == 1
    assert len(list(out.glob("*.png"))) == 2
    assert "expected a point within 12 x 12" in (out / NAME).read_text()


# ---- what a folder may hold ---------------------------------------------------------------------


def listed(out: Path) -> dict[str, str]:
    """What the list of failures says, by the name of the file."""
    lines = map(json.loads, (out / NAME).read_text().splitlines())
    return {Path(line["source"]).name: line["error"] for line in lines}


def save(path: Path, **options: Any) -> None:
    Image.fromarray(gray(3)[..., 0]).save(path, **options)


def test_every_kind_of_picture_is_done_or_named(tmp_path: Path, capsys) -> None:
    photos, out = tmp_path / "in", tmp_path / "out"
    photos.mkdir()
    for name in ("a.JPG", "b.jfif", "c.jpe", "d.TIFF", "e.bmp", "f.gif", "g.pgm", "h.jp2", "i.tga"):
        save(photos / name, format="JPEG" if name in ("b.jfif", "c.jpe") else None)
    save(photos / "e.png")  # the result of e.bmp gets another name
    save(photos / "scan", format="PNG")
    save(photos / "scan.old", format="TIFF")
    (photos / "notes.txt").write_text("BM and P5 1 2, no picture")
    frames = [Image.fromarray(gray(n)[..., 0]) for n in (1, 2)]
    save(photos / "j.apng", format="PNG", save_all=True, append_images=frames)
    assert main(["colorize", str(photos), "-o", str(out), *QUICK]) == 1
    written = {path.name for path in out.iterdir()} - {NAME}
    assert written == {
        *("a.JPG", "b.jfif", "c.jpe", "d.TIFF", "e.bmp.png", "e.png", "f.gif"),
        *("g.png", "h.png", "i.png", "j.webp"),
    }
    assert len(read_pages(out / "j.webp").pictures) == 3
    for name in written:
        assert read_image(out / name).pixels.std(axis=2).max() > 0
    assert listed(out) == {
        "scan": "a PNG by its content, but not by its name",
        "scan.old": "a TIFF by its content, but not by its name",
    }
    said = capsys.readouterr().err
    assert f"left out: {photos / 'scan'}: a PNG by its content, but not by its name" in said
    assert "11 of 11 pictures done, 0 failed, 2 left out" in said


@pytest.mark.skipif(sys.platform == "win32", reason="links and pipes of Unix")
def test_one_bad_entry_never_ends_a_folder(tmp_path: Path, monkeypatch) -> None:
    photos, out = make(tmp_path / "in", 5), tmp_path / "out"
    (photos / "broken.jpg").symlink_to("nowhere")
    (photos / "zero.png").symlink_to("/dev/zero")
    os.mkfifo(photos / "pipe.jpg")
    (photos / "locked").mkdir()
    real = os.scandir

    def scandir(path: str) -> Any:
        if Path(path).name == "locked":  # as for everybody but root
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert main(["colorize", str(photos), "-o", str(out), *QUICK]) == 1
    assert len(list(out.rglob("*.png"))) == 5
    assert listed(out) == {
        "broken.jpg": "a broken link",
        "zero.png": "not a regular file",
        "pipe.jpg": "not a regular file",
        "locked": "Permission denied",
    }


@pytest.mark.skipif(sys.platform == "win32", reason="links of Unix")
def test_links_to_folders_are_followed_and_loops_seen_once(tmp_path: Path) -> None:
    photos = make(tmp_path / "in", 5)  # four, and one below
    elsewhere = make(tmp_path / "elsewhere", 2)
    (photos / "a").symlink_to(elsewhere)
    (photos / "again").symlink_to(elsewhere)
    (photos / "aa").symlink_to(photos / "below")  # the real one goes first
    (photos / "below" / "loop").symlink_to(photos)
    jobs = plan([photos], tmp_path / "out")
    names = [str(job.source.relative_to(photos)) for job in jobs]
    assert names == [
        *("0000.png", "0001.png", "0002.png", "0003.png", "below/0004.png"),
        *("a/0000.png", "a/0001.png"),
    ]


def test_a_picture_that_vanishes_fails_alone(tmp_path: Path) -> None:
    photos = make(tmp_path / "in", 3)
    jobs = plan([photos], tmp_path / "out")
    (photos / "0001.png").unlink()
    assert len(plan([*photos.iterdir()], tmp_path / "out")) == 2
    colorizer = Colorizer(device="cpu", precision="fp32")
    options = ColorizeOptions(n_anchors=2, working_size=32)
    steps = Colorizing(colorizer, ByNetwork(colorizer, options), options, len(jobs))
    pipeline.run(jobs, steps, steps.limits())
    assert steps.failed == 1
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_what_appears_during_a_run_is_not_replaced(tmp_path: Path) -> None:
    photos, out = make(tmp_path / "in", 2), tmp_path / "out"
    jobs = plan([photos], out)
    out.mkdir()
    (out / "0001.png").write_bytes(b"mine")
    colorizer = Colorizer(device="cpu", precision="fp32")
    options = ColorizeOptions(n_anchors=2, working_size=32)
    for replace in (False, True):
        steps = Colorizing(
            colorizer, ByNetwork(colorizer, options), options, 2, writing=Writing(replace=replace)
        )
        pipeline.run(jobs[1:], steps, steps.limits())
        assert steps.failed == (not replace)
        assert ((out / "0001.png").read_bytes() == b"mine") == (not replace)
    assert [path.name for path in out.iterdir()] == ["0001.png"]


def test_a_name_is_given_only_to_what_is_on_the_disk(tmp_path: Path, monkeypatch) -> None:
    done: list[str] = []
    real = {name: getattr(os, name) for name in ("fsync", "replace", "link")}
    for name, call in real.items():
        monkeypatch.setattr(os, name, lambda *a, n=name, c=call: (done.append(n), c(*a))[1])
    for replace in (True, False):
        with whole_file(tmp_path / f"{replace}.txt", replace) as partial:
            partial.write_text("whole")
    assert done == ["fsync", "replace", "fsync", "fsync", "link", "fsync"]


def test_names_do_not_reach_the_terminal_raw(tmp_path: Path, capsys) -> None:
    photos = make(tmp_path / "in", 1)
    (photos / "0000.png").rename(photos / "a\x1b[2Jb\nc\u202ed.png")
    (photos / "\x1b]0;x.png").write_bytes(b"no picture")
    assert main(["colorize", str(photos), "-o", str(tmp_path / "out"), *QUICK]) == 1
    said = capsys.readouterr().err
    assert not {"\x1b", "\u202e"} & set(said)
    assert r"a\x1b[2Jb\nc\u202ed.png" in said


# ---- animations, standard input and output, formats ---------------------------------------------


def test_frames_of_an_animation_are_colored_as_those_of_a_film(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.roll(gray(1, 48, 64)[..., 0], n, axis=1)) for n in range(4)]
    times = [100, 250, 70, 40]
    source, target = tmp_path / "a.webp", tmp_path / "b.webp"
    options = {"duration": times, "loop": 3, "lossless": True}
    frames[0].save(source, save_all=True, append_images=frames[1:], **options)
    assert main(["colorize", str(source), "-o", str(target), *QUICK]) == 0
    pages = read_pages(target)
    assert (pages.times, pages.loops) == ((100, 250, 70, 40), 3)
    colorizer = Colorizer(device="cpu", precision="fp32")
    tracker = Tracker(colorizer.engine, 8, working_size=32)
    given = [read.pixels for read in read_pages(source).pictures]
    expected = tracker.colorize(torch.stack([torch.from_numpy(p).permute(2, 0, 1) for p in given]))
    for picture, frame in zip(pages.pictures, expected, strict=True):
        difference = picture.pixels.astype(int) - frame.permute(1, 2, 0).numpy()
        assert np.abs(difference).mean() < 8  # WebP is lossy


def test_every_page_of_a_tiff(tmp_path: Path) -> None:
    pages = Pages(tuple(Picture(gray(n, 24 + 8 * n)) for n in range(3)))
    write_pages(tmp_path / "a.tif", pages)
    assert main(["colorize", str(tmp_path / "a.tif"), "-o", str(tmp_path / "b.tif"), *QUICK]) == 0
    colorizer = Colorizer(device="cpu", precision="fp32")
    for given, made in zip(pages.pictures, read_pages(tmp_path / "b.tif").pictures, strict=True):
        image = torch.from_numpy(given.pixels).permute(2, 0, 1)
        expected = colorizer.colorize(image, working_size=32).permute(1, 2, 0)
        assert (made.pixels == expected.numpy()).all()


@pytest.mark.parametrize(("form", "options"), [("JPEG", []), ("PNG", ["--format", "png"])])
def test_bytes_in_bytes_out(tmp_path: Path, form: str, options: list[str]) -> None:
    """With standard error closed, too."""
    save(tmp_path / "a.jpg")
    command = [sys.executable, "-m", "disco_fast.cli", "colorize", "-", "-o", "-"]
    shell = 'exec "$@" 2>&-'
    done = subprocess.run(
        ["sh", "-c", shell, "sh", *command, *options, *QUICK],
        input=(tmp_path / "a.jpg").read_bytes(),
        stdout=subprocess.PIPE,
        cwd=tempfile.gettempdir(),
    )
    assert done.returncode == 0
    written = Image.open(io.BytesIO(done.stdout))
    assert (written.format, written.size) == (form, (36, 24))


def test_streams_that_make_no_sense_are_refused(tmp_path: Path, capsys) -> None:
    photos = make(tmp_path / "in", 2)
    one = str(photos / "0000.png")
    for arguments, reason in [
        (["-", "-o", str(tmp_path / "out")], "-: standard input has no name"),
        (["-", one, "-o", str(tmp_path / "out")], "-: standard input has no name"),
        ([str(photos), "-o", "-"], "- is one file"),
        ([one, "-o", "-", "--variants", "2"], "--variants: expected 1 on standard output"),
        ([one, "-o", str(tmp_path / "a.png"), "--format", "jpg"], "--format: expected none"),
    ]:
        assert main(["colorize", *arguments, *QUICK]) == 2
        assert reason in capsys.readouterr().err


def test_format_and_quality_of_a_folder(tmp_path: Path) -> None:
    photos, out = make(tmp_path / "in", 2), tmp_path / "out"
    save(photos / "a.jpeg")
    sizes = []
    for quality in ("20", "95"):
        options = ["--format", "jpg", "--quality", quality, "--overwrite"]
        assert main(["colorize", str(photos), "-o", str(out), *options, *QUICK]) == 0
        assert sorted(p.name for p in out.iterdir()) == ["0000.jpg", "0001.jpg", "a.jpeg"]
        sizes.append(sum(path.stat().st_size for path in out.iterdir()))
    assert sizes[0] < 0.9 * sizes[1]


def test_the_mark_can_be_left_out(tmp_path: Path) -> None:
    save(tmp_path / "a.jpg")
    for options in ([], ["--no-mark"]):
        target = tmp_path / f"{len(options)}.jpg"
        assert main(["colorize", str(tmp_path / "a.jpg"), "-o", str(target), *options, *QUICK]) == 0
        assert (SOURCE_TYPE.encode() in target.read_bytes()) == (not options)


def test_too_many_pixels_for_the_command(tmp_path: Path, capsys) -> None:
    photos, out = make(tmp_path / "in", 1), tmp_path / "out"
    options = ["--max-megapixels", "0.0005", *QUICK]
    assert main(["colorize", str(photos), "-o", str(out), *options]) == 1
    assert "0000.png: 36 x 24 pixels are 0 megapixels; at most 0.0005" in capsys.readouterr().err
