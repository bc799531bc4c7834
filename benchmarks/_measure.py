"""How everything here is timed, and what is written down beside a time."""

from __future__ import annotations

import datetime
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from disco_fast import _library

ROOT = Path(__file__).resolve().parent.parent
WARM_UP = 2
TELLING = ("OMP_", "MKL_", "MALLOC_", "DISCO_FAST_")  # variables that change times

Report = dict[str, Any]  # what a JSON file holds


def synchronize(device: torch.device) -> None:
    """Wait until the device has nothing left to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(function: Callable[[], object], device: torch.device) -> float:
    """Wall time of one call, its work on the device included."""
    synchronize(device)
    begin = time.perf_counter()
    function()
    synchronize(device)
    return time.perf_counter() - begin


def interleaved(
    functions: Mapping[str, Callable[[], object]], repeats: int, device: torch.device
) -> dict[str, Report]:
    """Time rivals in turns, the order reversed every time, so that noise hits all alike."""
    for function in functions.values():
        for _ in range(WARM_UP):
            function()
    times: dict[str, list[float]] = {name: [] for name in functions}
    for repeat in range(repeats):
        for name in list(functions)[:: -1 if repeat % 2 else 1]:
            times[name].append(seconds(functions[name], device))
    return {name: summary(values) for name, values in times.items()}


def summary(times: Iterable[float]) -> Report:
    """Milliseconds of times in seconds; the minimum tells a busy machine from a slow one."""
    ms = np.array(list(times)) * 1e3
    figures = {"median": np.median(ms), "p95": np.percentile(ms, 95), "min": ms.min()}
    return {**{name: round(float(x), 4) for name, x in figures.items()}, "runs": len(ms)}


def default_device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def context(device: torch.device) -> Report:
    """Where, on what and by which command something was measured."""
    gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if gpu else cpu_model(),
        "device_type": device.type,
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        **({"cuda": torch.version.cuda, "tf32": torch.backends.cudnn.allow_tf32} if gpu else {}),
        "environment": {k: v for k, v in os.environ.items() if k.startswith(TELLING)},
        "native": {half.name: half.why for half in _library.halves()},
        "commit": commit(),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "command": command(),
    }


def cpu_model() -> str:
    """The processor's name and its family and model numbers: clouds shorten the name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    info = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = info.get("model name", platform.machine())
    numbers = [
        f"{key.removeprefix('cpu ')} {info[key]}" for key in ("cpu family", "model") if key in info
    ]
    return f"{name} ({', '.join(numbers)})" if numbers else name


def commit() -> str:
    """The commit of the code that ran, with "+dirty" if what ran was not exactly that."""
    code = ("disco_fast", "csrc", "benchmarks/*.py")
    try:
        head = _git("rev-parse", "--short", "HEAD")
        return head + ("+dirty" if _git("status", "--porcelain", "--", *code) else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    run = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip()


def command() -> str:
    """The command line, folders of this machine left out."""
    shown = [Path(a).name if Path(a).is_absolute() else a for a in sys.argv[1:]]
    return shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *shown])


def save(report: Report, path: Path) -> None:
    """Write a report as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
