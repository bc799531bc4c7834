"""gpu_check.py: a step that fails or hangs hides none of the others."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import gpu_check
import pytest
import torch
from gpu_check import Step

NINE_MINUTES = 540
FOUND = {"torch_folder": "torch", "arch": "90"}


def python(name: str, program: str, seconds: float = 30, **more) -> Step:
    return Step(name, seconds, [[sys.executable, "-c", program]], **more)


def run_all(out: Path, *steps: Step) -> dict:
    """What the steps leave behind."""
    report = {"steps": {}}
    well = gpu_check.run_all(steps, out, report)
    saved = json.loads((out / "gpu-check.json").read_text())
    assert saved == report
    assert well == all(step["ok"] for step in saved["steps"].values())
    return saved["steps"]


def test_a_step_that_fails_hides_none_of_the_others(tmp_path: Path) -> None:
    steps = run_all(
        tmp_path,
        python("first", "print('300 passed')"),
        python("dies", "import os; print('an illegal access', flush=True); os.abort()"),
        Step("missing", 5, [["/nonexistent/program"]]),
        python("last", "print('still here')"),
    )
    assert [step["ok"] for step in steps.values()] == [True, False, False, True]
    assert steps["first"]["note"] == "300 passed"
    assert steps["dies"]["note"] == "an illegal access"
    assert "an illegal access" in steps["dies"]["tail"]
    assert "/nonexistent/program" in steps["missing"]["note"]
    log = (tmp_path / "gpu-check.log").read_text()
    assert "an illegal access" in log
    assert "still here" in log


def test_a_step_past_its_limit_is_stopped_with_its_children(tmp_path: Path) -> None:
    program = "import subprocess, sys; print('begun', flush=True); subprocess.run(['sleep', '60'])"
    begin = time.monotonic()
    steps = run_all(tmp_path, python("hangs", program, 1), python("next", "print('here')"))
    assert time.monotonic() - begin < 30
    assert steps["hangs"]["note"] == "stopped after 1 s: begun"
    assert steps["next"]["ok"]


def test_every_outcome_is_saved_before_the_next_step(tmp_path: Path) -> None:
    program = f"print(open({str(tmp_path / 'gpu-check.json')!r}).read().count('first'))"
    steps = run_all(tmp_path, python("first", "print(1)"), python("second", program))
    assert steps["second"]["note"] == "1"


def test_without_a_build_nothing_is_measured(tmp_path: Path) -> None:
    steps = run_all(tmp_path, python("build", "raise SystemExit(1)"), python("tests", "print(1)"))
    assert steps["tests"] == {"ok": False, "seconds": 0.0, "note": "not run: no build"}


def test_the_plan_is_in_order_and_fits_nine_minutes(tmp_path: Path) -> None:
    steps = gpu_check.plan("cuda", tmp_path, FOUND)
    assert [step.name for step in steps] == [
        "build",
        "timing",
        "engine",
        "profile",
        "tests",
        "ops superpixels",
        "ops pixels",
        "ops convolutions",
        "ops color",
        "memcheck",
        "racecheck",
    ]
    assert sum(step.seconds for step in steps) + gpu_check.PROBE_SECONDS <= NINE_MINUTES
    tests = next(step for step in steps if step.name == "tests").commands[0]
    files = [Path(str(word)) for word in tests if str(word).startswith("tests/")]
    assert all((gpu_check.ROOT / file).exists() for file in files)


def test_the_command_runs_where_no_gpu_is(tmp_path: Path) -> None:
    few = ["--device", "cpu", "--only", "profile", "ops color"]
    command = [sys.executable, str(gpu_check.SCRIPT), "--out", str(tmp_path), *few]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "gpu-check.json").read_text())
    assert report["what"] == "gpu"
    assert report["context"]["torch"] == torch.__version__
    assert set(report["steps"]) == {"profile", "ops color"}
    (profile,) = report["profiles"]
    assert profile["launching"] == "step by step: no GPU"
    assert sum("convolution" in kernel["name"] for kernel in profile["kernels"]) >= 1
    for name in ("profile", "ops-color"):
        assert json.loads((tmp_path / f"{name}-cpu.json").read_text())
    assert "| ops color | ok |" in done.stdout
    assert "the engine runs step by step: no GPU" in done.stdout
    assert gpu_check.gpu_table([report]) in done.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_without_a_gpu_nothing_begins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert gpu_check.main(["--out", str(out)]) == 2
    assert "no CUDA GPU here: torch" in capsys.readouterr().err
    assert not out.exists()
