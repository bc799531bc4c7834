"""The C++ and CUDA kernels under sanitizers: memory, undefined behavior, races."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import emulated
import pytest

CSRC = Path(__file__).parents[1] / "csrc"
pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(bool(emulated.MISSING), reason=emulated.REASON),
]


def run(program: Path, *arguments: str, without: str = "") -> subprocess.CompletedProcess[str]:
    # Leak checking needs ptrace, which containers often forbid.
    environment = os.environ | {"ASAN_OPTIONS": "detect_leaks=0", "TSAN_OPTIONS": "halt_on_error=1"}
    environment |= {"EMULATED_WITHOUT": without} if without else {}
    return subprocess.run([program, *arguments], env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_kernels_and_emulator(sanitizer: str):
    for name in ("emulator_test", "kernels_test"):
        done = run(emulated.sanitized(name, sanitizer))
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
        ("address,undefined", ("overrun",), "heap-buffer-overflow"),
    ],
)
def test_sanitizers_see_into_the_emulator(sanitizer: str, mistakes: tuple[str, ...], report: str):
    program = emulated.sanitized("emulator_test", sanitizer)
    for mistake in mistakes:
        done = run(program, mistake)
        assert done.returncode != 0, mistake
        assert report in done.stderr, mistake


BARRIER = re.compile(r"__(syncthreads|threadfence)\(\);")
PARTS = {
    "sp_": "superpixels",
    "encoder": "encoder",
    "convolve": "convolutions",
}  # of kernels_test, others in "clusters"
GUARDED = [p.name for p in sorted(CSRC.glob("kernels/*.cuh")) if BARRIER.search(p.read_text())]


@pytest.mark.parametrize("name", GUARDED)
def test_every_barrier_is_needed_and_missed(name: str):
    """Without any barrier or fence of a kernel, ThreadSanitizer finds a race."""
    program = emulated.sanitized("kernels_test", "thread")
    part = next((part for start, part in PARTS.items() if name.startswith(start)), "clusters")
    places = [
        f"{name}:{number}"
        for number, line in enumerate((CSRC / "kernels" / name).read_text().splitlines(), 1)
        for _ in BARRIER.finditer(line)
    ]
    assert len(places) == len(set(places)), "one barrier a line, or none is left out alone"
    survivors = []
    for place in places:
        done = run(program, part, without=place)
        if done.returncode == 0 or "data race" not in done.stderr:
            survivors.append(place)
    assert not survivors
