"""The C++ and CUDA kernels under sanitizers: memory, undefined behavior, races."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import emulated
import pytest

CSRC = Path(__file__).parents[1] / "csrc"
pytestmark = pytest.mark.skipif(bool(emulated.MISSING), reason=emulated.REASON)


def run(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # Leak checking needs ptrace, which containers often forbid.
    environment = os.environ | {"ASAN_OPTIONS": "detect_leaks=0", "TSAN_OPTIONS": "halt_on_error=1"}
    return subprocess.run([program, *arguments], env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_kernels_and_emulator(sanitizer: str, tmp_path: Path):
    for name in ("emulator_test", "kernels_test"):
        program = emulated.build(tmp_path, name, SANITIZER=sanitizer)
        done = run(program)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        assert done.stdout.endswith(" 0 failures\n")


@pytest.mark.parametrize(
    ("sanitizer", "mistakes", "report"),
    [
        (
            "thread",
            ("race-shared", "race-warps", "race-shuffle", "race-blocks", "race-grid"),
            "data race",
        ),
        ("address", ("overrun",), "heap-buffer-overflow"),
    ],
)
def test_sanitizers_see_into_the_emulator(
    tmp_path: Path, sanitizer: str, mistakes: tuple[str, ...], report: str
):
    program = emulated.build(tmp_path, "emulator_test", SANITIZER=sanitizer)
    for mistake in mistakes:
        done = run(program, mistake)
        assert done.returncode != 0, mistake
        assert report in done.stderr, mistake


BARRIER = re.compile(r"__(syncthreads|threadfence)\(\);")
PARTS = {"sp_": "superpixels", "encoder": "encoder"}  # of kernels_test, others in "clusters"
GUARDED = [p.name for p in sorted(CSRC.glob("kernels/*.cuh")) if BARRIER.search(p.read_text())]


@pytest.fixture(scope="session")
def copy_to_break(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of the sources; what is built of it is kept for the next mutant."""
    folder = tmp_path_factory.mktemp("mutants")
    shutil.copytree(CSRC, folder / "csrc")
    return folder


@pytest.mark.parametrize("name", GUARDED)
def test_every_barrier_is_needed_and_missed(copy_to_break: Path, name: str):
    """Copies of a kernel that lack a barrier or fence: ThreadSanitizer finds a race in each."""
    copy, survivors = copy_to_break / "csrc", []
    source = copy / "kernels" / name
    text = source.read_text()
    part = next((part for start, part in PARTS.items() if name.startswith(start)), "clusters")
    for found in BARRIER.finditer(text):
        source.write_text(text[: found.start()] + ";" + text[found.end() :])
        program = emulated.build(
            copy_to_break / "build", "kernels_test", SANITIZER="thread", CSRC=copy
        )
        done = run(program, part)
        if done.returncode == 0 or "data race" not in done.stderr:
            survivors.append(f"{name}:{text[: found.start()].count(chr(10)) + 1}")
    source.write_text(text)
    assert not survivors
