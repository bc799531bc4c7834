"""A row of gpu_check.py: a case verified against the specification in fp64, then timed."""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Callable, Collection
from typing import Any

import _vectorized
import torch
from _device import Function, device_times, first_line, tensors, wall_times
from _gpu_cases import FORCED, Case, Work, fast_ops
from _measure import Report
from ops import ITERATIONS, N_ANCHORS
from torch import Tensor

from disco_fast import reference

CHUNK = 8  # images that the specification takes at once, in fp64
WALL_SHARES = 12  # of a row's time, one for each rival's eager calls
ALL = "all"  # every op and rival


def measure(
    case: Case,
    device: torch.device,
    seconds: float,
    fast: Any = None,
    wall_only: Collection[str] = (),
) -> Report:
    """One of: times; what is wrong; why there is nothing.

    Args:
        case: what to measure.
        device: where.
        seconds: about how long it may take.
        fast: the namespace of ops; by default this package's.
        wall_only: "op/rival" of those that cannot be captured in a graph, or "all".
    """
    try:
        with torch.inference_mode():
            return _measured(case, device, seconds, fast or fast_ops(), wall_only)
    except torch.cuda.OutOfMemoryError:
        return {"skipped": "this device has too little memory for it"}


def _measured(
    case: Case, device: torch.device, seconds: float, fast: Any, wall_only: Collection[str]
) -> Report:
    work = case.make(device)
    results = tensors(work.run(fast, *work.tensors))
    worst = differences(case, work, results)
    if (complaint := _complaint(worst, case.bounds)) is not None:
        return {"wrong": complaint}
    row: Report = {
        "max_difference": max(worst),
        "bytes": bytes_of(*work.tensors, *results),
        "disco_fast": {},
        "published": {},
    }
    rivals = {"disco_fast": fast, "published": reference}
    if case.vectorised:
        rivals["vectorised"], row["vectorised"] = _vectorized, _check_vectorised(case, work)
    calls: dict[str, Function] = {
        name: functools.partial(work.run, rival, *work.tensors)
        for name, rival in rivals.items()
        if "wrong" not in row[name]
    }
    del results
    if case.op == "kmeans":
        calls |= _other_libraries(work, row)
    if device.type == "cuda":
        _time_on_device(case.op, calls, row, wall_only)
    for name, times in wall_times(calls, seconds / WALL_SHARES, device).items():
        row[name]["wall"] = times
    return row


def _time_on_device(
    op: str, calls: dict[str, Function], row: Report, wall_only: Collection[str]
) -> None:
    """Those that never wait for the device; the published path and the libraries do."""
    capturable: dict[str, Function] = {
        name: calls[name]
        for name in ("disco_fast", "vectorised")
        if name in calls and not {ALL, f"{op}/{name}"} & set(wall_only)
    }
    times, failed = device_times(capturable)
    for name, report in times.items():
        row[name]["device"] = report
    for name, why in failed.items():
        row[name]["not_captured"] = why


# ---- Verification --------------------------------------------------------------------------------


def differences(case: Case, work: Work, results: tuple[Tensor, ...]) -> list[float]:
    """Largest absolute difference from the specification in fp64, of each result.

    Infinite where anything is NaN, or of another shape.
    """
    images = torch.arange(case.batch, device=results[0].device)
    if case.checked is not None and case.checked < case.batch:
        spread = torch.linspace(0, case.batch - 1, case.checked)
        images = spread.round().long().to(images.device)
    if any(len(result) != case.batch for result in results):
        return [math.inf] * len(results)
    worst = [0.0] * len(results)
    for some in images.split(CHUNK):
        arguments = (_widened(tensor[some]) for tensor in work.tensors)
        expected = tensors(work.run(reference, *arguments))
        for i, (right, result) in enumerate(zip(expected, results, strict=True)):
            worst[i] = max(worst[i], _difference(right, result[some]))
    return worst


def _widened(tensor: Tensor) -> Tensor:
    """In fp64; a picture of bytes as the floating picture that means the same."""
    if tensor.dtype == torch.uint8:
        return tensor.double() / 255
    return tensor.double() if tensor.is_floating_point() else tensor


def _difference(expected: Tensor, result: Tensor) -> float:
    if expected.shape != result.shape:
        return math.inf
    worst = (expected.double() - result.double()).abs().max().item()
    return math.inf if math.isnan(worst) else worst


def _complaint(worst: list[float], bounds: tuple[float, ...]) -> str | None:
    for i, (difference, bound) in enumerate(zip(worst, bounds, strict=True)):
        if difference > bound:
            return f"result {i} differs by {difference:.3g}, allowed {bound:.3g}"
    return None


def _check_vectorised(case: Case, work: Work) -> Report:
    """Empty, or why the rival is not timed."""
    try:
        worst = differences(case, work, tensors(work.run(_vectorized, *work.tensors)))
    except torch.cuda.OutOfMemoryError:
        return {"wrong": "too little memory"}
    complaint = _complaint(worst, case.rival_bounds)
    return {} if complaint is None else {"wrong": complaint}


def bytes_of(*arguments: Tensor) -> int:
    """What has to move at least: every argument and result once."""
    return sum(tensor.numel() * tensor.element_size() for tensor in arguments)


# ---- Libraries that may be here ------------------------------------------------------------------


def _flash_kmeans(library: Any, points: Tensor, centers: Tensor) -> Tensor:
    """flash-kmeans 0.3: Triton kernels; every iteration waits to see the largest shift."""
    arguments = {"max_iters": ITERATIONS, "tol": FORCED, "init_centroids": centers}
    return library.batch_kmeans_Euclid(points, N_ANCHORS, **arguments)[0]


def _fast_pytorch_kmeans(library: Any, points: Tensor, centers: Tensor) -> Tensor:
    """fast_pytorch_kmeans 0.2: matrix products; every iteration waits to see the whole shift."""
    kmeans = library.MultiKMeans(n_clusters=N_ANCHORS, max_iter=ITERATIONS, tol=FORCED)
    return kmeans.fit_predict(points, centers)


LIBRARIES: dict[str, Callable[[Any, Tensor, Tensor], Tensor]] = {
    "flash_kmeans": _flash_kmeans,
    "fast_pytorch_kmeans": _fast_pytorch_kmeans,
}


def _other_libraries(work: Work, row: Report) -> dict[str, Function]:
    """Calls of the K-Means libraries that are installed; puts the reason into the row if not."""
    points, init = work.tensors
    centers = points.gather(1, init[..., None].expand(-1, -1, points.shape[2]))
    right = work.run(fast_ops(), points, init)[0]
    calls: dict[str, Function] = {}
    for name, cluster in LIBRARIES.items():
        row[name] = {}
        try:
            call = functools.partial(cluster, importlib.import_module(name), points, centers)
            row[name]["equal_labels"] = (call() == right).double().mean().item()
        except Exception as error:  # somebody else's library may fail in any way
            missing = isinstance(error, ModuleNotFoundError) and error.name == name
            row[name]["missing"] = "not installed" if missing else first_line(error)
        else:
            calls[name] = call
    return calls
