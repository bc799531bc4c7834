"""The benchmarks run, measure what they say, and refuse to time what is wrong."""

from __future__ import annotations

import ast
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import engine
import numpy as np
import ops as op_benchmark
import precision
import pytest
import render
import timing as timing_benchmark
import torch
from cases import OpCase, small_cases
from harness import baselines, inputs, plots, published, stages, vectorized
from test_every_op import check
from torch.utils.flop_counter import FlopCounterMode

from disco_fast import ops, reference
from disco_fast._extras import MissingExtraError
from disco_fast.checkpoints import random_network
from disco_fast.engine import Engine
from disco_fast.engine.fused import fuse_convolutions
from disco_fast.engine.precision import cpu_has_int8
from disco_fast.engine.prepared import PreparedDISCO

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


def run(script: str, *arguments: object) -> str:
    command = [sys.executable, str(BENCHMARKS / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_scripts_stand_on_the_harness_and_only_render_on_scripts() -> None:
    scripts = {path.stem for path in BENCHMARKS.glob("*.py")}
    for path in BENCHMARKS.rglob("*.py"):
        tree = ast.walk(ast.parse(path.read_text()))
        origins = {node.module for node in tree if isinstance(node, ast.ImportFrom)}
        tree = ast.walk(ast.parse(path.read_text()))
        names = {a.name for node in tree if isinstance(node, ast.Import) for a in node.names}
        assert path.name == "render.py" or not scripts & (origins | names), path


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
    assert set(report["validation"]) == set(baselines.FP32_BOUNDS)
    for path in (report["published"], report["disco_fast"]):
        assert set(path["anchor_stage"]) == {*stages.LINES, stages.REST}
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
    gray = inputs.photographs(1, 256)[0]
    weights = stages.parameters(network)
    products = stages.multiply_accumulates(network, gray)
    for block, (millions, giga, _) in timing_benchmark.FIGURE_13.items():
        assert weights[block] / 1e6 == pytest.approx(millions, abs=0.005)
        assert products[block] / 1e9 == pytest.approx(giga, rel=0.01)
    assert sum(weights.values()) == sum(p.numel() for p in network.parameters())


def test_costs_of_a_prepared_network_are_counted() -> None:
    """Packed or as torch has them, convolutions multiply as often; fused, by zeros too."""
    gray, network = inputs.photographs(1, 64)[0], random_network(0.25)
    plain = PreparedDISCO(network, "fp32", without=["packing"])
    fused = PreparedDISCO(network, "fp32", without=["packing"])
    fuse_convolutions(fused)
    expected = stages.multiply_accumulates(plain, gray)
    assert all(count > 0 for count in expected.values())
    assert stages.multiply_accumulates(PreparedDISCO(network, "fp32"), gray) == expected
    # SPixNet's logits have 12 channels, three of them zeros, of 4 channels through 3x3.
    expected["feature extraction"] += 64 * 64 * (12 - 9) * 4 * 9
    assert stages.multiply_accumulates(fused, gray) == expected


def test_a_convolution_in_one_kernel_is_counted_as_torchs() -> None:
    x, weight = torch.ones(2, 8, 5, 7).bfloat16(), torch.ones(16, 8, 3, 3).bfloat16()
    counts = []
    for convolve in (
        lambda: ops.convolve(x, weight, None, None, 0.0),
        lambda: torch.conv2d(x, weight, padding=1),
    ):
        counter = FlopCounterMode(display=False, custom_mapping=stages.UNCOUNTED)
        with counter:
            convolve()
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] == 2 * 2 * 5 * 7 * 16 * 8 * 9


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
        ("choose_anchors", lambda out: ((out[0] + 1) % 16, out[1]), "bf16", "no image"),
    ],
)
def test_validation_fails_on_a_wrong_op(name: str, change, precision: str, message: str) -> None:
    published, wrong = random_network(0.25), random_network(0.25)
    published.ops = reference
    gray = inputs.photographs(2, 64)[0]
    init = torch.arange(8).expand(2, -1).contiguous()
    baselines.validate(published, wrong, precision, gray, init)  # nothing wrong yet
    wrong.ops = corrupted(name, change)
    with pytest.raises(baselines.ValidationError, match=message):
        baselines.validate(published, wrong, precision, gray, init)


def test_instruments_are_taken_off_again() -> None:
    network = random_network(0.25)
    watch = stages.Stopwatch(torch.device("cpu"))
    gray = inputs.photographs(1, 64)[0]
    with stages.timed_network(network, watch) as timed:
        network(gray)
    assert len(timed.iterations()) == 1
    assert timed.iterations() == []
    assert set(watch.read()) == set(stages.MODULES.values()) | set(stages.OPS.values())
    network(gray)
    assert network.ops is ops
    assert watch.read() == {}


def test_inputs_are_distinct_and_always_the_same() -> None:
    gray, made = inputs.photographs(40, 32)
    assert made == "40 crops of 7 photographs"
    assert torch.equal(gray, inputs.photographs(40, 32)[0])
    assert len({picture.numpy().tobytes() for picture in gray}) == 40
    assert gray.shape == (40, 1, 32, 32)
    assert gray.abs().max() <= 1


def test_a_folder_without_pictures_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=tmp_path.name):
        inputs.photographs(1, 32, tmp_path)


def forms(namespace: ModuleType) -> list[OpCase]:
    return [case for case in small_cases() if hasattr(namespace, case.op)]


@pytest.mark.parametrize("case", forms(published), ids=str)
def test_the_published_path_is_as_specified(case: OpCase) -> None:
    check(published, case)


@pytest.mark.parametrize("case", forms(vectorized), ids=str)
def test_the_vectorized_form_is_as_specified(case: OpCase) -> None:
    arguments = case.make(torch.device("cpu"))
    assert op_benchmark.complaint(case, arguments, vectorized) is None


def test_the_published_path_has_the_same_gradients() -> None:
    pool, diffuse = (
        next(c for c in small_cases() if c.op == op and "fp64" in c.shape)
        for op in ("sp_pool", "sp_diffuse")
    )
    for case in (pool, diffuse):
        first, second, *rest = case.make(torch.device("cpu"))
        found = []
        for namespace in (reference, published):
            leaves = [first.clone().requires_grad_(), second.clone().requires_grad_()]
            case.call(namespace, (*leaves, *rest))[0].square().sum().backward()
            found += [leaf.grad for leaf in leaves]
        torch.testing.assert_close(found[2:], found[:2])


def test_ops_are_verified_and_timed(tmp_path: Path) -> None:
    file = tmp_path / "ops.json"
    few = ["--size", 64, "--repeats", 2, "--device", "cpu"]
    printed = run("ops.py", *few, "--json", file)
    rows = json.loads(file.read_text())["rows"]
    assert {row["op"] for row in rows} >= {"sp_pool", "sp_diffuse", "kmeans", "encoder", "rgb_to_l"}
    for row in rows:
        assert f"`{row['op']}` {row['shape']}" in printed
        assert_times(row["disco_fast"], 2)
        for name, namespace in (("published", published), ("vectorized", vectorized)):
            assert (name in row) == hasattr(namespace, row["op"])


@pytest.mark.parametrize(
    ("op", "change"),
    [
        ("sp_pool", lambda out: (out[0], out[1] * 1.001)),
        ("sp_pool", lambda out: (out[0] * torch.nan, out[1])),
        ("sp_pool", lambda out: (out[0][:, :1], out[1])),
        ("kmeans", lambda out: (out[0].roll(1, 1), *out[1:])),
        ("lab_to_rgb", lambda out: out + 2),
    ],
)
def test_a_wrong_op_is_not_timed(op: str, change, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(op_benchmark.RIVALS, "disco_fast", corrupted(op, change))
    case = next(case for case in small_cases() if case.op == op)
    row = op_benchmark.measure_case(case, 1, torch.device("cpu"))
    assert set(row) == {"op", "shape", "wrong"}
    assert "disco_fast: result" in row["wrong"]
    assert row["wrong"] in op_benchmark.table([render.load()[0] | {"rows": [row]}])


# ---- Rendering -----------------------------------------------------------------------------------


@pytest.fixture
def root(
    timing: tuple[str, dict], costs: tuple[str, dict], tmp_path: Path, monkeypatch: Any
) -> Path:
    """A checkout with two results, and with every table in one of two documents."""
    for name in ("docs/images", "benchmarks/results"):
        (tmp_path / name).mkdir(parents=True)
    for name, report in (("timing", timing[1]), ("engine", costs[1])):
        (tmp_path / f"benchmarks/results/{name}-cpu.json").write_text(json.dumps(report))
    marks = [f"<!-- table:{name} -->\nSTALE\n<!-- /table -->\n" for name in render.TABLES]
    (tmp_path / "README.md").write_text("# Before\n" + marks[0])
    (tmp_path / "docs/performance.md").write_text("".join(marks[1:]) + "after\n")
    monkeypatch.setattr(render, "ROOT", tmp_path)
    monkeypatch.setattr(render, "IMAGES", tmp_path / "docs/images")
    monkeypatch.setattr(render, "RESULTS", tmp_path / "benchmarks/results")
    return tmp_path


@pytest.mark.skipif(not importlib.util.find_spec("matplotlib"), reason="extra bench is missing")
def test_documents_are_rendered_and_staleness_is_found(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    assert render.main(["--check"]) == 1
    said = capsys.readouterr().out
    assert all(f"{name} is stale" in said for name in ("README.md", "performance.md", "speed.svg"))
    assert render.main([]) == 0
    assert render.main(["--check"]) == 0
    readme, page = root / "README.md", root / "docs/performance.md"
    assert "[timing-cpu.json](benchmarks/results/timing-cpu.json)" in readme.read_text()
    text = page.read_text()
    assert "STALE" not in text
    assert "](../docs/images/engine.svg)" in text
    assert "<!-- table:ops -->\nNot measured yet.\n<!-- /table -->\n" in text
    page.write_text(text.replace("43.06", "43.07"))
    assert render.main(["--check"]) == 1
    assert render.main([]) == 0
    drawn = (root / "docs/images/engine.svg").read_bytes()
    plots.save(root / "again.svg", plots.costs, render.load(root / "benchmarks/results")[:1])
    assert (root / "again.svg").read_bytes() == drawn  # the same bytes every time
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert render.main([]) == 0  # nothing to draw
    (root / "docs/images/speed.svg").write_text("<svg/>")
    assert render.main(["--check"]) == 1
    with pytest.raises(MissingExtraError, match=r"matplotlib .*disco_fast\[bench\]"):
        render.main([])


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("<!-- table:nonsense -->\n<!-- /table -->\n", "table:nonsense: unknown"),
        ("<!-- table:ops -->\n<!-- /table -->\n", "table:ops: expected once, found 2 times"),
        (None, "table:table5: expected once, found 0 times"),
    ],
)
def test_every_table_stands_once(root: Path, extra: str | None, message: str, capsys) -> None:
    page = root / "docs/performance.md"
    page.write_text(
        page.read_text() + extra if extra else page.read_text().replace("table5", "ops")
    )
    before = page.read_text()
    assert render.main([]) == 1
    assert message in capsys.readouterr().out
    assert page.read_text() == before


def test_tables_of_several_machines_name_them() -> None:
    reports = [report for report in render.load() if report["what"] == "ops"][:1]
    other = reports[0] | {"context": reports[0]["context"] | {"device": "another"}}
    assert "On another" not in op_benchmark.table([other, other])
    assert op_benchmark.table([*reports, other]).count("\n\nOn another") == 1


def test_committed_results_are_renderable() -> None:
    reports = render.load()
    assert {report["what"] for report in reports} >= set(render.SUITES) - {"gpu"}
    for kinds, make in render.TABLES.values():
        text = make([report for report in reports if report["what"] in kinds])
        assert not any(word in text for word in ("wanted", "../", "target"))


# ---- The engine by pixels, batch and threads, and its rivals -------------------------------------


@pytest.fixture(scope="module")
def costs(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict]:
    """What engine.py prints and writes."""
    file = tmp_path_factory.mktemp("engine") / "engine.json"
    few = "--device cpu --batches --sizes 64 --threads --precisions fp32 --budget 0.1 --repeats 2"
    rivals = ["--rivals", "published", "--rival-sizes", 64]
    printed = run("engine.py", *few.split(), *rivals, "--json", file)
    return printed, json.loads(file.read_text())


def test_engine_reports_points_memory_and_rivals(costs: tuple[str, dict]) -> None:
    printed, report = costs
    assert report["what"] == "engine"
    kept = [(p["batch"], p["size"], p["keep_memory"]) for p in report["points"]]
    assert kept == [(1, 64, True), (1, 64, False)]
    for point in report["points"]:
        assert point["precision"] == "fp32"
        assert_times(point["time"], point["time"]["runs"])
    assert {row["name"] for row in report["rivals"]} == {"published", "disco_fast"}
    for row in report["rivals"]:
        assert row["size"] == 64
        assert_times(row["time"], 2)
        assert row["validation"]["ab"] <= baselines.FP32_BOUNDS["ab"]
    assert report["left_out"] == {}
    assert "| published path fp32 | - |" in printed
    assert "| 1 of 64x64 | " in printed
    assert "| 1 of 64x64, memory handed back | " in printed


@pytest.mark.skipif(not engine.STATUS.is_file(), reason="memory is read as Linux tells it")
def test_peak_memory_holds_the_network(costs: tuple[str, dict]) -> None:
    weights = 4 * sum(p.numel() for p in random_network().parameters()) / 1e6
    report = costs[1]
    for row in (*report["picture"], *report["points"]):
        assert weights < row["peak_memory_mb"] < 20 * weights
    # Apart: what this process has freed, and kept, could hold it.
    held = "import engine, torch; peak = engine.PeakMemory(torch.device('cpu'))"
    held += "; held = torch.ones(25_000_000); print(peak.megabytes())"
    done = subprocess.run(
        [sys.executable, "-c", held], cwd=BENCHMARKS, capture_output=True, text=True
    )
    assert 100 <= float(done.stdout) < 150, done.stderr


def made(name: str, number_format: str, ms: float) -> dict:
    """A rival's row."""
    time = {"median": ms, "p95": ms, "min": ms, "runs": 9}
    row = {"name": name, "precision": number_format, "size": 256, "time": time}
    return row | {"validation": {"ab": 1e-4}}


def test_engine_ratios_follow_from_the_times(costs: tuple[str, dict]) -> None:
    rows = [made("official", "fp32", 800), made("disco_fast", "fp32", 500)]
    rows.append(made("disco_fast", "bf16", 400))
    missing = {"openvino_fp32": "no such package", "openvino_bf16": "no such package"}
    report = costs[1] | {"rivals": rows, "left_out": missing}
    text = engine.rivals([report])
    assert "| official network fp32 | 1.0e-04 | 800 (800) | 1.60x | 2.00x |" in text
    assert text.count("no such package") == 1
    threads = report["context"]["threads"]
    usual = {"batch": 1, "threads": threads, "keep_memory": True}
    small = made("", "fp32", 500) | usual | {"peak_memory_mb": 690.0}
    large = made("", "fp32", 8800) | usual | {"peak_memory_mb": None}
    points = [small, large | {"size": 1024}]
    text = engine.sweeps([report | {"points": points, "picture": [small]}])
    assert "| 1 of 1024x1024 | 8800 (8800) | 0.114 | - |" in text
    assert "Cost of a pixel at 1024x1024 relative to 256x256: 1.10 (fp32)." in text
    assert "690 MB (fp32)" in text


def test_sweeps_share_their_points() -> None:
    few = "--device cpu --batches 1 4 --sizes 256 512 --threads 3 --precisions bf16"
    usual = torch.get_num_threads()
    expected = [(1, 256, usual), (4, 256, usual), (1, 512, usual), (1, 256, 3)]
    expected += [(1, 256, usual, False), (1, 512, usual, False)]
    found = engine.points(engine.arguments(few.split()))
    assert found == [engine.Point("bf16", *place) for place in expected]


def test_threads_double_up_to_the_cores() -> None:
    assert [engine.thread_counts(cores) for cores in (1, 6, 8)] == [
        [1],
        [1, 2, 4, 6],
        [1, 2, 4, 8],
    ]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--sizes", "100"], "multiples of 16, at least 48, got 100"),
        (["--batches", "0"], "--batches: expected numbers from 1, got 0"),
        (["--precisions", "fp16"], "fp16 runs on GPUs only"),
    ],
)
def test_engine_refuses_what_it_cannot_measure(wrong: list, message: str, capsys) -> None:
    with pytest.raises(SystemExit):
        engine.main(["--device", "cpu", *wrong])
    assert message in capsys.readouterr().err


def chroma(rival: baselines.Forward, gray: torch.Tensor, init: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return rival(gray, init).ab


@pytest.mark.skipif(not importlib.util.find_spec("openvino"), reason="extra bench is missing")
def test_openvino_computes_the_same() -> None:
    network, here = random_network(0.25), torch.device("cpu")
    given = inputs.photographs(1, 64)[0], torch.arange(8)[None]
    expected = chroma(baselines.published(network, 64, here), *given)
    got = chroma(baselines.openvino("fp32")(network, 64, here), *given)
    torch.testing.assert_close(got, expected, rtol=0, atol=baselines.FP32_BOUNDS["ab"])


def test_a_rival_that_cannot_run_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    network, here = random_network(0.25), torch.device("cpu")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(baselines.LeftOutError, match=r"disco_fast\[bench\]"):
        baselines.openvino("bf16")(network, 64, here)
    with pytest.raises(baselines.LeftOutError, match="CPUs only"):
        baselines.openvino("bf16")(network, 64, torch.device("cuda"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # nothing compiled before
    with (
        torch._inductor.config.patch({"cpp.cxx": (None, "/nonexistent")}),
        pytest.raises(baselines.LeftOutError, match=r"torch\.compile: .*C\+\+ compiler"),
    ):
        baselines.compiled(network, 64, here)


# ---- The price of reduced precision --------------------------------------------------------------


@pytest.mark.skipif(not importlib.util.find_spec("skimage"), reason="extra bench is missing")
def test_precision_reports_differences_and_shares(tmp_path: Path) -> None:
    file = tmp_path / "precision.json"
    few = ("--images", 3, "--size", 64, "--device", "cpu")
    printed = run("precision.py", *few, "--json", file)
    report = json.loads(file.read_text())
    assert report["inputs"] == "3 photographs"
    expected = ["bf16", "int8"] if cpu_has_int8() else ["bf16"]
    assert [row["precision"] for row in report["rows"]] == expected
    for row in report["rows"]:
        assert set(row["same"]) == set(precision.SHARES)
        assert 0 < row["same"]["superpixel"] <= 1
        for kind in precision.KINDS:
            found = row[kind]
            assert 0 < found["median"] <= found["p95"] <= found["max"]
            assert found["mean"] <= found["max"]
        assert row["forced"]["mean"] < 1  # rounding, and no anchor in another color
    assert "| bf16, anchors and colors of fp32 |" in printed


@pytest.mark.skipif(not importlib.util.find_spec("skimage"), reason="extra bench is missing")
def test_color_difference_is_ciede2000_of_the_pictures() -> None:
    black, white = (torch.full((1, 3, 2, 4), value, dtype=torch.uint8) for value in (0, 255))
    assert precision.color_difference(black, black).max() == 0
    assert precision.color_difference(black, white) == pytest.approx(100, abs=0.01)
    assert precision.color_difference(black, white).shape == (2, 4)


def test_anchors_are_forced_for_a_call_only() -> None:
    fast = Engine(random_network(0.25), "fp32")
    gray = inputs.photographs(1, 64)[0]
    free, own = precision.colorize(fast, gray)
    choice = (own[0] + 1) % 16, (own[1] + 100) % 313
    forced, still_own = precision.colorize(fast, gray, choice)
    assert all(map(torch.equal, own, still_own))
    assert not torch.equal(free, forced)
    with precision.choosing(fast, choice):
        assert torch.equal(fast(gray).anchor_index, choice[0])
    assert torch.equal(precision.colorize(fast, gray)[0], free)


def test_anchors_agree_in_any_order() -> None:
    expected = torch.tensor([[3, 5, 7, 9]]), torch.tensor([[[1, 2, 3, 4]]])
    same = torch.tensor([[9, 3, 5, 7]]), torch.tensor([[[4, 1, 2, 300]]])
    other = torch.tensor([[9, 3, 5, 8]]), torch.tensor([[[4, 0, 2, 3]]])
    assert precision.agreement(expected, same) == {
        "picture": [True],
        "superpixel": [True] * 4,
        "color": [True, True, False, True],
    }
    assert precision.agreement(expected, other) == {
        "picture": [False],
        "superpixel": [True, True, False, True],
        "color": [False, True, True],
    }


def test_differences_are_summarized_by_picture_and_by_pixel() -> None:
    pictures = [np.full((10, 10), value, np.float32) for value in (1, 2, 6)]
    found = precision.summary(pictures)
    assert found["mean"] == 3
    assert found["median"] == 2
    assert found["max"] == found["pixels_p95"] == 6
    assert precision.share([True, False, True, True]) == 0.75
    assert precision.share([]) is None


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage", None)
    monkeypatch.setitem(sys.modules, "skimage.color", None)
    with pytest.raises(MissingExtraError, match=r"skimage .*disco_fast\[bench\]"):
        precision.main(["--images", "1", "--size", "64", "--device", "cpu"])


def test_anchors(tmp_path: Path) -> None:
    for name in ("coffee", "flower"):
        shutil.copy(inputs.PHOTOGRAPHS / f"{name}.jpg", tmp_path)
    file = tmp_path / "anchors.json"
    printed = run("anchors.py", "--truth", tmp_path, "--repeats", 1, "--json", file)
    report = json.loads(file.read_text())
    assert {row["network"] for row in report["recoloring"]} == {"compact", "width 1"}
    for row in report["recoloring"]:
        for times in row["times"].values():
            assert_times(times, 1)
    found = report["influence"]
    assert found["anchors"] == 16
    assert 0 < found["others"] < found["own"]
    assert found["ratio"]["least"] <= found["ratio"]["median"] <= found["ratio"]["most"]
    assert sum(report["auto"]["tally"].values()) == 2
    tally = sorted(k for k, n in report["auto"]["tally"].items() for _ in range(n))
    shown = sorted(str(report["examples"][name]) for name in ("coffee", "flower"))
    assert tally == shown
    assert f"{found['own']:.2f}" in printed


def test_flicker(tmp_path: Path) -> None:
    pytest.importorskip("av")
    printed = run("flicker.py", "--frames", 3, "--json", tmp_path / "flicker.json")
    rows = json.loads((tmp_path / "flicker.json").read_text())["rows"]
    films = len(list(inputs.PHOTOGRAPHS.glob("*.jpg")))
    assert len(rows) == 3 * films
    assert all(row["frames"] == 3 for row in rows)
    assert all(row["flicker"] > 0 for row in rows)
    by_way = [sum(r["flicker"] for r in rows if r["way"] == way) for way in
              ("frame by frame", "anchors tracked", "and chroma smoothed")]  # fmt: skip
    assert by_way[0] > by_way[1] > by_way[2]
    assert f"{rows[0]['flicker']:.2f}" in printed
