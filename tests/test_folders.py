"""Folders of many pictures: going on after a stop, what failed, whose colours, and bounds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from disco_fast import Colorizer
from disco_fast.cli import main
from disco_fast.console import UsageError
from disco_fast.files import remove_stale
from disco_fast.folders.failures import NAME
from disco_fast.folders.plan import Job, plan
from disco_fast.image_files import Picture, read_image, write_image

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


# ---- whose colours ------------------------------------------------------------------------------


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
