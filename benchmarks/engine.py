"""What the engine costs by pixels, batch and threads, in time and memory; and beside its rivals.

    python benchmarks/engine.py --batches 1 --sizes 512 --threads --rivals published --budget 3
    python benchmarks/engine.py --json benchmarks/results/engine-cpu.json

Every point of a sweep is measured in a process of its own, so that its peak memory is its own, from
a checkpoint file to the result. Rivals share a process and take turns on the same images from the
same first centers, after each was compared with the published path.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from harness import N_ANCHORS, SIZE, baselines
from harness.baselines import RIVALS, VALIDATED, Build, Forward, compare, compare_chroma
from harness.clock import context, default_device, interleaved, seconds, summary
from harness.inputs import is_size, know_ranges, photographs, random_centers, runs_here
from harness.plots import NAMES, one_image
from harness.report import NONE, Report, digits, heading, machine, milliseconds, ratio, save
from harness.report import table as markdown
from torch import Tensor

import disco_fast
from disco_fast import Colorizer
from disco_fast.checkpoints import load_checkpoint, random_network, save_checkpoint
from disco_fast.engine import Engine
from disco_fast.engine.graphs import settled
from disco_fast.engine.precision import PRECISIONS, resolve
from disco_fast.model import DISCO, DISCOOutput

BATCHES = (1, 2, 4, 8, 16, 32, 64)
SIZES = (256, 384, 512, 768, 1024)
DEFAULT_PRECISIONS = {"cpu": ("fp32", "bf16", "int8"), "cuda": ("fp32", "bf16", "fp16")}
IMAGES = 20  # that rivals go round
MOST_RUNS = 50  # of a point
FEW = 3  # runs; a time of fewer says how many
STATUS = Path("/proc/self/status")


# ---- Sweeps --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Point:
    """Where the engine is measured; on a GPU `threads` is 0.

    `keep_memory`: whether the process does (`disco_fast.keep_memory`), as the command line does.
    """

    precision: str
    batch: int
    size: int
    threads: int
    keep_memory: bool = True


def points(a: argparse.Namespace) -> list[Point]:
    """Batches at 256x256, sizes of one image, and both with as many threads as torch takes.

    Then other numbers of threads for one image of 256x256, and on a CPU the smallest and the
    largest size in a process that hands its memory back.
    """
    threads = torch.get_num_threads() if a.device.type == "cpu" else 0
    found = []
    for precision in a.precisions:
        found += [Point(precision, batch, SIZE, threads) for batch in a.batches]
        found += [Point(precision, 1, size, threads) for size in a.sizes]
        found += [Point(precision, 1, SIZE, count) for count in a.threads]
        if threads and a.sizes:
            ends = min(a.sizes), max(a.sizes)
            found += [Point(precision, 1, size, threads, keep_memory=False) for size in ends]
    return list(dict.fromkeys(found))


def thread_counts(cores: int) -> list[int]:
    """1, 2, 4 ... and as many as there are cores."""
    powers = itertools.takewhile(lambda n: n < cores, (2**i for i in itertools.count()))
    return [*powers, cores]


def sweep(a: argparse.Namespace, checkpoint: Path) -> Iterator[Report]:
    """A report of every point."""
    for point in points(a):
        found = _apart("sweep", a.device, checkpoint, budget=a.budget, **vars(point))
        print(progress(vars(point) | found), flush=True)
        yield vars(point) | found


def memory(a: argparse.Namespace, checkpoint: Path) -> Iterator[Report]:
    """Memory for one image, in every precision."""
    for precision in a.precisions:
        settings = {"precision": precision, "size": SIZE, "keep_memory": False}
        yield settings | _apart("memory", a.device, checkpoint, threads=0, **settings)


def _apart(measure: str, device: torch.device, checkpoint: Path, **settings: object) -> Report:
    """Measure in a process of its own.

    Raises:
        RuntimeError: it failed.
    """
    settings |= {"measure": measure, "device": str(device), "checkpoint": str(checkpoint)}
    command = [sys.executable, __file__, "--point", json.dumps(settings)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{json.dumps(settings)} failed:\n{done.stderr}")
    return json.loads(done.stdout)


# ---- One point, in a process of its own ----------------------------------------------------------


class PeakMemory:
    """The most memory that the process takes from here on, beyond what it holds now.

    Of the GPU, what torch has allocated on it; else resident memory. Not `ru_maxrss`, in which a
    process on Linux inherits the peak of the one that started it.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self._before = None if device.type == "cuda" else _resident("VmRSS")

    def megabytes(self) -> float | None:
        """In 10^6 bytes; None where the system does not tell."""
        if self._device.type == "cuda":
            return round(torch.cuda.max_memory_allocated(self._device) / 1e6, 1)
        peak = _resident("VmHWM")
        return None if peak is None or self._before is None else round(peak - self._before, 1)


def _resident(entry: str) -> float | None:
    """An entry of Linux's table of a process, in 10^6 bytes."""
    if not STATUS.is_file():
        return None
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return int(lines[entry].removesuffix("kB")) * 1024 / 1e6


def _sweep_point(
    checkpoint: str, device: torch.device, precision: str, batch: int, size: int, budget: float
) -> Report:
    """Time of an image and peak memory of the engine, at one batch and size.

    Args:
        checkpoint: file of the network.
        device: where to run.
        precision: of the engine.
        batch: images in a pass.
        size: their side in pixels.
        budget: seconds after which no further pass is begun; there is one of warm-up and one timed
            whatever they take.
    """
    memory = PeakMemory(device)
    engine = Engine(load_checkpoint(checkpoint), precision, device)
    gray = photographs(batch, size)[0].to(device)
    # Prepares kernels and memory for this shape, up to three times as slow; a GPU's graph is
    # captured in the second pass and replayed from the third on.
    for _ in range(1 if device.type == "cpu" else 3):
        _pass(engine, gray)
    times = [_pass(engine, gray)]
    while sum(times) < budget and len(times) < MOST_RUNS:
        times.append(_pass(engine, gray))
    return {
        "time": summary(time / batch for time in times),
        "peak_memory_mb": memory.megabytes(),
    }


def _pass(engine: Engine, gray: torch.Tensor) -> float:
    return seconds(lambda: engine.chroma(gray, N_ANCHORS), engine.device)


def _memory_point(checkpoint: str, device: torch.device, precision: str, size: int) -> Report:
    """Peak memory of what a user does: a checkpoint file, a `Colorizer`, one image."""
    memory = PeakMemory(device)
    colorizer = Colorizer(checkpoint, device, precision)
    gray = photographs(1, size)[0]
    colorizer.colorize((gray + 1) / 2, n_anchors=N_ANCHORS)
    return {"peak_memory_mb": memory.megabytes()}


MEASUREMENTS: dict[str, Callable[..., Report]] = {"sweep": _sweep_point, "memory": _memory_point}


def measure_point(settings: Report) -> Report:
    """One measurement in this process, as `_apart` asks for it."""
    kind = MEASUREMENTS[settings.pop("measure")]
    if settings.pop("keep_memory"):
        disco_fast.keep_memory()
    if threads := settings.pop("threads"):
        torch.set_num_threads(threads)
    return kind(device=torch.device(settings.pop("device")), **settings)


# ---- Rivals --------------------------------------------------------------------------------------


class Contest:
    """Rivals at one size, one image at a time.

    Args:
        network: what they all run.
        size: side of the images.
        device: where to run.

    Attributes:
        left_out: why, by the name of those that cannot run here.
    """

    def __init__(self, network: DISCO, size: int, device: torch.device):
        self._network, self._size, self._device = network, size, device
        gray, self.inputs = photographs(IMAGES, size)
        init = random_centers(IMAGES, (size // network.cell_size) ** 2)
        self._inputs = list(zip(gray.to(device).split(1), init.to(device).split(1), strict=True))
        self._expected = _joined(self._outputs(baselines.published(network, size, device)))
        self._rivals: dict[str, Forward] = {}
        self._rows: dict[str, Report] = {}
        self.left_out: dict[str, str] = {}

    def enter(
        self,
        name: str,
        build: Build,
        precision: str,
        timed: Forward | None = None,
    ) -> None:
        """Build a rival and compare it with the published path.

        Args:
            name: of its rows.
            build: what is compared.
            precision: of its convolutions.
            timed: what is timed, if something else.

        Raises:
            ValidationError: it computes something else.
        """
        try:
            rival = build(self._network, self._size, self._device)
        except baselines.LeftOutError as error:
            self.left_out[name] = str(error)
            print(f"{name} is left out: {error}", flush=True)
            return
        got = self._outputs(rival)
        validation: Report
        if isinstance(got[0], Tensor):
            validation = compare_chroma(self._expected.ab, torch.cat(got))
        else:
            validation = compare(self._expected, _joined(got), precision)
        key = f"{name} {precision}"
        print(f"{key}: ab / 110 differs by at most {validation['ab']:.2g}", flush=True)
        self._rivals[key] = timed or rival
        self._rows[key] = {
            "name": name,
            "precision": precision,
            "size": self._size,
            "validation": validation,
        }

    def times(self, repeats: int) -> list[Report]:
        """Every rival's row with its time."""
        turns = {name: itertools.cycle(self._inputs) for name in self._rivals}

        def run(name: str) -> object:
            return self._rivals[name](*next(turns[name]))

        calls = {name: (lambda name=name: run(name)) for name in self._rivals}
        with torch.inference_mode():
            times = interleaved(calls, repeats, self._device)
        return [row | {"time": times[name]} for name, row in self._rows.items()]

    def _outputs(self, rival: Forward) -> list:
        with torch.inference_mode(), settled(self._device):  # rivals without TF32 too
            return [rival(*inputs) for inputs in self._inputs[:VALIDATED]]


def _joined(outputs: Sequence[DISCOOutput]) -> DISCOOutput:
    """The images of several outputs as one; what a network leaves out stays None."""
    columns = {f.name: [getattr(out, f.name) for out in outputs] for f in fields(DISCOOutput)}
    joined: dict[str, Any] = {
        name: None if parts[0] is None else torch.cat(parts) for name, parts in columns.items()
    }
    return DISCOOutput(**joined)


def contests(a: argparse.Namespace, network: DISCO) -> Report:
    """All rivals at all sizes. The official code comes last, for it changes torch."""
    found: Report = {"rivals": [], "left_out": {}}
    for size in a.rival_sizes:
        held = Contest(network, size, a.device)
        for name in a.rivals:
            held.enter(name, *RIVALS[name])
        for precision in a.precisions:
            fast = Engine(network, precision, a.device)
            own = baselines.engine(fast)
            held.enter("disco_fast", lambda *_, own=own: own, precision, baselines.chroma(fast))
        if a.official:
            held.enter("official", baselines.official(a.official), "fp32")
        found["inputs"] = held.inputs
        found["rivals"] += held.times(a.repeats)
        found["left_out"] |= held.left_out
    return found


def measure(a: argparse.Namespace) -> Report:
    """Sweep, then hold the contests."""
    network = random_network()
    if "int8" in a.precisions:
        know_ranges(network)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "random.safetensors"
        save_checkpoint(network, checkpoint)
        report: Report = {
            "what": "engine",
            "context": context(a.device),
            "settings": {"anchors": N_ANCHORS, "budget_s": a.budget},
            "picture": list(memory(a, checkpoint)),
            "points": list(sweep(a, checkpoint)),
        }
    return report | contests(a, network)


# ---- Tables --------------------------------------------------------------------------------------


def rivals(reports: Sequence[Report]) -> str:
    """Every rival's time and how many times faster each precision of the engine is."""
    parts = []
    for report in filter(lambda report: report["rivals"], reports):
        parts += heading(report, reports)
        for size in dict.fromkeys(row["size"] for row in report["rivals"]):
            parts.append(_rival_table([r for r in report["rivals"] if r["size"] == size], size))
        if sentence := _left_out(report):
            parts.append(sentence)
    return "\n\n".join(parts)


def _rival_table(rows: Sequence[Report], size: int) -> str:
    ours = [row for row in rows if row["name"] == "disco_fast"]
    header = [f"{size}x{size}, one image", "largest difference of ab / 110", "ms"]
    header += [f"speedup of disco_fast {row['precision']}" for row in ours]
    cells = [
        [
            f"{NAMES[row['name']]} {row['precision']}",
            NONE if row["name"] == "published" else f"{row['validation']['ab']:.1e}",
            milliseconds(row["time"]),
            *(NONE if own is row else ratio(row["time"], own["time"]) for own in ours),
        ]
        for row in rows
    ]
    return markdown(header, cells)


def _left_out(report: Report) -> str:
    reasons = [f"{NAMES[name]} ({why})" for name, why in report["left_out"].items()]
    return f"Not measured: {', '.join(dict.fromkeys(reasons))}." if reasons else ""


def sweeps(reports: Sequence[Report]) -> str:
    """Time, rate and memory at every point, the precisions side by side."""
    parts = []
    for report in reports:
        precisions = list(dict.fromkeys(point["precision"] for point in report["points"]))
        header = ["images in a batch"]
        for precision in precisions:
            header += [f"{precision}, ms per image", "images/s", "peak memory, MB"]
        places = dict.fromkeys(map(_place, report["points"]))
        by_place = {(_place(point), point["precision"]): point for point in report["points"]}
        cells = []
        for place in places:
            found = [by_place.get((place, precision)) for precision in precisions]
            cells.append([_where(place, report), *(cell for p in found for cell in _costs(p))])
        sentences = filter(None, (_scaling(report), _memory(report)))
        parts += [*heading(report, reports), markdown(header, cells), " ".join(sentences)]
    return "\n\n".join(filter(None, parts))


def gpu_sentence(reports: Sequence[Report]) -> str:
    """One image and a full batch on the last GPU that was measured, in a sentence."""
    measured = [report for report in reports if report["context"]["device_type"] != "cpu"]
    if not measured:
        return "GPU: not measured yet."
    points = measured[-1]["points"]
    one = next(point for point in points if point["batch"] == 1)
    full = max(points, key=lambda point: point["batch"])
    slow = next(row for row in measured[-1]["rivals"] if row["name"] == "published")
    return (
        f"*On an {machine(measured[-1])}, an image takes {digits(one['time']['median'])} ms in"
        f" {one['precision']}, and one of a batch of {full['batch']} takes"
        f" {digits(full['time']['median'])} ms. The published path takes"
        f" {digits(slow['time']['median'])} ms.*"
    )


TABLES = {"engine_rivals": rivals, "engine_sweep": sweeps, "gpu_sentence": gpu_sentence}


def progress(point: Report) -> str:
    """A point in a line."""
    time, rate, memory = _costs(point)
    return (
        f"{point['precision']} {point['batch']} x {point['size']}x{point['size']}, "
        f"{point['threads']} threads: {time} ms per image, {rate} images/s, {memory} MB"
    )


def _place(point: Report) -> tuple[int, int, int, bool]:
    return point["batch"], point["size"], point["threads"], point["keep_memory"]


def _where(place: tuple[int, int, int, bool], report: Report) -> str:
    batch, size, threads, kept = place
    usual = threads in (0, report["context"]["threads"])
    count = "" if usual else f", {threads} thread{'s' * (threads > 1)}"
    back = "" if kept else ", memory handed back"
    return f"{batch} of {size}x{size}{count}{back}"


def _costs(point: Report | None) -> list[str]:
    if point is None:
        return [NONE] * 3
    time, memory = point["time"], point["peak_memory_mb"]
    runs = f"{time['runs']} run{'s' * (time['runs'] > 1)}"
    shown = f"{digits(time['median'])}, {runs}" if time["runs"] < FEW else milliseconds(time)
    return [shown, digits(1e3 / time["median"]), NONE if memory is None else f"{memory:.0f}"]


def _scaling(report: Report) -> str:
    """The cost of a pixel at the largest size, relative to a pixel at 256x256."""
    medians = {(p["precision"], p["size"]): p["time"]["median"] for p in one_image(report)}
    large = max((size for _, size in medians), default=SIZE)
    found = [
        f"{digits(medians[precision, large] / median / (large / SIZE) ** 2)} ({precision})"
        for (precision, size), median in medians.items()
        if size == SIZE and (precision, large) in medians
    ]
    if large == SIZE or not found:
        return ""
    return f"Cost of a pixel at {large}x{large} relative to {SIZE}x{SIZE}: {', '.join(found)}."


def _memory(report: Report) -> str:
    """Peak memory for an image from a checkpoint file."""
    on_gpu = report["context"]["device_type"] == "cuda"
    where = "on the GPU" if on_gpu else "above what the imports take"
    found = [
        f"{row['peak_memory_mb']:.0f} MB ({row['precision']})"
        for row in report["picture"]
        if row["peak_memory_mb"] is not None
    ]
    what = f"Peak memory of a `Colorizer` for one {SIZE}x{SIZE} image, {where}"
    return f"{what}: {', '.join(found)}." if found else ""


# ---- Command line --------------------------------------------------------------------------------


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", type=torch.device, default=default_device())
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS[1:])
    parser.add_argument("--batches", nargs="*", type=int, default=BATCHES, help="at 256x256")
    parser.add_argument("--sizes", nargs="*", type=int, default=SIZES, help="of one image")
    parser.add_argument("--threads", nargs="*", type=int, help="for one image of 256x256")
    parser.add_argument("--budget", type=float, default=20, help="seconds for a point")
    parser.add_argument("--rivals", nargs="*", choices=RIVALS, default=list(RIVALS))
    parser.add_argument("--rival-sizes", nargs="*", type=int, default=[SIZE])
    parser.add_argument("--repeats", type=int, default=20, help="of each rival")
    parser.add_argument("--official", type=Path, metavar="FOLDER", help="one more rival")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--point", type=json.loads, help=argparse.SUPPRESS)
    a = parser.parse_args(argv)
    if a.precisions is None:
        a.precisions = list(filter(runs_here, DEFAULT_PRECISIONS[a.device.type]))
    if a.threads is None:
        a.threads = thread_counts(os.cpu_count() or 1) if a.device.type == "cpu" else []
    for size in (*a.sizes, *a.rival_sizes):
        if not is_size(size):
            parser.error(f"sizes: expected multiples of 16, at least 48, got {size}")
    for name in ("batches", "threads"):
        if wrong := [count for count in getattr(a, name) if count < 1]:
            parser.error(f"--{name}: expected numbers from 1, got {wrong[0]}")
    for precision in a.precisions:
        try:
            resolve(precision, a.device)
        except ValueError as error:
            parser.error(f"--precisions: {error}")
    return a


def main(argv: Sequence[str] | None = None) -> None:
    a = arguments(argv)
    if a.point:
        print(json.dumps(measure_point(a.point)))
        return
    report = measure(a)
    for table in TABLES.values():
        print("\n" + table([report]))
    if a.json:
        save(report, a.json)


if __name__ == "__main__":
    main()
