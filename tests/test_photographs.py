"""Collections of photographs: folders and tar shards, in one fixed order."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from disco_fast.io.images import ImageFileError
from disco_fast.io.photographs import Photographs, middle_square, resized, to_lab

COLORS = {"a.png": (255, 0, 0), "b.png": (0, 255, 0), "c.png": (0, 0, 255)}


def _png(color: tuple[int, int, int], shape: tuple[int, int] = (6, 9)) -> bytes:
    picture = np.full((*shape, 3), color[::-1], np.uint8)
    return cv2.imencode(".png", picture)[1].tobytes()


def _folder(path: Path) -> Path:
    for name, color in COLORS.items():
        place = path / ("below" if name == "b.png" else ".") / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(_png(color))
    (path / ".hidden").mkdir()
    (path / ".hidden" / "d.png").write_bytes(_png((1, 2, 3)))
    (path / "notes.txt").write_text("no picture")
    return path


def _shard(path: Path, names: list[str]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name in names:
            for member, data in ((name, _png(COLORS[name])), (f"{name}.json", b"{}")):
                info = tarfile.TarInfo(f"sample/{member}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return path


def test_a_folder_and_shards_hold_the_same(tmp_path: Path) -> None:
    folder = Photographs(_folder(tmp_path / "folder"))
    shards = tmp_path / "shards"
    shards.mkdir()
    _shard(shards / "1.tar", ["c.png", "a.png"])
    _shard(shards / "0.tar", ["b.png"])
    tars = Photographs(shards)
    assert [folder.name(i) for i in range(len(folder))] == ["a.png", "c.png", "b.png"]
    assert [tars.name(i) for i in range(len(tars))] == ["a.png", "b.png", "c.png"]
    for photographs in (folder, tars):
        for i in range(len(photographs)):
            pixels = photographs.read(i)
            assert pixels.shape == (6, 9, 3)
            assert tuple(pixels[0, 0]) == COLORS[photographs.name(i)]


def test_one_file_is_a_collection_too(tmp_path: Path) -> None:
    assert len(Photographs(_shard(tmp_path / "one.tar", ["a.png", "b.png"]))) == 2
    assert len(Photographs(_folder(tmp_path / "folder") / "a.png")) == 1


def test_nothing_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no .*nowhere"):
        Photographs(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no picture"):
        Photographs(tmp_path)


def test_damage_is_named(tmp_path: Path) -> None:
    shard = _shard(tmp_path / "cut.tar", ["a.png", "b.png"])
    whole = shard.read_bytes()
    shard.write_bytes(b"x" * 2000)
    with pytest.raises(ImageFileError, match=r"cut\.tar: not a complete tar"):
        Photographs(shard)
    shard.write_bytes(whole)
    (tmp_path / "bad.png").write_bytes(b"not a png")
    (tmp_path / "empty.png").write_bytes(b"")
    photographs = Photographs(tmp_path)
    bad = [i for i in range(len(photographs)) if photographs.name(i) in ("bad.png", "empty.png")]
    assert len(bad) == 2
    for index in bad:
        with pytest.raises(ImageFileError, match=photographs.name(index)):
            photographs.read(index)


def test_the_middle_square() -> None:
    pixels = np.zeros((40, 100, 3), np.uint8)
    pixels[:, 30:70] = 200
    square = middle_square(pixels, 20)
    assert square.shape == (20, 20, 3)
    assert (square == 200).all()


def test_growing_is_smooth_and_shrinking_averages() -> None:
    board = np.indices((8, 8)).sum(0) % 2 * 255
    board = np.repeat(board[..., None], 3, axis=2).astype(np.uint8)
    assert np.abs(resized(board, 4).astype(int) - 128).max() <= 1
    assert resized(board, 16).shape == (16, 16, 3)


def test_lab_of_known_colors() -> None:
    pixels = np.array([[(255, 255, 255), (0, 0, 0), (255, 0, 0)]], np.uint8)
    expected = np.array([[(100, 0, 0), (0, 0, 0), (53.24, 80.09, 67.20)]])  # CIE, D65
    np.testing.assert_allclose(to_lab(pixels), expected, atol=0.05)
