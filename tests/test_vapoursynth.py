"""Clips in color, in VapourSynth itself."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from disco_fast import Colorizer
from disco_fast.integrations.vapoursynth import colorize
from disco_fast.video.tracking import Tracker

vs = pytest.importorskip("vapoursynth", reason="its wheels begin at Python 3.12")
pytest.importorskip("av")

from films import pan, write_film  # noqa: E402

SETTINGS = {"device": "cpu", "precision": "fp32", "working_size": 48}
EXAMPLE = Path(__file__).parents[1] / "examples" / "vapoursynth" / "colorize.vpy"


def clip_of(frames: np.ndarray, kind: int = vs.RGB24) -> Any:
    """Gray frames, (N, H, W) uint8, as a clip of RGB or gray of 8 bits."""
    count, height, width = frames.shape
    blank = vs.core.std.BlankClip(width=width, height=height, length=count, format=kind)

    def frame(n: int, f: Any) -> Any:
        filled = f.copy()
        for plane in range(f.format.num_planes):
            np.copyto(np.asarray(filled[plane]), frames[n])
        return filled

    return vs.core.std.ModifyFrame(blank, blank, frame)


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """Two scenes."""
    return np.concatenate([pan("coffee", 4), pan("rocket", 4)])


@pytest.fixture(scope="module")
def expected(frames: np.ndarray) -> np.ndarray:
    """In color, (N, 3, H, W) uint8, as `disco-fast video` makes them."""
    engine = Colorizer(device="cpu", precision="fp32").engine
    tracker = Tracker(engine, working_size=48)
    rgb = torch.from_numpy(frames)[:, None].repeat(1, 3, 1, 1)
    return torch.cat([tracker.colorize(frame[None]) for frame in rgb]).numpy()


def samples(frame: Any) -> np.ndarray:
    """(C, H, W) of a frame whose planes have one size."""
    return np.stack([np.asarray(frame[plane]) for plane in range(frame.format.num_planes)])


def unit_rgb(clip: Any) -> np.ndarray:
    """(N, 3, H, W) fp32 0-1 of a clip."""
    return np.stack([samples(frame) for frame in clip.resize.Bicubic(format=vs.RGBS).frames()])


@pytest.mark.parametrize("kind", [vs.RGB24, vs.GRAY8])
def test_bytes_are_as_in_a_film_in_any_order(
    frames: np.ndarray, expected: np.ndarray, kind: int
) -> None:
    colored = colorize(clip_of(frames, kind).std.SetFrameProps(_Range=1), **SETTINGS)
    assert (colored.format.id, colored.num_frames) == (vs.RGB24, len(frames))
    for n in (5, 2, 7, 0, 5, 6):
        assert np.array_equal(samples(colored.get_frame(n)), expected[n]), n
    assert np.array_equal([samples(frame) for frame in colored.frames(prefetch=4)], expected)


@pytest.mark.parametrize(
    ("kind", "result"),
    [
        (vs.GRAY16, vs.RGB48),
        (vs.GRAYS, vs.RGBS),
        (vs.GRAYH, vs.RGBH),
        (vs.RGB30, vs.RGB30),
        (vs.RGBS, vs.RGBS),
        (vs.YUV420P8, vs.YUV420P8),
        (vs.YUV422P10, vs.YUV422P10),
        (vs.YUV444P16, vs.YUV444P16),
        (vs.YUV444PS, vs.YUV444PS),
    ],
)
def test_every_kind_of_clip(frames: np.ndarray, expected: np.ndarray, kind: int, result: int):
    clip = clip_of(frames[:2])
    family = vs.core.get_video_format(kind).color_family
    clip = clip.resize.Bicubic(format=kind, **({} if family == vs.RGB else {"matrix": 1}))
    colored = colorize(clip, **SETTINGS)
    assert colored.format.id == result
    got, wanted = unit_rgb(colored), expected[:2] / 255
    sampled = family == vs.YUV and colored.format.subsampling_w
    assert np.abs(got - wanted).mean() < (0.02 if sampled else 0.01)
    assert np.std(got, axis=1).mean() > 0.02  # in color


@pytest.mark.parametrize("matrix", [1, 6, 9])
@pytest.mark.parametrize("full", [0, 1])
def test_matrix_and_range_of_the_properties(
    frames: np.ndarray, expected: np.ndarray, matrix: int, full: int
) -> None:
    kind = {"format": vs.YUV444P16, "matrix": matrix, "range": full, "chromaloc": 2}
    clip = clip_of(frames[:1]).resize.Bicubic(**kind).std.SetFrameProps(Kept=7)
    colored = colorize(clip, **SETTINGS)
    was, props = clip.get_frame(0).props, colored.get_frame(0).props
    assert dict(was) == dict(props)
    assert np.abs(unit_rgb(colored)[0] - expected[0] / 255).mean() < 0.004


@pytest.mark.parametrize(("size", "matrix"), [((64, 96), 6), ((720, 1280), 1)])
def test_a_matrix_that_is_not_given(size: tuple[int, int], matrix: int) -> None:
    clip = vs.core.std.BlankClip(
        height=size[0], width=size[1], length=1, format=vs.YUV420P8, color=[120, 128, 128]
    )
    props = colorize(clip, **SETTINGS | {"working_size": 16}).get_frame(0).props
    assert (props["_Matrix"], props["_Range"]) == (matrix, 0)


def test_matrices_that_change(frames: np.ndarray, expected: np.ndarray) -> None:
    clip = clip_of(frames[:2])
    parts = [clip[n].resize.Bicubic(format=vs.YUV444P16, matrix=m) for n, m in enumerate((1, 9))]
    colored = colorize(parts[0] + parts[1], **SETTINGS)
    assert [frame.props["_Matrix"] for frame in colored.frames()] == [1, 9]
    assert np.abs(unit_rgb(colored) - expected[:2] / 255).mean() < 0.004


@pytest.mark.parametrize(
    ("props", "sentence"),
    [
        ({"_Transfer": 16}, "got PQ in frame 1: convert it first"),
        ({"_Transfer": 8}, "got linear light in frame 1"),
        ({"_FieldBased": 2}, "frame 1 is interlaced: deinterlace it first"),
    ],
)
def test_frames_that_must_be_converted_first(props: dict[str, int], sentence: str) -> None:
    clip = vs.core.std.BlankClip(format=vs.YUV420P8, length=2, width=64, height=48)
    colored = colorize(clip.std.SetFrameProps(**props), **SETTINGS)
    with pytest.raises(vs.Error, match=sentence):
        colored.get_frame(1)


def test_refusals() -> None:
    clip = vs.core.std.BlankClip(format=vs.YUV420P8, length=1, width=64, height=48)
    deep = vs.core.std.BlankClip(format=vs.core.query_video_format(vs.GRAY, vs.INTEGER, 32))
    varying = vs.core.std.Splice([clip, vs.core.std.BlankClip(format=vs.RGB24)], mismatch=True)
    for given, settings, kind, sentence in (
        ("film.mkv", {}, TypeError, "clip: expected a vapoursynth.VideoNode, got str"),
        (deep, {}, ValueError, "clip: expected 8 to 16 bits, got Gray32"),
        (varying, {}, ValueError, "clip: expected one format and size"),
        (clip, {"n_anchors": "auto"}, TypeError, "n_anchors: expected an int, got 'auto'"),
        (clip, {"n_anchors": 0}, ValueError, "n_anchors: expected 1"),
        (clip, {"vividness": 2.0}, ValueError, "vividness"),
        (clip, {"checkpoint": "absent.pth"}, FileNotFoundError, "absent.pth"),
    ):
        with pytest.raises(kind, match=sentence):
            colorize(given, **settings)


# ---- the example --------------------------------------------------------------------------------


@pytest.fixture
def film(tmp_path: Path) -> Path:
    if not hasattr(vs.core, "bs"):
        pytest.skip("films are read by the package vapoursynth-bestsource, which is not installed")
    return write_film(tmp_path / "in.mkv", pan("coffee", 3))


def test_example(film: Path) -> None:
    runpy.run_path(str(EXAMPLE), {"film": str(film)})
    colored = vs.get_output(0)[0]
    vs.clear_outputs()
    assert (colored.format.id, colored.num_frames) == (vs.YUV420P8, 3)
    assert np.std(unit_rgb(colored), axis=1).mean() > 0.02  # in color


@pytest.mark.skipif(sys.version_info < (3, 12), reason="VapourSynth's wheels begin at Python 3.12")
def test_example_by_vspipe(film: Path, tmp_path: Path) -> None:
    programs, target = Path(sys.executable).parent, tmp_path / "out.y4m"
    of_its_own = os.environ | {"XDG_CONFIG_HOME": str(tmp_path)}
    for command in (
        ["vapoursynth", "config"],
        ["vspipe", "-c", "y4m", "-a", f"film={film}", EXAMPLE, target],
    ):
        program, *arguments = command
        subprocess.run([programs / program, *arguments], check=True, cwd=tmp_path, env=of_its_own)
    header, frames = target.read_bytes().split(b"\n", 1)
    assert header.startswith(b"YUV4MPEG2 C420 W96 H72")
    assert len(frames) == 3 * (len(b"FRAME\n") + 96 * 72 * 3 // 2)
