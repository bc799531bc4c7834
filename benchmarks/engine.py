"""What the engine costs by pixels, batch and threads, in time and memory; and beside its rivals.

    python benchmarks/engine.py --batches 1 --sizes 512 --threads --rivals published --budget 3
    python benchmarks/engine.py --json benchmarks/results/engine-cpu.json

Every point of a sweep is measured in a process of its own (`_engine_point.py`), from a checkpoint
file to the result. Rivals share a process and take turns on the same pictures from the same first
centers, after each was compared with the published path.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import _engine_report
import _photographs
import _rivals
import torch
from _engine_point import N_ANCHORS
from _measure import Report, context, default_device, interleaved, save
from _validate import compare, compare_chroma
from timing import VALIDATED, random_centers
from torch import Tensor

from disco_fast.checkpoints import random_network, save_checkpoint
from disco_fast.engine import Engine
from disco_fast.engine.graphs import settled
from disco_fast.engine.precision import PRECISIONS, resolve
from disco_fast.model import DISCO, DISCOOutput

SIZE = 256  # of the sweeps over batches and threads
BATCHES = (1, 2, 4, 8, 16, 32, 64)
SIZES = (256, 384, 512, 768, 1024)
DEFAULT_PRECISIONS = {"cpu": ("fp32", "bf16"), "cuda": ("fp32", "bf16", "fp16")}
RIVALS = {
    "published": (_rivals.published, "fp32"),
    "compiled": (_rivals.compiled, "fp32"),
    "openvino_fp32": (_rivals.openvino("fp32"), "fp32"),
    "openvino_bf16": (_rivals.openvino("bf16"), "bf16"),
}
PICTURES = 20  # that rivals go round
POINT = Path(__file__).parent / "_engine_point.py"


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
    """Batches at 256x256, sizes of one picture, and both with as many threads as torch takes.

    Then other numbers of threads for one picture of 256x256, and on a CPU the smallest and the
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
        print(_engine_report.progress(vars(point) | found), flush=True)
        yield vars(point) | found


def pictures(a: argparse.Namespace, checkpoint: Path) -> Iterator[Report]:
    """Memory for one picture, in every precision."""
    for precision in a.precisions:
        settings = {"precision": precision, "size": SIZE, "keep_memory": False}
        yield settings | _apart("picture", a.device, checkpoint, threads=0, **settings)


def _apart(measure: str, device: torch.device, checkpoint: Path, **settings: object) -> Report:
    """Measure in a process of its own.

    Raises:
        RuntimeError: it failed.
    """
    settings |= {"measure": measure, "device": str(device), "checkpoint": str(checkpoint)}
    command = [sys.executable, str(POINT), json.dumps(settings)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{json.dumps(settings)} failed:\n{done.stderr}")
    return json.loads(done.stdout)


# ---- Rivals --------------------------------------------------------------------------------------


class Contest:
    """Rivals at one size, one picture at a time.

    Args:
        network: what they all run.
        size: side of the pictures.
        device: where to run.

    Attributes:
        left_out: why, by the name of those that cannot run here.
    """

    def __init__(self, network: DISCO, size: int, device: torch.device):
        self._network, self._size, self._device = network, size, device
        gray, self.inputs = _photographs.load(PICTURES, size)
        init = random_centers(PICTURES, (size // network.cell_size) ** 2)
        self._inputs = list(zip(gray.to(device).split(1), init.to(device).split(1), strict=True))
        self._expected = _joined(self._outputs(_rivals.published(network, size, device)))
        self._rivals: dict[str, _rivals.Forward] = {}
        self._rows: dict[str, Report] = {}
        self.left_out: dict[str, str] = {}

    def enter(
        self,
        name: str,
        build: _rivals.Build,
        precision: str,
        timed: _rivals.Forward | None = None,
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
        except _rivals.LeftOutError as error:
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

    def _outputs(self, rival: _rivals.Forward) -> list:
        with torch.inference_mode(), settled(self._device):  # rivals without TF32 too
            return [rival(*inputs) for inputs in self._inputs[:VALIDATED]]


def _joined(outputs: Sequence[DISCOOutput]) -> DISCOOutput:
    """The pictures of several outputs as one; what a network leaves out stays None."""
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
            own = _rivals.engine(fast)
            held.enter("disco_fast", lambda *_, own=own: own, precision, _rivals.chroma(fast))
        if a.official:
            held.enter("official", _rivals.official(a.official), "fp32")
        found["inputs"] = held.inputs
        found["rivals"] += held.times(a.repeats)
        found["left_out"] |= held.left_out
    return found


# ---- Command line --------------------------------------------------------------------------------


def measure(a: argparse.Namespace) -> Report:
    """Sweep, then hold the contests; the report's schema stands in README.md."""
    network = random_network()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "random.safetensors"
        save_checkpoint(network, checkpoint)
        report: Report = {
            "what": "engine",
            "context": context(a.device),
            "settings": {"anchors": N_ANCHORS, "budget_s": a.budget},
            "picture": list(pictures(a, checkpoint)),
            "points": list(sweep(a, checkpoint)),
        }
    return report | contests(a, network)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", type=torch.device, default=default_device())
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS[1:])
    parser.add_argument("--batches", nargs="*", type=int, default=BATCHES, help="at 256x256")
    parser.add_argument("--sizes", nargs="*", type=int, default=SIZES, help="of one picture")
    parser.add_argument("--threads", nargs="*", type=int, help="for one picture of 256x256")
    parser.add_argument("--budget", type=float, default=20, help="seconds for a point")
    parser.add_argument("--rivals", nargs="*", choices=RIVALS, default=list(RIVALS))
    parser.add_argument("--rival-sizes", nargs="*", type=int, default=[SIZE])
    parser.add_argument("--repeats", type=int, default=20, help="of each rival")
    parser.add_argument("--official", type=Path, metavar="FOLDER", help="one more rival")
    parser.add_argument("--json", type=Path, metavar="FILE")
    a = parser.parse_args(argv)
    if a.precisions is None:
        a.precisions = DEFAULT_PRECISIONS[a.device.type]
    if a.threads is None:
        a.threads = thread_counts(os.cpu_count() or 1) if a.device.type == "cpu" else []
    for size in (*a.sizes, *a.rival_sizes):
        if size < 48 or size % 16:
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
    report = measure(a)
    for table in (_engine_report.rivals, _engine_report.sweep):
        print("\n" + table([report]))
    if a.json:
        save(report, a.json)


if __name__ == "__main__":
    main()
