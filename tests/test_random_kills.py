"""A few random kills of quick commands; `random_kills.py`, by hand, does many of all."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

COMMANDS = ["colorize", "anchors", "video", "convert", "download"]


@pytest.mark.thorough
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the runs are forks")
def test_what_is_killed_leaves_whole_files_and_goes_on(tmp_path: Path) -> None:
    for package in ("av", "gdown"):
        pytest.importorskip(package, reason="it is in the [test] extra")
    script = Path(__file__).with_name("random_kills.py")
    done = subprocess.run(
        [sys.executable, script, "10", "1", tmp_path, *COMMANDS],
        capture_output=True,
        text=True,
        cwd=tempfile.gettempdir(),
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("equal to a whole run") == len(COMMANDS)
