"""Films: colors that stay, sound and times that are kept, going on after a stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from disco_fast import Colorizer
from disco_fast.cli.main import main
from disco_fast.cli.video import PART
from disco_fast.io.photographs import to_lab
from disco_fast.video import film
from disco_fast.video.flow import motion
from disco_fast.video.tracking import Tracker

av = pytest.importorskip("av")

from films import QUICK, RATE, packets, pan, seconds, write_film  # noqa: E402


def tensors(frames: np.ndarray) -> Tensor:
    return torch.from_numpy(frames)[:, None]


@pytest.fixture(scope="module")
def colorizer() -> Colorizer:
    return Colorizer(device="cpu", precision="fp32")


def tracker(colorizer: Colorizer, **settings: float) -> Tracker:
    return Tracker(colorizer.engine, working_size=96, **settings)


def colored(given: Tracker, frames: Tensor) -> Tensor:
    return torch.cat([given.colorize(frame[None]) for frame in frames])


# ---- colors that stay --------------------------------------------------------------------------


def flicker(frames: Tensor, step: int) -> float:
    ab = [to_lab(np.ascontiguousarray(f.permute(1, 2, 0).numpy()))[..., 1:] for f in frames]
    pairs = zip(ab[1:], ab, strict=False)
    return float(np.mean([np.abs(now[:, :-step] - was[:, step:]).mean() for now, was in pairs]))


@pytest.mark.parametrize("name", ["coffee", "china"])
def test_less_flicker_than_frame_by_frame(colorizer: Colorizer, name: str) -> None:
    frames = tensors(pan(name, 16))
    single = torch.cat([colorizer.colorize(f[None], working_size=96) for f in frames])
    followed = colored(tracker(colorizer, smoothing=0.0), frames)
    smoothed = colored(tracker(colorizer), frames)
    assert flicker(smoothed, 2) < flicker(followed, 2)
    assert 3 * flicker(smoothed, 2) < flicker(single, 2)
    assert smoothed.float().std(dim=1).mean() > 0.7 * single.float().std(dim=1).mean()


def test_the_first_frame_is_as_any_picture(colorizer: Colorizer) -> None:
    frames = tensors(pan("coffee", 1))
    single = colorizer.colorize(frames, working_size=96)
    assert torch.equal(tracker(colorizer).colorize(frames), single)


def test_the_vividness_of_a_film(colorizer: Colorizer) -> None:
    frames = tensors(pan("coffee", 1))
    for vividness in (0.0, 1.0):
        single = colorizer.colorize(frames, working_size=96, vividness=vividness)
        assert torch.equal(tracker(colorizer, vividness=vividness).colorize(frames), single)


def test_a_cut_begins_anew(colorizer: Colorizer) -> None:
    one, other = tensors(pan("coffee", 4)), tensors(pan("rocket", 4))
    whole = tracker(colorizer)
    found = colored(whole, torch.cat([one, other]))
    assert whole.cuts == 1
    assert torch.equal(found[4:], colored(tracker(colorizer), other))
    assert torch.equal(found[:4], colored(tracker(colorizer), one))


def test_cuts_are_told_from_motion() -> None:
    def lightness(frames: np.ndarray) -> list[np.ndarray]:
        return [frame.astype(np.float32) / 2.55 for frame in frames]

    scenes = [lightness(pan(n, 6, step=5)) for n in ("china", "coffee", "chelsea", "astronaut")]
    for scene in scenes:
        assert not any(motion(a, b).cut for a, b in pairwise(scene))
        assert not motion(scene[0], scene[0] * 0.9).cut  # a light goes down
    for one in scenes:
        for other in scenes:
            assert one is other or motion(one[0], other[0]).cut


def test_what_moved_is_found() -> None:
    frames = pan("chelsea", 2, step=3).astype(np.float32) / 2.55
    moved = motion(frames[0], frames[1])
    shift = moved.places - np.stack(np.indices(frames[0].shape, np.float32)[::-1], axis=2)
    assert np.median(shift[..., 0]) == pytest.approx(3, abs=0.3)
    assert np.median(shift[..., 1]) == pytest.approx(0, abs=0.3)
    assert moved.likeness[:, :-8].mean() > 0.7
    assert motion(frames[0], frames[0] + 40).likeness.mean() < 0.1


def test_saved_and_loaded_it_goes_on(colorizer: Colorizer) -> None:
    frames = tensors(pan("china", 8))
    through = colored(tracker(colorizer), frames)
    first, second = tracker(colorizer), tracker(colorizer)
    colored(first, frames[:5])
    second.load(first.save())
    assert torch.equal(colored(second, frames[5:]), through[5:])


def test_frames_together_are_colored_as_one_by_one(colorizer: Colorizer) -> None:
    frames = tensors(np.concatenate([pan("china", 3), pan("rocket", 3)]))
    single = colored(tracker(colorizer), frames)
    together = tracker(colorizer).colorize(frames)
    # A CPU's convolutions round otherwise for several pictures at once.
    assert (together.int() - single.int()).abs().float().mean() < 0.1


# ---- files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_sound_times_and_number_of_frames_are_kept(suffix: str, tmp_path: Path) -> None:
    times = list(np.cumsum([0, *[3, 4, 9] * 6]))  # of varying rate
    source = write_film(tmp_path / "in.mp4", pan("coffee", len(times)), times, audio="aac")
    target = tmp_path / f"out{suffix}"
    assert main(["video", str(source), "-o", str(target), *QUICK]) == 0
    assert packets(target, "audio") == packets(source, "audio") != []
    was, got = seconds(source), seconds(target)
    assert len(got) == len(times)
    # Matroska counts milliseconds, and begins with the sound that a player drops.
    assert np.diff(got) == pytest.approx(np.diff(was), abs=1.1e-3)
    assert got[0] - was[0] == pytest.approx(0, abs=0 if suffix != ".mkv" else 0.03)
    frames = [frame.pixels.astype(int) for frame in film.frames(target)]
    given = [frame.pixels.astype(int) for frame in film.frames(source)]
    assert np.std(frames, axis=3).mean() > 5  # in color
    lightness = [
        np.abs(a.mean(axis=2) - b.mean(axis=2)).mean() for a, b in zip(frames, given, strict=True)
    ]
    assert np.mean(lightness) < 12
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", target.name]


def test_odd_sizes_and_no_sound(tmp_path: Path) -> None:
    frames = pan("china", 5, height=50, width=62)
    source = write_film(tmp_path / "in.mkv", frames)
    with av.open(str(tmp_path / "odd.mkv"), "w") as output:
        stream = output.add_stream("ffv1", rate=RATE)
        stream.height, stream.width, stream.pix_fmt = 49, 61, "bgr0"
        for n, gray in enumerate(frames):
            picture = np.repeat(gray[:49, :61, None], 3, 2)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts = n
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    for name, size in ((source.name, (50, 62)), ("odd.mkv", (49, 61))):
        target = tmp_path / f"{name}.mp4"
        assert main(["video", str(tmp_path / name), "-o", str(target), *QUICK]) == 0
        got = [frame.pixels.shape[:2] for frame in film.frames(target)]
        assert got == [(size[0] + size[0] % 2, size[1] + size[1] % 2)] * 5


def test_a_size_that_changes_midway(tmp_path: Path) -> None:
    """Two H.264 streams one after the other, as some recorders write them."""
    streams = b""
    for height, width in ((64, 96), (48, 64)):
        write_film(tmp_path / "part.h264", pan("china", 3, height, width), container="h264")
        streams += (tmp_path / "part.h264").read_bytes()
    (tmp_path / "in.h264").write_bytes(streams)
    with av.open(str(tmp_path / "in.h264")) as container:
        assert len({(f.width, f.height) for f in container.decode(video=0)}) == 2
    target = tmp_path / "out.mp4"
    assert main(["video", str(tmp_path / "in.h264"), "-o", str(target), *QUICK]) == 0
    assert [frame.pixels.shape for frame in film.frames(target)] == [(64, 96, 3)] * 6


@pytest.mark.thorough
def test_killed_it_goes_on_to_the_same_film(tmp_path: Path) -> None:
    frames = np.concatenate([pan("coffee", PART, 48, 64, 1), pan("china", PART + 40, 48, 64, 1)])
    source = write_film(tmp_path / "in.mp4", frames, audio="aac")
    whole, stopped = tmp_path / "whole.mp4", tmp_path / "stopped.mp4"
    assert main(["video", str(source), "-o", str(whole), *QUICK]) == 0
    command = [sys.executable, "-m", "disco_fast.cli", "video", str(source), "-o", str(stopped)]
    # Elsewhere: -m would prefer the source folder, which has no kernels, to what is installed.
    process = subprocess.Popen([*command, *QUICK], stderr=subprocess.PIPE, cwd=tmp_path)
    while not list(tmp_path.glob(".stopped.mp4.disco-fast-*/000000.safetensors")):
        assert process.poll() is None, process.stderr.read().decode()
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert not stopped.exists()
    done = subprocess.run(
        [*command, *QUICK], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert "parts of 100 frames are done already" in done.stderr
    assert stopped.read_bytes() == whole.read_bytes()
    assert len(seconds(stopped)) == len(frames)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_parts_of_other_settings_are_not_used(tmp_path: Path, monkeypatch) -> None:
    source = write_film(tmp_path / "in.mp4", pan("coffee", 6))
    target = tmp_path / "out.mp4"

    def full(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("disco_fast.cli.video.join", full)
        assert main(["video", str(source), "-o", str(target), *QUICK]) == 1
    assert len(list(tmp_path.glob(".out.mp4.disco-fast-*"))) == 1
    assert main(["video", str(source), "-o", str(target), *QUICK, "--seed", "3"]) == 0
    other = tmp_path / "other.mp4"
    assert main(["video", str(source), "-o", str(other), *QUICK, "--seed", "3"]) == 0
    assert target.read_bytes() == other.read_bytes()
    assert not list(tmp_path.glob(".out.mp4.disco-fast-*"))


def test_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_film(tmp_path / "in.mkv", pan("coffee", 3), audio="flac")
    text, sound = tmp_path / "text.mp4", tmp_path / "sound.mkv"
    text.write_text("no film")
    with av.open(str(sound), "w") as output:
        stream = output.add_stream("flac", rate=44100, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.int16), "s16", "mono")
        frame.sample_rate, frame.pts = 44100, 0
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    (tmp_path / "there.mp4").write_bytes(b"kept")
    before = sorted(tmp_path.iterdir())
    for given, target, options, reason in [
        ("absent.mp4", "out.mp4", [], "there is no such file"),
        ("text.mp4", "out.mp4", [], "text.mp4: not a film that can be read"),
        ("sound.mkv", "out.mp4", [], "sound.mkv: no film in it"),
        ("in.mkv", "out.gif", [], "films are written as .mp4 .m4v .mov .mkv"),
        ("in.mkv", "out.mov", [], "a mov file cannot hold the audio"),
        ("in.mkv", "there.mp4", [], "there.mp4 exists"),
        ("in.mkv", "in.mkv", ["--overwrite"], "is the input"),
        ("in.mkv", "absent/out.mkv", [], "there is no such folder"),
        ("in.mkv", "out.mkv", ["--quality", "52"], "--quality: expected 0..51, got 52"),
        ("in.mkv", "out.mkv", ["--working-size", "8"], "working_size: expected 16"),
    ]:
        command = ["video", str(tmp_path / given), "-o", str(tmp_path / target), *QUICK]
        assert main([*command, *options]) == 2, (given, target)
        assert reason in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "there.mp4").read_bytes() == b"kept"
    assert source.exists()


def test_without_pyav_the_extra_is_named(tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "in.mp4").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "av", None)
    command = ["video", str(tmp_path / "in.mp4"), "-o", str(tmp_path / "out.mp4")]
    assert main(command) == 1
    assert "disco_fast[video]" in capsys.readouterr().err


@pytest.mark.thorough
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads memory as on Linux")
def test_memory_does_not_grow_with_the_film(tmp_path: Path) -> None:
    frames = np.concatenate([pan("coffee", 60, 96, 128, 1)] * 8)
    sizes = []
    for count in (120, 480):
        source = write_film(tmp_path / f"{count}.mp4", frames[:count])
        code = (
            "import resource; from disco_fast.cli import main; main(); "
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        command = ["video", str(source), "-o", str(tmp_path / f"{count}-out.mp4"), *QUICK]
        done = subprocess.run(
            [sys.executable, "-c", code, *command], capture_output=True, text=True, check=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        sizes.append(int(done.stdout.split()[-1]))
    # 360 more frames of 36 KB would be 13 MB, in color and gray 18.
    assert sizes[1] - sizes[0] < 6_000
