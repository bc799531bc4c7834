"""Films that are stopped, killed, refused, or begun twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from glob import escape
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from disco_fast.cli import video as command
from disco_fast.cli.main import main
from disco_fast.video import work
from disco_fast.video.work import WorkFolder

av = pytest.importorskip("av")

from films import TINY, colorized, pan, write_film  # noqa: E402

_PART = 4
_RUN = (
    "import sys; from disco_fast.cli import video as command; command.PART = int(sys.argv.pop(1));"
    "from disco_fast.cli import main; sys.exit(main())"
)


def with_cuts(count: int, every: int) -> np.ndarray:
    """Frames of two scenes that take turns, (count, 48, 64) uint8."""
    scenes = [pan(name, count, 48, 64, 1) for name in ("coffee", "rocket")]
    return np.stack([scenes[n // every % 2][n] for n in range(count)])


def begun(source: Path, target: Path, part: int = _PART) -> subprocess.Popen:
    """A process that colors a film in parts of so many frames."""
    given = ["video", str(source), "-o", str(target), *TINY]
    # Elsewhere: it would prefer the source folder, which has no kernels, to what is installed.
    return subprocess.Popen(
        [sys.executable, "-c", _RUN, str(part), *given],
        stderr=subprocess.PIPE,
        cwd=target.parent,
        text=True,
    )


def states(target: Path) -> list[Path]:
    """Of the finished parts of a film that is being written."""
    return sorted(target.parent.glob(f".{escape(target.name)}.disco-fast-*/*.safetensors"))


def stopped(source: Path, target: Path, after: int, number: int, delay: float = 0.0) -> int:
    """The exit status of a run that gets a signal once so many parts are there."""
    process = begun(source, target)
    while len(states(target)) < after and process.poll() is None:
        time.sleep(0.002)
    time.sleep(delay)
    process.send_signal(number)
    process.communicate(timeout=120)
    return process.returncode


@pytest.mark.thorough
def test_killed_at_random_it_ends_with_the_same_film(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(command, "PART", _PART)
    source = write_film(tmp_path / "in.mp4", with_cuts(26, 4), audio="aac")
    whole = colorized(source, tmp_path / "whole.mkv")
    target, draws = tmp_path / "out.mkv", random.Random(5)
    for after in (1, 3, 4):
        stopped(source, target, after, signal.SIGKILL, draws.uniform(0, 0.05))
        assert not target.exists()
    process = begun(source, target)
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 0, said
    assert "parts of 4 frames are done already" in said
    assert target.read_bytes() == whole.read_bytes()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_two_interrupts_end_it_at_once(tmp_path: Path) -> None:
    code = (
        "import os, signal, time; from disco_fast.console import second_interrupt_ends\n"
        "with second_interrupt_ends():\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        time.sleep(60)\n"
        "    except KeyboardInterrupt:\n"
        "        print('first', flush=True)\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        time.sleep(60)\n"
        "print('not reached')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "first\n", "")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_interrupted_it_says_so_and_keeps_its_parts(tmp_path: Path) -> None:
    source = write_film(tmp_path / "in.mp4", with_cuts(60, 4))
    assert stopped(source, tmp_path / "out.mp4", 1, signal.SIGINT) == 130
    assert states(tmp_path / "out.mp4")
    assert not (tmp_path / "out.mp4").exists()


def test_a_part_outlives_an_interrupt_before_it_counts(tmp_path: Path, monkeypatch) -> None:
    def interrupted(*_: object) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    def one_part(target: Path) -> None:
        with WorkFolder(target, "id") as folder:
            folder.path().write_bytes(b"a part")
            monkeypatch.setattr(work, "Part", interrupted)
            folder.finish([0], 1, {})

    target = tmp_path / "out.mp4"
    with pytest.raises(KeyboardInterrupt):
        one_part(target)
    assert states(target)
    with WorkFolder(target, "id") as folder:
        assert len(folder.parts) == 1
        folder.remove()
    assert not list(tmp_path.iterdir())


def left_behind(source: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run that made all parts and failed after."""

    def full(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(command, "join", full)
        assert main(["video", str(source), "-o", str(target), *TINY]) == 1
    return states(target)[0].parent


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "PART", _PART)


@pytest.mark.usefixtures("parts")
def test_a_damaged_state_is_made_again(tmp_path: Path, monkeypatch, capsys) -> None:
    source = write_film(tmp_path / "in.mp4", with_cuts(11, 4))
    target, whole = tmp_path / "out.mp4", tmp_path / "whole.mp4"
    colorized(source, whole)
    folder = left_behind(source, target, monkeypatch)
    states(target)[1].write_bytes(b"garbage")
    colorized(source, target)
    assert f"{folder / '000001.safetensors'} is damaged" in capsys.readouterr().err
    assert target.read_bytes() == whole.read_bytes()


@pytest.mark.usefixtures("parts")
def test_a_damaged_part_says_what_to_do(tmp_path: Path, monkeypatch, capsys) -> None:
    source = write_film(tmp_path / "in.mp4", with_cuts(11, 4))
    target = tmp_path / "out.mp4"
    folder = left_behind(source, target, monkeypatch)
    (part,) = folder.glob("000001.film")
    part.write_bytes(part.read_bytes()[: part.stat().st_size // 2])
    assert main(["video", str(source), "-o", str(target), *TINY]) == 1
    said = capsys.readouterr().err
    assert "000001.film: damaged" in said
    assert f"remove the folder {folder} to begin anew" in said
    assert not target.exists()


@pytest.mark.usefixtures("parts")
def test_what_a_killed_process_was_writing_goes(tmp_path: Path, monkeypatch) -> None:
    source = write_film(tmp_path / "in.mp4", with_cuts(5, 4))
    folder = left_behind(source, tmp_path / "out.mp4", monkeypatch)
    (folder / ".disco-fast-0badcafe.part").write_bytes(b"half a part")
    colorized(source, tmp_path / "out.mp4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.mp4"]


def test_one_process_writes_a_film(tmp_path: Path, monkeypatch, capsys) -> None:
    source = write_film(tmp_path / "in.mp4", with_cuts(3, 4))
    target = tmp_path / "out.mp4"
    folder = left_behind(source, target, monkeypatch)
    with FileLock(tmp_path / ".out.mp4.disco-fast-lock"):
        for settings in ([], ["--seed", "3"]):
            assert main(["video", str(source), "-o", str(target), *TINY, *settings]) == 2
            assert "another process is writing it" in capsys.readouterr().err
        assert folder.exists()
    colorized(source, target)


def test_names_are_no_patterns(tmp_path: Path, monkeypatch) -> None:
    source = write_film(tmp_path / "in.mp4", with_cuts(3, 4))
    other = left_behind(source, tmp_path / "pA.mp4", monkeypatch)
    colorized(source, tmp_path / "p*.mp4")
    assert other.exists()
    stale = left_behind(source, tmp_path / "film[1].mp4", monkeypatch)
    colorized(source, tmp_path / "film[1].mp4", "--seed", "3")
    assert not stale.exists()


def test_a_film_that_fails_at_its_first_part_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    source = write_film(tmp_path / "in.mp4", with_cuts(3, 4))

    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(command, "write_part", full)
    assert main(["video", str(source), "-o", str(tmp_path / "out.mp4"), *TINY]) == 1
    assert os.listdir(tmp_path) == ["in.mp4"]
