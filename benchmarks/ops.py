"""Each op against the published form and against vectorized PyTorch, verified first.

    python benchmarks/ops.py --repeats 5  # a quick look
    python benchmarks/ops.py --json benchmarks/results/ops-cpu.json

The cases are those of the tests (`tests/cases.py`) at the network's sizes. The vectorized form is
the cheapest thing a user could do without a kernel, for the encoder PyTorch's own layers. K-Means
runs exactly 20 iterations in all three, so that iterations are compared with iterations. On a GPU
every call is also timed on the device alone, beside the time of copying its bytes.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from harness import N_ANCHORS, SIZE, published, vectorized
from harness.clock import (
    Function,
    context,
    copy_bandwidth,
    default_device,
    device_time,
    interleaved,
)
from harness.inputs import is_size
from harness.report import NONE, ROOT, Report, by_machine, digits, milliseconds, ratio, save
from harness.report import table as markdown
from torch import Tensor

from disco_fast import ops, reference

sys.path.append(str(ROOT / "tests"))

from cases import ClusterCase, ColorCase, ConvolutionCase, EncoderCase, OpCase, PoolCase

CELL = 16
RIVALS: dict[str, Any] = {"published": published, "vectorized": vectorized, "disco_fast": ops}
FAMILIES = ("superpixels", "pixels", "convolutions", "color")
BATCHES = {"cpu": (1, 16), "cuda": (1, 64)}
CHECKED = (0, 1, -2, -1)  # images of a larger batch that are compared with the specification
BUDGET = 1.5  # seconds after which a case begins no further turn, on a GPU


def cases(family: str, size: int, device: torch.device) -> Iterator[OpCase]:
    """What is measured of a family of ops.

    Args:
        family: out of `FAMILIES`; on a CPU there are no convolutions of our own.
        size: side of an image.
        device: on a GPU there are more dtypes, layouts and batches.
    """
    gpu, grid = device.type == "cuda", size // CELL
    few, many = BATCHES[device.type]
    if family == "superpixels":
        wide = dict(dims=64, clusters=N_ANCHORS, kind="clustered")
        for images in (few, many):
            yield from ClusterCase(images, grid**2, **wide).ops()  # type: ignore[arg-type]
            yield from EncoderCase(images, grid, grid).ops()
        yield ClusterCase(1, 16 * grid**2, **wide).ops()[0]  # type: ignore[arg-type]
    elif family == "pixels":
        dtypes = (torch.float16, torch.float32) if gpu else (torch.float32,)
        layouts = (False, True) if gpu else (False,)
        for images, dtype, last in itertools.product(
            (few, many) if gpu else (few,), dtypes, layouts
        ):
            yield from PoolCase(images, 64, grid, grid, CELL, dtype, last).ops()
    elif family == "convolutions":
        for images, fold in itertools.product((few, many) if gpu else (), (1, 2, 4, 8)):
            side, channels = size // fold, 64 * fold
            yield ConvolutionCase(images, channels, channels, side, side).ops()[0]
        for images in (few, many) if gpu else ():
            yield ConvolutionCase(images, 16, 16, size, size, torch.float32).ops()[0]
    else:
        for side in (1024, 4096) if gpu else (size,):
            yield from ColorCase(1, side, side).ops()


# ---- Verification --------------------------------------------------------------------------------


def complaint(case: OpCase, arguments: tuple, namespace: Any) -> str | None:
    """What is wrong with a form of an op; None if nothing is."""
    got = case.call(namespace, arguments)
    some = list(CHECKED) if case.images > len(CHECKED) else list(range(case.images))
    expected = case.call(reference, tuple(_widened(a, some, case.images) for a in arguments))
    bounds = case.loose or case.bounds if namespace is vectorized else case.bounds
    for index, (right, result, bound) in enumerate(zip(expected, got, bounds, strict=False)):
        difference = _difference(right, result[some])
        if not difference <= bound:  # NaN too
            return f"result {index} differs by {difference:.3g}, allowed {bound:.3g}"
    return None


def _widened(argument: Any, some: list[int], images: int) -> Any:
    """Some images of an argument in fp64; bytes as the floating image that means the same."""
    if not isinstance(argument, Tensor):
        return argument
    if argument.dim() > 1 and len(argument) == images:
        argument = argument[some]
    if not argument.is_floating_point() and argument.dtype != torch.uint8:
        return argument
    return argument.double() / (255 if argument.dtype == torch.uint8 else 1)


def _difference(expected: Tensor, got: Tensor) -> float:
    if expected.shape != got.shape:
        return float("nan")
    return (expected.double() - got.double()).abs().max().item()


# ---- Measuring -----------------------------------------------------------------------------------


def measure(
    families: Sequence[str], size: int, repeats: int, device: torch.device, file: Path | None = None
) -> Report:
    """Every case of some families.

    Args:
        families: of `FAMILIES`.
        size: side of an image.
        repeats: how often each rival is timed.
        device: where.
        file: gets the report after every case, so that a crash costs what comes after it.
    """
    gpu = device.type == "cuda"
    rows: list[Report] = []
    report: Report = {
        "what": "ops",
        "context": context(device),
        "settings": {"size": size},
        **({"copy_bytes_per_second": copy_bandwidth(device)} if gpu else {}),
        "rows": rows,
    }
    for case in (case for family in families for case in cases(family, size, device)):
        # A process in which a capture failed captures no more.
        capture = gpu and not any("not_captured" in row for row in rows)
        rows.append(measure_case(case, repeats, device, capture))
        print(f"{case}: {_progress(rows[-1])}", flush=True)
        if file:
            save(report, file)
    return report


def measure_case(case: OpCase, repeats: int, device: torch.device, capture: bool = False) -> Report:
    """Times of one case by rival; or what is wrong.

    Args:
        case: what to measure.
        repeats: how often each rival is timed.
        device: where.
        capture: whether calls are also timed on the device alone.
    """
    row: Report = {"op": case.op, "shape": case.shape}
    try:
        with torch.inference_mode():
            return row | _measured(case, case.make(device), repeats, device, capture)
    except torch.cuda.OutOfMemoryError:
        return row | {"skipped": "too little memory on this device"}


def _measured(
    case: OpCase, arguments: tuple, repeats: int, device: torch.device, capture: bool
) -> Report:
    calls: dict[str, Function] = {}
    for name, namespace in RIVALS.items():
        if name != "disco_fast" and not hasattr(namespace, case.op):
            continue
        if (wrong := complaint(case, arguments, namespace)) is None:
            calls[name] = functools.partial(case.call, namespace, arguments)
        elif name != "vectorized":  # which may sum in half precision
            return {"wrong": f"{name}: {wrong}"}
    budget = BUDGET if device.type == "cuda" else math.inf
    row: Report = dict(interleaved(calls, repeats, device, budget))
    return row | (_on_device(calls, arguments) if capture else {})


def _on_device(calls: dict[str, Function], arguments: tuple) -> Report:
    """Times of calls without the host, and the bytes of arguments and results."""
    moved = [t for t in (*arguments, *calls["disco_fast"]()) if isinstance(t, Tensor)]
    found: Report = {"bytes": sum(t.numel() * t.element_size() for t in moved), "device": {}}
    try:
        for name in ("disco_fast", "vectorized"):
            if name in calls:
                found["device"][name] = device_time(calls[name])
    except RuntimeError as error:
        found["not_captured"] = str(error.__context__ or error).strip().split("\n")[0]
    return found


# ---- Table ---------------------------------------------------------------------------------------


def cpu_table(reports: Sequence[Report]) -> str:
    """The ops on a CPU."""
    return table([report for report in reports if not _on_gpu(report)])


def gpu_table(reports: Sequence[Report]) -> str:
    """The ops on a GPU, also without what a launch takes on the host."""
    return table([report for report in reports if _on_gpu(report)]) or "Not measured yet."


TABLES = {"ops": cpu_table, "gpu_ops": gpu_table}


def _on_gpu(report: Report) -> bool:
    return report["context"]["device_type"] != "cpu"


@by_machine
def table(reports: Sequence[Report]) -> str:
    """All rows of a machine; on a GPU with times on the device alone."""
    gpu = _on_gpu(reports[0])
    header = ["ms", "published", "vectorized PyTorch", "disco_fast", "speedup over published"]
    header += ["speedup over vectorized"]
    header += ["disco_fast, device alone", "share of copy bandwidth"] if gpu else []
    rows = []
    for report in reports:
        for row in report["rows"]:
            cells = _cells(row) + (_device_cells(row, report) if gpu else [])
            if trouble := _trouble(row):
                cells = [trouble, *[NONE] * (len(header) - 2)]
            rows.append([f"`{row['op']}` {row['shape']}", *cells])
    return markdown(header, rows)


def _cells(row: Report) -> list[str]:
    slow, vector, fast = (row.get(name) for name in RIVALS)
    return [*map(milliseconds, (slow, vector, fast)), ratio(slow, fast), ratio(vector, fast)]


def _device_cells(row: Report, report: Report) -> list[str]:
    times = row.get("device", {}).get("disco_fast")
    if times is None:
        return [NONE, NONE]
    rate = row["bytes"] / (times["median"] * 1e-3)
    return [digits(times["median"]), f"{rate / report['copy_bytes_per_second']:.0%}"]


def _trouble(row: Report) -> str | None:
    return row.get("wrong") or row.get("skipped")


def _progress(row: Report) -> str:
    return _trouble(row) or f"{milliseconds(row['disco_fast'])} ms"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", type=torch.device, default=default_device())
    parser.add_argument("--size", type=int, default=SIZE, help="side in pixels, a multiple of 16")
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--json", type=Path, metavar="FILE")
    a = parser.parse_args(argv)
    if not is_size(a.size):
        parser.error(f"--size {a.size}: expected a multiple of 16, at least 48")
    report = measure(a.families, a.size, a.repeats, a.device, a.json)
    print(table([report]))
    return int(any("wrong" in row for row in report["rows"]))


if __name__ == "__main__":
    raise SystemExit(main())
