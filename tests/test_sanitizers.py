"""The C++ kernels of every instruction set, under address and undefined-behaviour sanitizers."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent / "cpp"
TOOLS = ("cmake", "ninja", "c++")


@pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in TOOLS), reason=f"needs {', '.join(TOOLS)}"
)
def test_kernels_under_sanitizers(tmp_path: Path):
    build = str(tmp_path)
    for command in (
        ["cmake", "-G", "Ninja", "-S", str(SOURCE), "-B", build],
        ["cmake", "--build", build],
        [f"{build}/kernels_test"],
    ):
        # Leak checking needs ptrace, which containers often forbid.
        environment = os.environ | {"ASAN_OPTIONS": "detect_leaks=0"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.startswith("baseline ")
    assert done.stdout.endswith(" 0 failures\n")
