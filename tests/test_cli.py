"""The command, run as a user runs it, on small pictures with the compact network."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import need_gpu
from safetensors.torch import load_file

from disco_fast import __version__, _library
from disco_fast.checkpoints import random_network
from disco_fast.cli.main import main
from disco_fast.cli.plan import Job, plan
from disco_fast.colorizer import Colorizer
from disco_fast.console import UsageError
from disco_fast.io.images import Picture, read_image, write_image

QUICK = ["--working-size", "64", "--device", "cpu", "--precision", "fp32"]


def gray(seed=0, height=40, width=56, dtype=np.uint8):
    """A gray picture of soft shapes, (H, W, 1)."""
    y, x = np.mgrid[:height, :width] / 9
    waves = 0.5 + 0.45 * np.sin(x + seed) * np.cos(y)
    return np.rint(waves * np.iinfo(dtype).max).astype(dtype)[..., None]


@pytest.fixture
def photos(tmp_path):
    """A folder of three pictures in two folders, with files that are none."""
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    write_image(folder / "b.jpg", Picture(gray(1)))
    write_image(folder / "A.PNG", Picture(gray(2)))
    write_image(folder / "below" / "c.webp", Picture(gray(3)))
    (folder / "notes.txt").write_text("not a picture")
    (folder / "._b.jpg").write_text("what macOS leaves beside a picture")
    return folder


@pytest.fixture(scope="module")
def colorizer():
    return Colorizer(device="cpu", precision="fp32")


class TestPlan:
    def test_one_file_to_a_file_or_a_folder(self, photos, tmp_path):
        source = photos / "b.jpg"
        assert plan([source], tmp_path / "new.png") == [Job(source, (tmp_path / "new.png",))]
        assert plan([source], tmp_path / "new") == [Job(source, (tmp_path / "new" / "b.jpg",))]
        (tmp_path / "folder.png").mkdir()
        assert plan([source], tmp_path / "folder.png")[0].targets[0].name == "b.jpg"

    def test_a_folder_keeps_its_tree_in_order(self, photos, tmp_path):
        out = tmp_path / "out"
        assert plan([photos], out) == [
            Job(photos / "A.PNG", (out / "A.PNG",)),
            Job(photos / "b.jpg", (out / "b.jpg",)),
            Job(photos / "below" / "c.webp", (out / "below" / "c.webp",)),
        ]

    def test_the_output_folder_is_no_input(self, photos):
        out = photos / "below" / "out"
        out.mkdir()
        write_image(out / "b.jpg", Picture(gray()))
        jobs = plan([photos], out, overwrite=True)
        assert [job.source.name for job in jobs] == ["A.PNG", "b.jpg", "c.webp"]

    def test_variants_are_numbered(self, photos, tmp_path):
        (job,) = plan([photos / "b.jpg"], tmp_path / "new.v2.png", variants=3)
        assert [target.name for target in job.targets] == [
            "new.v2-1.png",
            "new.v2-2.png",
            "new.v2-3.png",
        ]

    def test_variants_may_go_beside_their_source(self, photos):
        assert len(plan([photos], photos, variants=2)) == 3

    def test_refusals(self, photos, tmp_path):
        out = tmp_path / "out"
        (tmp_path / "empty").mkdir()
        (tmp_path / "same").mkdir()
        write_image(tmp_path / "same" / "b.jpg", Picture(gray()))
        for paths, target, reason in [
            ([tmp_path / "absent.jpg"], out, "absent.jpg: there is no such file or folder"),
            ([photos, tmp_path / "absent"], out, "absent: there is no such file or folder"),
            ([tmp_path / "empty"], out, "no picture in .*empty"),
            ([photos], tmp_path / "new.png", "is one file; give a folder"),
            ([photos / "b.jpg", photos / "A.PNG"], tmp_path / "new.png", "is one file"),
            ([photos / "b.jpg"], tmp_path / "new.bmp", "new.bmp: pictures are written as .jpg"),
            ([photos, tmp_path / "same"], out, "b.jpg and .*b.jpg would both be written to"),
            ([photos / "b.jpg", photos / "b.jpg"], out, "would both be written to"),
        ]:
            with pytest.raises(UsageError, match=reason):
                plan(paths, target)
        assert not out.exists()

    def test_an_input_is_never_an_output(self, photos, tmp_path):
        for link, kind in [("link.jpg", "symlink_to"), ("hard.jpg", "hardlink_to")]:
            getattr(tmp_path / link, kind)(photos / "b.jpg")
        for paths, out in [
            ([photos / "b.jpg"], photos / "b.jpg"),
            ([photos / "b.jpg"], photos),
            ([photos], photos),
            ([photos], photos / "below" / ".."),
            ([photos / "b.jpg"], tmp_path / "link.jpg"),
            ([photos / "b.jpg"], tmp_path / "hard.jpg"),
        ]:
            with pytest.raises(UsageError, match="is an input, and would be overwritten"):
                plan(paths, out, overwrite=True)

    def test_what_exists_is_kept_unless_overwrite(self, photos, tmp_path):
        write_image(tmp_path / "out-2.png", Picture(gray()))
        with pytest.raises(UsageError, match=r"out-2\.png exists"):
            plan([photos / "b.jpg"], tmp_path / "out.png", variants=2)
        assert plan([photos / "b.jpg"], tmp_path / "out.png", variants=2, overwrite=True)


class TestColorize:
    @pytest.mark.parametrize("suffix", [".png", ".tif"])
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_the_colors_are_those_of_the_colorizer(self, tmp_path, colorizer, suffix, dtype):
        """Through the file formats that lose nothing; so order, depth and alpha are right too."""
        pixels = gray(dtype=dtype)
        alpha = gray(5, dtype=dtype)[..., 0]
        source, target = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
        write_image(source, Picture(pixels, alpha))
        options = ["--anchors", "4", "--seed", "7", "-o", str(target)]
        assert main(["colorize", str(source), *QUICK, *options]) == 0

        image = torch.from_numpy(pixels).expand(-1, -1, 3).permute(2, 0, 1)
        if dtype == np.uint16:
            image = image.float() / 65535
        colored = colorizer.colorize(image, n_anchors=4, seed=7, working_size=64)
        if dtype == np.uint16:
            colored = (colored * 65535).round()
        expected = colored.permute(1, 2, 0).numpy().astype(dtype)
        picture = read_image(target)
        assert picture.pixels.dtype == dtype
        assert (picture.pixels == expected).all()
        assert (picture.alpha == alpha).all()
        assert picture.pixels.std(axis=2).max() > 0  # it has colors

    def test_folder(self, photos, tmp_path, capsys):
        out = tmp_path / "out"
        assert main(["colorize", str(photos), "-o", str(out), *QUICK]) == 0
        for name in ("A.PNG", "b.jpg", "below/c.webp"):
            assert read_image(out / name).pixels.shape == (40, 56, 3)
        assert sorted(path.name for path in out.rglob("*.*")) == ["A.PNG", "b.jpg", "c.webp"]
        said = capsys.readouterr().err
        assert "device cpu, precision fp32, the compact network of the package\n" in said
        assert "[1/3] " in said
        assert "[3/3] " in said
        assert "3 of 3 pictures done, 0 failed" in said

    def test_random_weights_are_said_to_mean_nothing(self, photos, tmp_path, capsys):
        command = ["colorize", str(photos / "b.jpg"), "-o", str(tmp_path), *QUICK]
        assert main([*command, "--checkpoint", "random"]) == 0
        assert "fp32, random weights: the colors mean nothing\n" in capsys.readouterr().err
        assert read_image(tmp_path / "b.jpg").pixels.shape == (40, 56, 3)

    def test_a_bad_file_is_reported_and_the_others_are_done(self, photos, tmp_path, capfd):
        (photos / "A.PNG").write_bytes((photos / "A.PNG").read_bytes()[:200])
        (photos / "below" / "empty.tif").touch()
        out = tmp_path / "out"
        assert main(["colorize", str(photos), "-o", str(out), *QUICK]) == 1
        assert (out / "b.jpg").exists()
        assert (out / "below" / "c.webp").exists()
        assert not (out / "A.PNG").exists()
        said = capfd.readouterr().err
        assert f"disco-fast: {photos / 'A.PNG'}: not a picture" in said
        assert f"disco-fast: {photos / 'below' / 'empty.tif'}: the file is empty" in said
        assert "2 of 4 pictures done, 2 failed" in said
        assert "grfmt_png" not in said  # OpenCV's own account of the damage

    def test_an_output_that_the_format_cannot_hold_is_reported(self, tmp_path, capsys):
        write_image(tmp_path / "a.png", Picture(gray(), gray(1)[..., 0]))
        target = tmp_path / "b.jpg"
        assert main(["colorize", str(tmp_path / "a.png"), "-o", str(target), *QUICK]) == 1
        assert f"disco-fast: {target}: JPEG cannot hold its alpha" in capsys.readouterr().err
        assert [path.name for path in tmp_path.iterdir()] == ["a.png"]

    def test_variants(self, photos, tmp_path, colorizer):
        source = photos / "A.PNG"
        options = ["-o", str(tmp_path / "out.png"), "--variants", "3", *QUICK]
        assert main(["colorize", str(source), *options]) == 0
        expected = colorizer.colorize(
            torch.from_numpy(gray(2)).permute(2, 0, 1), variants=3, working_size=64
        )
        for number in (1, 2, 3):
            pixels = read_image(tmp_path / f"out-{number}.png").pixels
            assert (pixels == expected[number - 1].permute(1, 2, 0).numpy()).all()

    def test_vividness(self, photos, tmp_path, colorizer):
        source, target = photos / "A.PNG", tmp_path / "out.png"
        for vividness in ("0", "1"):
            options = ["-o", str(target), "--vividness", vividness, "--overwrite", *QUICK]
            assert main(["colorize", str(source), *options]) == 0
            picture = torch.from_numpy(gray(2)).permute(2, 0, 1)
            expected = colorizer.colorize(picture, vividness=float(vividness), working_size=64)
            found = read_image(target).pixels
            assert (found == expected.permute(1, 2, 0).numpy()).all()

    def test_usage_errors_do_nothing(self, photos, tmp_path, capsys):
        out = tmp_path / "out"
        for options, reason in [
            (["--anchors", "0"], "n_anchors: expected 1.."),
            (["--variants", "65"], "variants: expected 1..64, got 65"),
            (["--temperature", "0"], "temperature: expected more than 0"),
            (["--vividness", "1.5"], "vividness: expected a number in 0..1, got 1.5"),
            (["--vividness", "nan"], "vividness: expected a number in 0..1, got nan"),
            (["--vividness", "very"], "invalid float value: 'very'"),
            (["--overwrite", "--skip-existing"], "not allowed with argument"),
            (["--anchors", "some"], "--anchors: expected a number, 'auto' or a file of anchors"),
            (["--anchors", str(photos / "notes.txt")], "anchors: not JSON"),
            (
                ["--reference", str(photos / "b.jpg")],
                "--reference: reference: expected a picture in",
            ),
            (["--reference", str(photos / "notes.txt")], "--reference: "),
            (
                ["--reference", str(photos / "b.jpg"), "--variants", "2"],
                "expected 1 with a reference",
            ),
            (["--precision", "fp8"], "invalid choice: 'fp8'"),
            (["--seed", "x"], "invalid int value: 'x'"),
            (["--working-size", "-64"], "-64 is less than 1"),
            (["--working-size", "8"], "working_size: expected 16"),
            (["--seed", str(2**70)], "seed: expected"),
            (["--checkpoint", str(tmp_path / "absent.safetensors")], "absent.safetensors"),
            (["--checkpoint", str(photos / "b.jpg")], "b.jpg"),
            (["--device", "abacus"], "abacus"),
            (["--device", "cuda:99"], "device: expected one usable here, got 'cuda:99'"),
        ]:
            assert status(["colorize", str(photos), "-o", str(out), *QUICK, *options]) == 2
            assert reason in capsys.readouterr().err
        assert not out.exists()

    def test_existing_outputs(self, photos, tmp_path, capsys):
        target = tmp_path / "out.png"
        target.write_bytes(b"kept")
        command = ["colorize", str(photos / "b.jpg"), "-o", str(target), *QUICK]
        assert main(command) == 2
        assert f"disco-fast: {target} exists" in capsys.readouterr().err
        assert target.read_bytes() == b"kept"
        assert main([*command, "--overwrite"]) == 0
        assert read_image(target).pixels.shape == (40, 56, 3)

    def test_a_terminal_gets_a_bar(self, photos, tmp_path, monkeypatch):
        class Terminal(io.StringIO):
            def isatty(self):
                return True

        (photos / "A.PNG").write_bytes(b"damaged")
        monkeypatch.setattr(sys, "stderr", Terminal())
        monkeypatch.setenv("COLUMNS", "200")
        assert main(["colorize", str(photos), "-o", str(tmp_path / "out"), *QUICK]) == 1
        screen = sys.stderr.getvalue()
        for done in (1, 2, 3):
            assert f"\r[{'=' * 10 * done}{' ' * 10 * (3 - done)}] {done}/3 {photos}" in screen
        for line in screen.split("\n")[:-1]:  # every line is written over what is left of the bar
            last = line.split("\r")[-1]
            assert last.startswith("disco-fast: ")
            assert "[=" not in last

    def test_a_folder_is_its_pictures_one_by_one(self, tmp_path, colorizer, capsys):
        """To the byte: sizes, depths and alpha of all kinds, several variants, in no order."""
        folder, out = tmp_path / "photos", tmp_path / "out"
        folder.mkdir()
        pictures = {
            f"{number:02}{suffix}": Picture(
                gray(number, 20 + 7 * (number % 4), 30 + 13 * (number % 3), dtype),
                gray(9, 20 + 7 * (number % 4), 30 + 13 * (number % 3), dtype)[..., 0]
                if alpha
                else None,
            )
            for number, (suffix, dtype, alpha) in enumerate(
                [
                    *[(".png", np.uint8, False), (".png", np.uint16, True)] * 3,
                    *[(".jpg", np.uint8, False), (".tif", np.uint16, False)] * 3,
                    *[(".png", np.uint8, True), (".webp", np.uint8, False)] * 3,
                ]
            )
        }
        for name, picture in pictures.items():
            write_image(folder / name, picture)
        command = ["colorize", str(folder), "-o", str(out), "--variants", "2", *QUICK]
        assert main(command) == 0
        assert "18 of 18 pictures done, 0 failed" in capsys.readouterr().err
        assert len(list(out.iterdir())) == 36
        for name in pictures:
            read = read_image(folder / name)
            most = np.iinfo(read.pixels.dtype).max
            image = torch.from_numpy(read.pixels).permute(2, 0, 1)
            if most > 255:
                image = image.float() / most
            colored = colorizer.colorize(image, variants=2, working_size=64)
            if most > 255:
                colored = (colored * most).round()
            for number, one in enumerate(colored, 1):
                pixels = one.permute(1, 2, 0).numpy().astype(read.pixels.dtype)
                alone = tmp_path / f"alone{Path(name).suffix}"
                write_image(alone, Picture(pixels, read.alpha, read.kept.marked()))
                written = (out / name).with_stem(f"{Path(name).stem}-{number}")
                assert written.read_bytes() == alone.read_bytes()
        before = {path: path.read_bytes() for path in out.iterdir()}
        assert main([*command, "--overwrite"]) == 0
        assert {path: path.read_bytes() for path in out.iterdir()} == before

    def test_forty_pictures_one_damaged_and_one_that_cannot_be_written(self, tmp_path, capfd):
        folder, out = tmp_path / "photos", tmp_path / "out"
        for number in range(40):
            (folder / str(number)).mkdir(parents=True)
            write_image(folder / str(number) / "a.png", Picture(gray(number, 16 + number, 20)))
        damaged, unwritable = folder / "7" / "a.png", out / "30"
        damaged.write_bytes(damaged.read_bytes()[:60])
        out.mkdir()
        unwritable.touch()  # a file where a folder is to be
        assert main(["colorize", str(folder), "-o", str(out), *QUICK]) == 1
        said = capfd.readouterr().err
        assert f"disco-fast: {damaged}: not a picture" in said
        assert f"disco-fast: {folder / '30' / 'a.png'}: " in said
        assert "38 of 40 pictures done, 2 failed" in said
        assert {f"[{number}/40]" for number in range(1, 41)} <= set(said.split())
        written = {path.relative_to(out) for path in out.rglob("*") if path.parent != out}
        assert written == {Path(str(n), "a.png") for n in range(40) if n not in (7, 30)}
        assert not [t for t in threading.enumerate() if t.name.startswith("disco-fast")]

    def test_on_a_gpu_pictures_are_computed_together(self, tmp_path):
        """Batches, streams and pinned memory, against the same pictures one by one."""
        need_gpu()
        folder, out = tmp_path / "photos", tmp_path / "out"
        folder.mkdir()
        for number in range(60):
            size = (64 + 16 * (number % 3), 64)
            write_image(folder / f"{number}.png", Picture(gray(number, *size)))
        command = ["--working-size", "64", "--device", "cuda", "--precision", "fp32"]
        assert main(["colorize", str(folder), "-o", str(out), *command]) == 0
        colorizer = Colorizer(device="cuda", precision="fp32")
        for source in folder.iterdir():
            image = torch.from_numpy(read_image(source).pixels).permute(2, 0, 1)
            alone = colorizer.colorize(image, working_size=64).permute(1, 2, 0).numpy()
            together = read_image(out / source.name).pixels
            # Convolutions may round differently for different batch sizes.
            assert np.abs(together.astype(int) - alone).max() <= 2

    @pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to one process")
    def test_ctrl_c_leaves_whole_files_only(self, photos, tmp_path):
        for number in range(200):
            write_image(photos / f"{number:03}.png", Picture(gray(number)))
        out = tmp_path / "out"
        command = [
            sys.executable,
            "-c",
            "from disco_fast.cli import main; raise SystemExit(main())",
        ]
        process = subprocess.Popen(
            [*command, "colorize", str(photos), "-o", str(out), *QUICK],
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + 120
        while not list(out.glob("*.png")) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
        assert process.returncode == 130
        assert "disco-fast: interrupted" in said
        assert "Traceback" not in said
        written = list(out.iterdir())
        assert 0 < len(written) < 200
        for path in written:
            assert path.suffix == ".png"  # not .part
            read_image(path)


def status(command):
    """The exit status, be it returned or, by argparse, raised."""
    try:
        return main(command)
    except SystemExit as error:
        return error.code


def test_info(capsys):
    assert main(["info"]) == 0
    facts = capsys.readouterr().out
    for fact in (__version__, torch.__version__, np.__version__, "auto means", "disco_fast"):
        assert fact in facts
    for half in _library.halves():
        state = "active" if half.active else "not active"
        assert f"{half.name + ' kernels':14} {state}: {half.why}" in facts


def test_convert(tmp_path, capsys):
    source, target = tmp_path / "a.pth.tar", tmp_path / "b.safetensors"
    weights = random_network(0.25).state_dict()
    torch.save({"state_dict": weights}, source)
    assert main(["convert", str(source), str(target)]) == 0
    converted = load_file(target)
    assert converted.keys() == weights.keys()
    assert all(torch.equal(converted[key], weights[key]) for key in weights)
    capsys.readouterr()

    for arguments, code, reason in [
        ([source, target], 2, "exists"),
        ([source, tmp_path / "b.pth"], 2, "ends in .safetensors"),
        ([tmp_path / "absent.pth", tmp_path / "c.safetensors"], 2, "no such file"),
        ([__file__, tmp_path / "c.safetensors"], 1, "test_cli.py"),
        ([source, target, "--overwrite"], 0, "is written"),
    ]:
        assert main(["convert", *map(str, arguments)]) == code
        assert reason in capsys.readouterr().err
    assert not (tmp_path / "c.safetensors").exists()


def test_download_of_what_is_there(tmp_path, capsys):
    """The command around the download, which has its own tests; here nothing is fetched."""
    path = tmp_path / "disco.pth.tar"
    torch.save({"state_dict": random_network(0.25).state_dict()}, path)
    assert main(["download", "--folder", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert said.out == f"{path}\n"
    sha256 = said.err.partition("SHA-256 ")[2][:64]
    assert main(["download", "--folder", str(tmp_path), "--sha256", sha256]) == 0
    assert main(["download", "--folder", str(tmp_path), "--sha256", "0" * 64]) == 1
    assert f"its SHA-256 is {sha256}" in capsys.readouterr().err
    assert status(["download", "--folder", str(tmp_path), "--sha256", "0" * 63]) == 2
    assert status(["download", "another"]) == 2
    assert path.exists()


def test_version_and_help(capsys):
    assert status(["--version"]) == 0
    assert __version__ in capsys.readouterr().out
    for command in ("colorize", "info", "convert", "download"):
        assert status([command, "--help"]) == 0
        assert f"disco-fast {command}" in capsys.readouterr().out
    assert status([]) == 2
