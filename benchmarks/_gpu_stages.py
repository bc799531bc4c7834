"""What gpu_check.py measures, in a process of its own: a list of jobs, each recorded when done."""

from __future__ import annotations

import functools
import re
import subprocess
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import _gpu_records
import torch
from _device import context_lives, copy_bandwidth, first_line, matrix_rate
from _gpu_cases import FORCED, QUICK, Case, Sizes, cases
from _gpu_process import program as find_program
from _gpu_report import describe
from _gpu_rows import measure as measure_row
from _measure import Report, context
from ops import ITERATIONS, clustered

from disco_fast import _library, ops

MOST_SECONDS = 3.0  # of a row
SMI = (
    "name,driver_version,compute_cap,clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,"
    "power.draw,power.limit,temperature.gpu"
)

Job = tuple[str, Report, Callable[[float], Report]]  # name, identity, what takes some seconds


def measure(
    records: Path, until: float, device_name: str, quick: bool, wall_only: Collection[str]
) -> bool:
    """Run the jobs that are not recorded yet.

    Args:
        records: the file of records.
        until: when to stop, as `time.time` counts.
        device_name: "cuda" or "cpu".
        quick: small sizes.
        wall_only: "op/rival" of those that cannot be captured in a graph, or "all".

    Returns:
        Whether all are done; if not, this process can measure nothing more, but a new one could.
    """
    device = torch.device(device_name)
    sizes = QUICK if quick else Sizes()
    jobs = _jobs(device, sizes, quick, wall_only)
    first = len(_gpu_records.finished(_gpu_records.read(records)))
    if first == 0:
        _gpu_records.append(records, _gpu_records.plan(len(jobs), asdict(sizes)))
    for number, (name, identity, work) in enumerate(jobs[first:], start=first):
        begin, now = time.monotonic(), time.time()
        _gpu_records.append(records, _gpu_records.beginning(name, identity))
        result = identity | _attempt(work, (until - now) / (len(jobs) - number))
        seconds = time.monotonic() - begin
        _gpu_records.append(records, _gpu_records.outcome(name, seconds, result))
        print(f"{describe(name, result)}  [{seconds:.1f} s]", flush=True)
        if _spoilt(result, device):
            return False
    return True


def _jobs(device: torch.device, sizes: Sizes, quick: bool, wall_only: Collection[str]) -> list[Job]:
    batch = sizes.point_batches[-1]
    return [
        ("context", {}, lambda _: _context(device)),
        ("ceilings", {}, lambda _: _ceilings(device, quick)),
        ("determinism", {}, lambda _: _determinism(device, batch)),
        *(
            ("row", case.identity(), functools.partial(_row, case, device, wall_only))
            for case in cases(sizes)
        ),
    ]


def _attempt(work: Callable[[float], Report], seconds: float) -> Report:
    try:
        with torch.inference_mode():
            return work(seconds)
    except Exception as error:  # one job's failure is its own
        return {"error": first_line(error)}


def _row(case: Case, device: torch.device, wall_only: Collection[str], seconds: float) -> Report:
    half = _library.halves()[1 if device.type == "cuda" else 0]
    if not half.active:
        return {"error": f"no kernels: {half.why}"}
    if seconds <= 0:
        return {"skipped": "no time left"}
    try:
        return measure_row(case, device, min(seconds, MOST_SECONDS), wall_only=wall_only)
    finally:
        if device.type == "cuda":
            with suppress(RuntimeError):  # of a lost context
                torch.cuda.empty_cache()


def _spoilt(result: Report, device: torch.device) -> bool:
    """Whether this process had better end: its context is lost, or a capture failed in it."""
    parts = [part for part in result.values() if isinstance(part, dict)]
    uncaptured = any("not_captured" in part for part in parts)
    return uncaptured or ("error" in result and not context_lives(device))


# ---- Jobs ----------------------------------------------------------------------------------------


def _context(device: torch.device) -> Report:
    here = context(device)
    return here | ({"gpu": _gpu(device)} if device.type == "cuda" else {})


def _gpu(device: torch.device) -> Report:
    properties = torch.cuda.get_device_properties(device)
    nvcc = re.search(r"release ([\d.]+)", _output("nvcc", "--version"))
    return {
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "l2_bytes": getattr(properties, "L2_cache_size", None),
        "nvcc": nvcc[1] if nvcc else None,
        "smi": _smi(),
    }


def _smi() -> list[Report]:
    """What nvidia-smi says of each GPU, clocks and driver among it; empty where it is not here."""
    text = _output("nvidia-smi", f"--query-gpu={SMI}", "--format=csv,noheader")
    lines = [[cell.strip() for cell in line.split(",")] for line in text.splitlines()]
    names = SMI.split(",")
    return [dict(zip(names, cells, strict=True)) for cells in lines if len(cells) == len(names)]


def _output(program: str, *arguments: str) -> str:
    path = find_program(program)
    with suppress(OSError, subprocess.SubprocessError):
        if path:
            run = [path, *arguments]
            return subprocess.run(run, capture_output=True, text=True, timeout=20).stdout
    return ""


def _ceilings(device: torch.device, quick: bool) -> Report:
    """Copy bandwidth and matrix rate, and the clocks right after."""
    size, side = (1 << 20, 64) if quick else (1 << 31, 8192)
    if device.type == "cuda":
        size = min(size, torch.cuda.mem_get_info(device)[0] // 4)
    rates = {"copy": copy_bandwidth(device, size), "matrix": matrix_rate(device, side)}
    return rates | ({"smi": _smi()} if device.type == "cuda" else {})


def _determinism(device: torch.device, batch: int) -> Report:
    """Whether K-Means gives the same bits twice, and for an image alone as within a batch."""
    generator = torch.Generator().manual_seed(5)
    points, init = (t.to(device) for t in clustered(batch, 256, generator))
    together = ops.kmeans(points, init, ITERATIONS, FORCED)
    again = ops.kmeans(points, init, ITERATIONS, FORCED)
    chosen = sorted({0, batch // 2, batch - 1})
    alone = [ops.kmeans(points[i : i + 1], init[i : i + 1], ITERATIONS, FORCED) for i in chosen]
    return {
        "batch": batch,
        "two_runs": all(map(torch.equal, together, again)),
        "alone": all(
            torch.equal(one, many[i : i + 1])
            for i, results in zip(chosen, alone, strict=True)
            for one, many in zip(results, together, strict=True)
        ),
    }
