"""The benchmarks run, measure what they say, and refuse to time what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from disco_fast import ops, reference
from disco_fast.checkpoints import random_network

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import _paper  # noqa: E402
import _photographs  # noqa: E402
import _stages  # noqa: E402
import _validate  # noqa: E402
import render_tables  # noqa: E402


def run(script: str, *arguments: object) -> str:
    command = [sys.executable, str(BENCHMARKS / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def timing(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict]:
    """What timing.py prints and writes."""
    file = tmp_path_factory.mktemp("timing") / "timing.json"
    printed = run("timing.py", "--images", 2, "--size", 64, "--precision", "fp32", "--json", file)
    return printed, json.loads(file.read_text())


def assert_times(times: dict, runs: int) -> None:
    assert times["runs"] == runs
    assert 0 < times["min"] <= times["median"] <= times["p95"]


def test_timing_reports_every_stage_of_both_paths(timing: tuple[str, dict]) -> None:
    _, report = timing
    assert report["settings"] == {"size": 64, "batch": 1, "anchors": 8, "precision": "fp32"}
    assert report["inputs"] == "2 photographs"
    assert set(report["validation"]) == set(_validate.FP32_BOUNDS)
    for path in (report["published"], report["disco_fast"]):
        assert set(path["anchor_stage"]) == {*_stages.LINES, _stages.REST}
        assert_times(path["total"], 2)
        for times in (*path["blocks"].values(), *path["anchor_stage"].values()):
            assert_times(times, 2)
        assert 1 <= path["kmeans_iterations"]["min"] <= path["kmeans_iterations"]["max"] <= 20
        blocks = sum(times["median"] for times in path["blocks"].values())
        assert blocks == pytest.approx(path["total"]["median"], rel=0.01)  # of two passes: means


def test_timing_records_where_it_ran(timing: tuple[str, dict]) -> None:
    here = timing[1]["context"]
    assert here["device_type"] == "cpu"
    assert here["torch"] == torch.__version__
    assert here["threads"] >= 1
    assert here["command"].startswith("python benchmarks/timing.py --images 2 --size 64")
    assert "/" not in here["command"].removeprefix("python benchmarks/")
    for entry in ("device", "cpu", "system", "python", "native", "commit", "date"):
        assert here[entry], entry


def test_timing_prints_the_three_tables(timing: tuple[str, dict]) -> None:
    printed, _ = timing
    assert "| anchor construction | parameters | 0.66 M | 0.66 M | 0.66 M |" in printed
    assert "| DISCO [2022] | NVIDIA V100 | 43.06 | 127.86 | 72.74 |" in printed
    assert "K-Means iterations" in printed


def test_costs_are_the_papers() -> None:
    network = random_network()
    gray = _photographs.load(1, 256)[0]
    weights = _stages.parameters(network)
    products = _stages.multiply_accumulates(network, gray)
    for block, (millions, giga, _) in _paper.FIGURE_13.items():
        assert weights[block] / 1e6 == pytest.approx(millions, abs=0.005)
        assert products[block] / 1e9 == pytest.approx(giga, rel=0.01)
    assert sum(weights.values()) == sum(p.numel() for p in network.parameters())


def corrupted(name: str, change) -> ModuleType:
    """The ops, one of them wrong."""
    module = ModuleType("corrupted")
    module.__dict__.update(vars(ops))
    right = getattr(ops, name)
    setattr(module, name, lambda *args, **kwargs: change(right(*args, **kwargs)))
    return module


@pytest.mark.parametrize(
    ("name", "change", "precision", "message"),
    [
        ("sp_pool_with_size", lambda out: (out[0] * 1.001, *out[1:]), "fp32", "tokens"),
        ("kmeans", lambda out: (out[0].roll(1, 1), *out[1:]), "fp32", "kmeans_labels"),
        ("choose_anchors", lambda out: ((out[0] + 1) % 16, out[1]), "fp32", "anchor_index"),
        ("sp_diffuse", lambda out: out * 1.05, "fp32", "ab"),
        ("sp_diffuse", lambda out: torch.full_like(out, torch.nan), "fp32", "ab"),
        ("sp_diffuse", lambda out: -out, "bf16", "ab"),
        ("choose_anchors", lambda out: ((out[0] + 1) % 16, out[1]), "bf16", "no picture"),
    ],
)
def test_validation_fails_on_a_wrong_op(name: str, change, precision: str, message: str) -> None:
    published, wrong = random_network(0.25), random_network(0.25)
    published.ops = reference
    gray = _photographs.load(2, 64)[0]
    init = torch.arange(8).expand(2, -1).contiguous()
    _validate.validate(published, wrong, precision, gray, init)  # nothing wrong yet
    wrong.ops = corrupted(name, change)
    with pytest.raises(_validate.ValidationError, match=message):
        _validate.validate(published, wrong, precision, gray, init)


def test_instruments_are_taken_off_again() -> None:
    network = random_network(0.25)
    watch = _stages.Stopwatch(torch.device("cpu"))
    gray = _photographs.load(1, 64)[0]
    with _stages.timed_network(network, watch) as timed:
        network(gray)
    assert len(timed.iterations()) == 1
    assert timed.iterations() == []
    assert set(watch.read()) == set(_stages.MODULES.values()) | set(_stages.OPS.values())
    network(gray)
    assert network.ops is ops
    assert watch.read() == {}


def test_inputs_are_distinct_and_always_the_same() -> None:
    gray, made = _photographs.load(40, 32)
    assert made == "40 crops of 5 photographs"
    assert torch.equal(gray, _photographs.load(40, 32)[0])
    assert len({picture.numpy().tobytes() for picture in gray}) == 40
    assert gray.shape == (40, 1, 32, 32)
    assert gray.abs().max() <= 1


def test_a_folder_without_pictures_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=tmp_path.name):
        _photographs.load(1, 32, tmp_path)


def test_ops_are_verified_and_timed(tmp_path: Path) -> None:
    file = tmp_path / "ops.json"
    printed = run("ops.py", "--size", 64, "--repeats", 2, "--json", file)
    rows = json.loads(file.read_text())["rows"]
    assert {row["op"] for row in rows} >= {"sp_pool", "sp_diffuse", "superpixel_size", "kmeans"}
    for row in rows:
        assert f"`{row['op']}` {row['shape']}" in printed
        assert_times(row["specification"], 2)
        assert_times(row["disco_fast"], 2)
    assert sum("vectorised" in row for row in rows) == 8


def test_tables_are_rendered_and_staleness_is_found(
    timing: tuple[str, dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(
        "# Before\n<!-- table:table5 -->\nSTALE\n<!-- /table -->\nbetween\n"
        "<!-- table:ops -->\n<!-- /table -->\nafter\n"
    )
    (tmp_path / "timing-cpu.json").write_text(json.dumps(timing[1]))
    monkeypatch.setattr(render_tables, "README", readme)
    monkeypatch.setattr(render_tables, "RESULTS", tmp_path)
    assert render_tables.main(["--check"]) == 1
    assert "stale" in capsys.readouterr().out
    assert "STALE" in readme.read_text()
    assert render_tables.main([]) == 0
    assert render_tables.main(["--check"]) == 0
    text = readme.read_text()
    assert "STALE" not in text
    assert "| **disco_fast** | GPU | not measured | not measured | not measured |" in text
    assert "<!-- table:ops -->\n*not measured*\n<!-- /table -->\nafter\n" in text
    readme.write_text(text.replace("43.06", "43.07"))
    assert render_tables.main(["--check"]) == 1


def test_an_unknown_table_is_named() -> None:
    with pytest.raises(ValueError, match="table:nonsense"):
        render_tables.render("<!-- table:nonsense -->\n<!-- /table -->", [])
