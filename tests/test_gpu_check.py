"""gpu_check.py measures what it says, refuses what is wrong, and outlives what it runs."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import _gpu_cases  # noqa: E402
import _gpu_exercise  # noqa: E402
import _gpu_process  # noqa: E402
import _gpu_records  # noqa: E402
import _gpu_report  # noqa: E402
import _gpu_rows  # noqa: E402
import _tables  # noqa: E402
import gpu_check  # noqa: E402

CPU = torch.device("cpu")
CASES = {_gpu_report.label(case.identity()): case for case in _gpu_cases.cases(_gpu_cases.QUICK)}
POOL = "sp_pool 8 channels, 32x32, batch 2 fp16 channels-last"
KMEANS = "kmeans 32x64, K=8, 20 iterations, batch 3"


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict]:
    """What the command prints and writes on a CPU."""
    out = tmp_path_factory.mktemp("gpu")
    command = [sys.executable, str(BENCHMARKS / "gpu_check.py"), "--device", "cpu", "--quick"]
    command += ["--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (out / "gpu-check.log").stat().st_size > 0
    return done.stdout, json.loads((out / "gpu-check.json").read_text())


# ---- The whole command ---------------------------------------------------------------------------


def test_the_report_holds_every_case(quick: tuple[str, dict]) -> None:
    _, report = quick
    assert report["what"] == "gpu"
    assert report["settings"]["sizes"]["side"] == _gpu_cases.QUICK.side
    assert set(report["steps"]) == {"context", "ceilings", "determinism", "kernels"}
    assert all(step["ok"] and step["seconds"] >= 0 for step in report["steps"].values())
    assert report["determinism"] == {"batch": 3, "two_runs": True, "alone": True}
    assert report["ceilings"]["copy"]["bytes_per_second"] > 0
    assert report["ceilings"]["matrix"]["flop_per_second"] > 0
    assert len(report["rows"]) == len(CASES)
    for row, case in zip(report["rows"], CASES.values(), strict=True):
        assert row["op"] == case.op
        assert row["bytes"] > 0
        assert row["ratios"]["published_wall_over_wall"] > 0
        assert (row["ratios"]["vectorised"] is not None) == case.vectorised
        assert (row["share_of_copy"] is not None) == case.reads_all
        for name in ("disco_fast", "published", *(["vectorised"] if case.vectorised else [])):
            times = row[name]["wall"]
            assert 0 < times["min"] <= times["median"] <= times["p95"]
            assert times["runs"] >= 1


def test_the_report_says_where_it_ran(quick: tuple[str, dict]) -> None:
    here = quick[1]["context"]
    assert here["command"].startswith("python benchmarks/gpu_check.py --device cpu --quick --out")
    assert "/" not in here["command"].removeprefix("python benchmarks/")
    assert here["torch"] == torch.__version__
    assert here["commit"]


def test_the_printout_ends_with_the_bars(quick: tuple[str, dict]) -> None:
    printed, report = quick
    lines = printed.strip().splitlines()
    bars = lines[-len(report["bars"]) :]
    for line, bar in zip(bars, report["bars"], strict=True):
        assert line.startswith(bar["name"])
        assert bar["measured"] in line
    assert any(line.startswith("kernels") and f"{len(CASES)} of" in line for line in lines)
    assert any(line.startswith("`sp_pool` 8 channels, 32x32, batch 1 ") for line in lines)


def test_the_report_is_rendered_as_markdown(quick: tuple[str, dict]) -> None:
    what, render = _tables.TABLES["gpu"]
    assert what == quick[1]["what"]
    text = render([quick[1]], gpu=True)
    assert "| `sp_diffuse with lead` 8 channels, 32x32, batch 2 |" in text
    assert "| `kmeans` 32x64, K=8, 20 iterations, batch 1 |" in text
    assert "| bar | wanted | measured |  |" in text
    assert "`python benchmarks/gpu_check.py --device cpu --quick" in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_without_a_gpu_nothing_is_begun(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert gpu_check.main(["--out", str(out)]) == 2
    assert "no CUDA GPU here: torch" in capsys.readouterr().err
    assert not out.exists()


# ---- Rows ----------------------------------------------------------------------------------------


def broken(name: str, change) -> SimpleNamespace:
    """The ops, one of them wrong."""
    ops = _gpu_cases.fast_ops()
    right = getattr(ops, name)
    setattr(ops, name, lambda *args: change(right(*args)))
    return ops


@pytest.mark.parametrize(
    ("case", "name", "change"),
    [
        (POOL, "sp_pool", lambda out: (out[0], out[1] * 1.001)),
        (POOL, "sp_pool", lambda out: (out[0] * torch.nan, out[1])),
        (POOL, "sp_pool", lambda out: (out[0][:1], out[1])),
        (KMEANS, "kmeans", lambda out: (out[0].roll(1, 1), *out[1:])),
        ("lab_to_rgb 32x32", "lab_to_rgb", lambda out: out + 2),
    ],
)
def test_what_is_wrong_is_not_timed(case: str, name: str, change) -> None:
    row = _gpu_rows.measure(CASES[case], CPU, 0.01, broken(name, change))
    assert set(row) == {"wrong"}
    assert "allowed" in row["wrong"]


def test_a_wrong_rival_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = _gpu_rows._vectorized.sp_pool
    monkeypatch.setattr(_gpu_rows._vectorized, "sp_pool", lambda *args: (right(*args)[0] + 1,) * 2)
    row = _gpu_rows.measure(CASES[POOL], CPU, 0.01)
    assert "wrong" in row["vectorised"]
    assert "wall" in row["disco_fast"]
    derived = _gpu_report.derive(CASES[POOL].identity() | row, {})
    assert derived["ratios"]["vectorised"] is None
    assert "vectorised wrong: result 0 differs" in _gpu_report.describe("row", derived)


def test_only_some_images_of_a_batch_are_compared_where_that_is_slow() -> None:
    case = next(_gpu_cases._kmeans_cases(_gpu_cases.Sizes(point_batches=(30,), points=16)))
    work = case.make(CPU)
    labels, centers = work.run(_gpu_cases.fast_ops(), *work.tensors)
    for image, seen in ((0, True), (1, False), (29, True)):
        wrong = labels.clone()
        wrong[image] += 1
        assert (_gpu_rows.differences(case, work, (wrong, centers))[0] == 1) == seen


def test_every_argument_and_result_is_counted_once() -> None:
    row = _gpu_rows.measure(CASES[POOL], CPU, 0.01)
    pixels, superpixels = 2 * 32 * 32, 2 * 2 * 2
    assert row["bytes"] == 2 * (8 + 9) * pixels + 4 * (8 + 1) * superpixels
    row = _gpu_rows.measure(CASES["lab_to_rgb 32x32"], CPU, 0.01)
    assert row["bytes"] == (4 + 2 * 4 + 3) * 32 * 32


def test_every_op_is_exercised_in_every_type_and_layout() -> None:
    # 2 shapes x 4 types x 2 layouts of 7 ops; 2 types of 9 calls of points and 16 of colors; 2
    # shapes of tokens.
    assert _gpu_exercise.run("cpu") == 2 * 4 * 2 * 7 + 2 * (10 + 16) + 3


# ---- Bars ----------------------------------------------------------------------------------------


def made_row(op: str, batch: int, device: float, dtype: str = "", layout: str = "") -> dict:
    """A row of a GPU: eager calls take 10 us longer; rivals 3 and 400 times as long."""
    row = {"op": op, "shape": f"batch {batch}", "batch": batch, "dtype": dtype, "layout": layout}
    times = {"device": {"median": device}, "wall": {"median": device + 10}}
    return row | {
        "reads_all": bool(layout),
        "bytes": 2_000_000,
        "disco_fast": times,
        "vectorised": {"device": {"median": 3 * device}, "wall": {"median": 100.0}},
        "published": {"wall": {"median": 400 * (device + 10)}},
    }


def made_report(rows: list[dict]) -> dict:
    """A report as the command makes it, of rows on a GPU that copies 1 TB/s."""
    ceilings = {"copy": {"bytes_per_second": 1e12}, "matrix": {"flop_per_second": 1e14}}
    report = {
        "context": {"gpu": {"l2_bytes": 1_000_000}},
        "settings": {"sizes": {"point_batches": [1, 128], "pixel_batches": [1, 64]}},
        "ceilings": ceilings,
        "rows": [_gpu_report.derive(row, ceilings) for row in rows],
        "missing": [],
        "steps": {"build": {"ok": False, "seconds": 3.0, "note": "no compiler"}},
        "end_to_end": {
            "published": {"median": 90.0},
            "disco_fast": {"median": 2.0},
            "precision": "bf16",
            "published_flop": 2.5e11,
        },
        "engine": [
            {"precision": precision, "batch": batch, "size": 256, "time": {"median": ms}}
            for precision, batch, ms in (("fp32", 64, 9.0), ("bf16", 1, 7.0), ("bf16", 64, 4.0))
        ],
    }
    return report | {"bars": _gpu_report.bars(report)}


def all_rows() -> list[dict]:
    both = "kmeans + choose_anchors"
    points = [("kmeans", 1, 40), ("kmeans", 128, 80), (both, 1, 59), (both, 128, 80)]
    pixels = [("sp_pool", 1, 5), ("sp_pool", 64, 2.5), ("sp_diffuse", 1, 16), ("sp_diffuse", 64, 4)]
    rows = [made_row(*point) for point in points]
    rows += [made_row(*pixel, "fp16", layout) for pixel in pixels for layout in _gpu_cases.LAYOUTS]
    return [*rows, made_row("anchor block", 1, 150)]


def verdicts(report: dict) -> list[bool | None]:
    return [bar["met"] for bar in report["bars"]]


def test_bars_are_judged() -> None:
    report = made_report(all_rows())
    values = [bar["value"] for bar in report["bars"]]
    assert values == pytest.approx([59, 2, 80 / 59, 400, 500, 80, 50, 5, 16, 150, 3, 45, 62.5])
    expected = [True, False, True, True, None, True, False, True, False, True, True, True, True]
    assert verdicts(report) == expected
    assert report["bars"][0]["measured"] == "59.0 us"
    assert report["bars"][4]["wanted"] == "-"


def test_a_bar_that_was_not_measured_is_not_met() -> None:
    rows = all_rows()
    rows[0] = {k: v for k, v in rows[0].items() if k != "disco_fast"} | {"error": "no kernels"}
    rows[4] = {k: v for k, v in rows[4].items() if k != "disco_fast"} | {"wrong": "differs"}
    report = made_report(rows)
    expected = [True, None, True, None, None, True, False, None, False, True, None, True, True]
    assert verdicts(report) == expected
    del report["engine"]
    assert [bar["met"] for bar in _gpu_report.bars(report)][-2:] == [True, None]
    text = _gpu_report.text(report)
    assert "error: no kernels" in text
    assert "wrong: differs" in text


def test_a_time_by_the_wall_says_so() -> None:
    rows = all_rows()
    del rows[3]["disco_fast"]["device"]  # of batch 128; batch 1 is then taken by the wall too
    report = made_report(rows)
    assert report["bars"][2]["value"] == pytest.approx(90 / 69)
    del rows[2]["disco_fast"]["device"]
    assert made_report(rows)["bars"][0]["measured"] == "69.0 us, eager"


def test_the_table_of_a_hand_made_report() -> None:
    text = _gpu_report.text(made_report(all_rows()))
    assert "4.00 (50 %)" in text
    assert "Ceilings of this run: copy 1.00 TB/s, bf16 matrices 100 TFLOP/s." in text
    assert "build  FAILED  3  no compiler" in text
    cached = made_report([made_row("sp_pool", 1, 5, "fp16", "NCHW") | {"bytes": 900_000}])
    assert "5.00 (18 %, L2)" in _gpu_report.text(cached)


# ---- Processes and records -----------------------------------------------------------------------


def test_a_process_past_its_limit_is_stopped_with_its_children(tmp_path: Path) -> None:
    program = "import subprocess, sys; print('begun', flush=True); subprocess.run(['sleep', '60'])"
    begin = time.monotonic()
    runner = _gpu_process.Runner(tmp_path / "log", checkout=False)
    done = runner.run([sys.executable, "-c", program], 1)
    assert time.monotonic() - begin < 10
    assert done.status is None
    step = done.step("a note")
    assert step["ok"] is False
    assert step["note"] == "a note; ran past its limit"
    assert step["tail"] == "begun\n"
    assert "begun" in (tmp_path / "log").read_text()


def test_a_program_that_is_not_here_is_a_failure(tmp_path: Path) -> None:
    done = _gpu_process.Runner(tmp_path / "log", checkout=False).run(["/nonexistent/program"], 2)
    assert done.status == 127
    assert "/nonexistent/program" in done.last_words()


def test_what_is_missing_is_said_in_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_gpu_process, "has_package", lambda name: name != "hypothesis")
    monkeypatch.setattr(_gpu_process, "program", lambda name: None if name == "ninja" else name)
    assert _gpu_process.missing() == [
        "Python package hypothesis is missing: the tests of the superpixel ops are left out.",
        "Program ninja is missing: make builds instead.",
    ]


FAKE_STAGE = """
    import os, sys
    from pathlib import Path
    sys.path.insert(0, {benchmarks!r})
    import _gpu_records as records

    file = Path(sys.argv[sys.argv.index("--records") + 1])
    row = {{"op": "sp_pool", "shape": "", "batch": 1, "dtype": "", "layout": "", "reads_all": True}}
    jobs = ["context", "ceilings", "determinism", "row", "row", "row"]
    first = len(records.finished(records.read(file)))
    if not first:
        records.append(file, records.plan(len(jobs), {{}}))
    for number, name in enumerate(jobs[first:], start=first):
        records.append(file, records.beginning(name, row if name == "row" else {{}}))
        if number == 3:
            print("an illegal access")
            os.abort()
        result = {{"two_runs": True, "alone": True}}
        if name == "row":
            captured = "--wall-only" not in sys.argv
            result = row | {{"disco_fast": {{"not_captured": "x"}} if captured else {{}}}}
        records.append(file, records.outcome(name, 0.1, result))
        if number == 4:
            sys.exit(3)
"""


def test_measuring_goes_on_after_a_job_that_kills_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "stage.py"
    script.write_text(textwrap.dedent(FAKE_STAGE).format(benchmarks=str(BENCHMARKS)))
    monkeypatch.setattr(gpu_check, "SCRIPT", script)
    check = gpu_check.Check(tmp_path / "out", "cpu", False, {})
    check._measure(60)
    killed, uncaptured, last = check.report["rows"]
    assert killed["op"] == "sp_pool"
    assert "ended with -6: an illegal access" in killed["error"]
    assert uncaptured["disco_fast"] == {"not_captured": "x"}
    assert last["disco_fast"] == {}  # the process was told not to capture it again
    steps = check.report["steps"]
    assert steps["determinism"]["ok"]
    assert steps["kernels"]["ok"] is False
    assert steps["kernels"]["note"] == "2 of 3 rows measured, 0 wrong"


def test_half_a_record_is_no_record(tmp_path: Path) -> None:
    file = tmp_path / "records"
    _gpu_records.append(file, _gpu_records.beginning("row", {"op": "kmeans"}))
    file.write_text(file.read_text() + '{"job": "ro')
    assert _gpu_records.finished(_gpu_records.read(file)) == []
    assert _gpu_records.bury(file, "it died")
    assert not _gpu_records.bury(file, "it died")
    (buried,) = _gpu_records.finished(_gpu_records.read(file))
    assert buried["result"] == {"op": "kmeans", "error": "it died"}


@pytest.mark.parametrize(
    ("status", "output", "ok"),
    [
        (0, "175 calls of ops\n========= ERROR SUMMARY: 0 errors\n", True),
        (1, "175 calls of ops\n========= ERROR SUMMARY: 2 errors\n", False),
        (0, "========= ERROR SUMMARY: 0 errors\n", False),  # it never ran the program
        (255, "========= Error: Device not supported\n", None),
        (None, "", False),
    ],
)
def test_a_sanitizer_must_have_seen_the_ops(status: int | None, output: str, ok) -> None:
    assert gpu_check.sanitized(_gpu_process.Done(status, 1.0, output))["ok"] is ok


def test_tests_are_counted() -> None:
    output = "....\n2 failed, 300 passed, 1 skipped, 900 deselected, 1 error in 12.3s\n"
    counts = gpu_check.counts_of_tests(output)
    expected = {"failed": 2, "passed": 300, "skipped": 1, "deselected": 900, "error": 1}
    assert counts == expected
    assert gpu_check.counts_of_tests("") == {}
