"""Registers, shared memory and spills of every CUDA kernel, as the assembler reports them. No GPU.

    python benchmarks/ptxas.py --json benchmarks/results/ptxas.json
    python benchmarks/ptxas.py --check

Fails where a kernel spills registers or uses local memory (a stack frame), and where nvcc has lost
the address that a pointer begins at. With `--check` also where the table differs from the committed
one, if that was made by the same release of nvcc.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness.nvcc import SOURCES, conclude, demangle, nvcc_or_exit, release
from harness.report import RESULTS, Report

COMMITTED = RESULTS / "ptxas.json"
ARCHS = (75, 80, 90, 120)  # the oldest, the newest, and the data center's; others lie between
ENTRY = re.compile(r"Compiling entry function '(\w+)' for")
FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
# Of an array of two pointers into shared memory, nvcc 13.0 has compiled one as an offset from 0.
LOST = re.compile(r"\badd\.s64\s+%rd\d+, 0, ")
FUNCTION = re.compile(r"\.entry (\w+)\(")
USED = re.compile(r"Used (\d+) registers(?:.*?, (\d+) bytes smem)?")


def compile_source(nvcc: str, source: Path, arch: int) -> str:
    """What ptxas says of a source file.

    Raises:
        SystemExit: it does not compile, or wrongly.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [
            nvcc, "-std=c++17", "-O3", "--expt-relaxed-constexpr", f"-arch=sm_{arch}", "-cubin",
            "-Xptxas", "-v", str(source), "-o", f"{folder}/out.cubin", "-keep", "-keep-dir", folder,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"ptxas: {source.name} for sm_{arch}:\n{done.stderr}")
        if lost := lost_addresses(Path(folder, f"{source.stem}.ptx").read_text()):
            raise SystemExit(f"ptxas: {source.name} for sm_{arch}: lost addresses in {lost}")
    return done.stderr


def lost_addresses(ptx: str) -> list[str]:
    """Mangled names of the kernels in which a pointer begins at 0."""
    parts = FUNCTION.split(ptx)[1:]
    return [name for name, code in zip(parts[::2], parts[1::2], strict=True) if LOST.search(code)]


def parse(text: str) -> Iterator[tuple[str, Report]]:
    """(mangled name, resources) of each kernel in what ptxas says.

    The lines of functions that a kernel calls stand between its name and its own sum.
    """
    name, stack, spills = "", 0, 0
    for line in text.splitlines():
        if entry := ENTRY.search(line):
            name, stack, spills = entry[1], 0, 0
        elif frame := FRAME.search(line):
            stack = max(stack, int(frame[1]))
            spills += int(frame[2]) + int(frame[3])
        elif (used := USED.search(line)) and name:
            resources = {"registers": int(used[1]), "shared": int(used[2] or 0)}
            yield name, {**resources, "stack": stack, "spills": spills}
            name = ""


def table(nvcc: str, archs: Sequence[int]) -> Report:
    """Resources by kernel and architecture."""
    jobs = [(source, arch) for source in sorted(SOURCES.glob("*.cu")) for arch in archs]
    with ThreadPoolExecutor() as pool:
        texts = pool.map(lambda job: compile_source(nvcc, *job), jobs)
    kernels: Report = {}
    for (_, arch), text in zip(jobs, texts, strict=True):
        found = dict(parse(text))
        for name, resources in zip(demangle(list(found)), found.values(), strict=True):
            kernels.setdefault(name, {})[f"sm_{arch}"] = resources
    return dict(sorted(kernels.items()))


def faults(kernels: Report) -> list[str]:
    """Sentences about kernels that use memory in place of registers."""
    return [
        f"{name} for {arch}: {used['spills']} bytes spilled, {used['stack']} bytes of local memory"
        for name, by_arch in kernels.items()
        for arch, used in by_arch.items()
        if used["spills"] or used["stack"]
    ]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--archs", type=int, nargs="+", default=list(ARCHS), metavar="80")
    parser.add_argument("--check", action="store_true", help="compare with the committed table")
    parser.add_argument("--json", type=Path, metavar="FILE")
    a = parser.parse_args(argv)
    nvcc = nvcc_or_exit("ptxas")
    kernels = table(nvcc, a.archs)
    report: Report = {"what": "ptxas", "nvcc": release(nvcc), "kernels": kernels}
    for name, by_arch in kernels.items():
        cells = [f"{arch} {used['registers']:3} registers" for arch, used in by_arch.items()]
        print(f"{name:62} {next(iter(by_arch.values()))['shared']:6} bytes  {'  '.join(cells)}")
    return conclude(report, faults(kernels), COMMITTED if a.check else None, a.json)


if __name__ == "__main__":
    raise SystemExit(main())
