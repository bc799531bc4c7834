"""What the scripts that read compiled CUDA kernels share. No GPU."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from .report import ROOT, Report, save

SOURCES = ROOT / "csrc" / "kernels"


def nvcc_or_exit(script: str) -> str:
    """Where nvcc is.

    Raises:
        SystemExit: it is not on PATH.
    """
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        raise SystemExit(f"{script}: no nvcc on PATH")
    return nvcc


def release(nvcc: str) -> str:
    """As in "13.0"."""
    text = subprocess.run([nvcc, "--version"], check=True, capture_output=True, text=True).stdout
    found = re.search(r"release (\d+\.\d+)", text)
    if found is None:
        raise SystemExit(f"{nvcc} --version names no release")
    return found[1]


def demangle(names: Sequence[str]) -> list[str]:
    """As in "sp_pool_kernel<float, (Layout)1>": no namespace, no parameters."""
    done = subprocess.run(
        ["c++filt", *names], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    plain = [line.replace("disco_fast::", "").removeprefix("void ") for line in done]
    return [re.sub(r"\(\w+Args.*$", "", line) for line in plain]


def conclude(
    report: Report, problems: Sequence[str], committed: Path | None, file: Path | None
) -> int:
    """Print what is wrong, and return the exit status.

    Args:
        report: what was found.
        problems: what is wrong with it, in sentences.
        committed: a report that it must equal if that was made by the same release of nvcc.
        file: gets the report.
    """
    problems = list(problems)
    if file:
        save(report, file)
    if committed:
        before = json.loads(committed.read_text())
        if before["nvcc"] == report["nvcc"] and before != report:
            script = f"benchmarks/{report['what']}.py"
            problems.append(f"{committed.name} is stale: run {script} --json on it")
    print("\n".join(problems))
    return int(bool(problems))
