"""Everything to check on a GPU, by one command, in at most nine minutes.

    python benchmarks/gpu_check.py --out DIR
    python benchmarks/gpu_check.py --out DIR --device cpu  # tries the steps that need no GPU

Build, end to end, engine, profile, tests, kernels, sanitizers: every step is a program with a time
limit of its own, and what it found is saved before the next begins, so that one failing hides none
of the others. Unused time passes to later steps. Nothing is downloaded; the library is built in
place. DIR gets gpu-check.json, gpu-check.log and the reports of the benchmarks. The exit status is
1 where a step failed, 2 where there is no GPU.

This process imports neither torch nor disco_fast: a kernel that kills its CUDA context ends one
step only.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from harness.report import NONE, ROOT, Report, caption, digits, save, table

SCRIPT = Path(__file__).resolve()
PACKAGE = ROOT / "disco_fast"
PROBE_SECONDS = 40  # with the steps nine minutes
TAIL = 3000  # characters that are kept of what a failed step said
KERNELS = 15  # shown of a profile
TESTED = (
    *("every_op", "sp_ops", "kmeans", "color", "encoder", "bias_act", "associate", "convolve"),
    *("fused", "graphs", "cuda"),
)
OPS = {"superpixels": 30, "pixels": 45, "convolutions": 15, "color": 15}  # seconds
# One process, whatever the project's own options say, which a GPU's machine may not have.
PYTEST = ("-m", "pytest", "-o", "addopts=", "-q", "--tb=short", "-p", "no:cacheprovider", "-k")


@dataclass(frozen=True)
class Step:
    """Programs to run one after the other.

    Attributes:
        name: in the report.
        seconds: its share of the time.
        commands: the programs.
        file: a report that the last of them writes.
        variables: added to their environment.
    """

    name: str
    seconds: float
    commands: Sequence[Sequence[object]]
    file: Path | None = None
    variables: Mapping[str, str] = field(default_factory=dict)


def plan(device: str, out: Path, found: Report) -> list[Step]:
    """All steps, in order; on a CPU those that need no GPU, at small sizes.

    Args:
        device: "cuda" or "cpu".
        out: folder of the results.
        found: what `probe` says.
    """
    gpu = device == "cuda"
    small = [] if gpu else ["--size", "64"]

    def benchmark(name: str, seconds: float, script: str, *options: object) -> Step:
        file = out / f"{name.replace(' ', '-')}-{device}.json"
        command = [sys.executable, ROOT / "benchmarks" / script, "--device", device]
        return Step(name, seconds, [[*command, *options, "--json", file]], file)

    engine = "--precisions bf16 --batches 1 8 64 --sizes --threads --budget 3 --repeats 10"
    if not gpu:
        engine = "--precisions fp32 --batches --sizes 64 --threads --budget 0 --repeats 1"
    tests = [f"tests/test_{what}.py" for what in (TESTED if gpu else TESTED[:1])]
    pytest = [sys.executable, *PYTEST, device, "--continue-on-collection-errors", *tests]
    steps = [
        benchmark("timing", 45, "timing.py", "--images", 10 if gpu else 1, *small),
        benchmark(
            "engine", 70, "engine.py", *engine.split(), "--rivals", *(["published"] if gpu else [])
        ),
        benchmark("profile", 35, SCRIPT.name, "--stage", "profile", "--out", out),
        Step("tests", 75, [pytest], variables={"FAIL_WITHOUT_CUDA": "1"} if gpu else {}),
        *(
            benchmark(f"ops {family}", seconds, "ops.py", "--families", family, *small)
            for family, seconds in OPS.items()
        ),
    ]
    if not gpu:
        return steps
    return [_build(found), *steps, _sanitizer("memcheck"), _sanitizer("racecheck")]


def _build(found: Report) -> Step:
    folder = tempfile.mkdtemp(prefix="disco_fast-")
    ninja = program("ninja")
    configure = [
        *(program("cmake"), "-S", ROOT, "-B", folder),
        *(["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"] if shutil.which(ninja) else []),
        f"-DDISCO_FAST_TORCH_DIR={found['torch_folder']}",
        f"-DDISCO_FAST_CUDA_ARCHS={found['arch']}",
        "-DDISCO_FAST_CUDA=on",
    ]
    build = [program("cmake"), "--build", folder, "--parallel", os.cpu_count() or 1]
    return Step("build", 100, [configure, build], variables={"CUDACXX": program("nvcc")})


def _sanitizer(tool: str) -> Step:
    # torch asks its driver for functions that it may not have, which would count as errors.
    sanitizer = [program("compute-sanitizer"), "--tool", tool, "--error-exitcode", 1]
    sanitizer += ["--target-processes", "all", "--report-api-errors", "no"]
    command = [*sanitizer, sys.executable, *PYTEST, "cuda", f"tests/test_{TESTED[0]}.py"]
    # Every tensor an allocation of its own, so that reading past one is noticed.
    variables = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1", "FAIL_WITHOUT_CUDA": "1"}
    return Step(tool, 35, [command], variables=variables)


def program(name: str) -> str:
    """Where a program is: on PATH, beside this Python, or in the CUDA toolkit; else its name."""
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    folders = [Path(sys.executable).parent]
    folders += [Path(home) / sub for home in homes if home for sub in ("bin", "compute-sanitizer")]
    beside = shutil.which(name, path=os.pathsep.join(map(str, folders)))
    return shutil.which(name) or beside or name


# ---- Running -------------------------------------------------------------------------------------


def run_all(steps: Sequence[Step], out: Path, report: Report) -> bool:
    """Run the steps, each within its limit; returns whether all went well.

    Args:
        steps: what to run. After a failed build nothing else runs.
        out: gets `gpu-check.json` after every step, and `gpu-check.log`.
        report: gets the outcomes.
    """
    log = out / "gpu-check.log"
    log.write_text("")
    outcomes = report["steps"]
    end = time.monotonic()
    for step in steps:
        end += step.seconds
        if outcomes.get("build", {}).get("ok", True):
            print(f"{step.name}: at most {end - time.monotonic():.0f} s", flush=True)
            outcomes[step.name] = run(step, end - time.monotonic(), log)
        else:
            outcomes[step.name] = {"ok": False, "seconds": 0.0, "note": "not run: no build"}
        if step.name == "profile" and step.file and step.file.exists():
            report["profiles"] = json.loads(step.file.read_text())["profiles"]
        save(report, out / "gpu-check.json")
        print(f"{step.name}: {_verdict(outcomes[step.name])}", flush=True)
    return all(outcome["ok"] for outcome in outcomes.values())


def run(step: Step, limit: float, log: Path) -> Report:
    """The outcome of a step: whether it succeeded, its time, and the last that it said."""
    begin, output = time.monotonic(), ""
    status: int | None = 0
    if step.file:
        step.file.unlink(missing_ok=True)
    for command in step.commands:
        words = [str(word) for word in command]
        left = limit - (time.monotonic() - begin)
        status, said = _execute(words, max(left, 1), step.variables, log)
        output += said
        if status != 0:
            break
    seconds = round(time.monotonic() - begin, 1)
    last = (output.strip().splitlines() or [""])[-1]
    note = f"stopped after {limit:.0f} s: {last}" if status is None else last
    outcome: Report = {"ok": status == 0, "seconds": seconds, "note": note if status != 0 else ""}
    if status == 0 and step.file is None:
        outcome["note"] = last  # of pytest or a sanitizer: a summary
    return outcome if status == 0 else outcome | {"tail": output[-TAIL:]}


def _execute(
    words: Sequence[str], limit: float, variables: Mapping[str, str], log: Path
) -> tuple[int | None, str]:
    """Status of a program, None if it was stopped with its children, and what it printed."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1", **variables}
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    with log.open("a+", errors="replace") as file:
        file.write(f"$ {shlex.join(words)}\n")
        file.flush()
        begin, status = file.tell(), None
        try:
            process = subprocess.Popen(
                words,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            return 127, f"{words[0]}: {error.strerror}"
        with suppress(subprocess.TimeoutExpired):
            status = process.wait(limit)
        if status is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        file.seek(begin)
        return status, file.read()


# ---- Stages: processes of their own that import torch --------------------------------------------


def probe() -> Report:
    """What the steps need to know of torch and the GPU, asked in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        file, log = Path(folder, "probe.json"), Path(folder, "log")
        command = [sys.executable, SCRIPT, "--stage", "probe", "--json", file, "--out", folder]
        outcome = run(Step("probe", PROBE_SECONDS, [command], file), PROBE_SECONDS, log)
        if not outcome["ok"]:
            return {"gpu": False, "why": outcome["note"]}
        return json.loads(file.read_text())


def _probe(device: str) -> Report:
    import torch
    from harness.clock import context

    gpu = torch.cuda.is_available()
    here = torch.device("cuda" if gpu else "cpu")
    capability = torch.cuda.get_device_capability() if gpu else ()
    return {
        "gpu": gpu,
        "why": f"torch {torch.__version__} sees none",
        "torch_folder": torch.__path__[0],
        "arch": "".join(map(str, capability)),
        "context": context(here),
    }


def _profile(device: str) -> Report:
    """Whether the engine replays CUDA graphs, and the kernels of a replay, at two batch sizes."""
    import torch
    from harness import N_ANCHORS, SIZE
    from harness.clock import context, synchronize
    from harness.inputs import photographs
    from torch.profiler import ProfilerActivity, profile

    from disco_fast.checkpoints import random_network
    from disco_fast.engine import Engine

    gpu, here = device == "cuda", torch.device(device)
    activity = ProfilerActivity.CUDA if gpu else ProfilerActivity.CPU
    kind = "device" if gpu else "cpu"
    fast, found = Engine(random_network(), "auto", here), []
    for batch, size in ((1, SIZE), (64, SIZE)) if gpu else ((1, 64),):
        gray = photographs(batch, size)[0].to(here)
        for _ in range(3):  # the first may be the only one, the second captures
            fast.chroma(gray, N_ANCHORS)
        with profile(activities=[activity]) as profiled:
            fast.chroma(gray, N_ANCHORS)
            synchronize(here)
        totals = [
            {"name": e.key, "count": e.count, "us": getattr(e, f"self_{kind}_time_total")}
            for e in profiled.key_averages()
        ]
        kernels = sorted((t for t in totals if t["us"] > 0), key=lambda t: -t["us"])
        launching = {"precision": fast.precision, "launching": fast.launching}
        found.append({"batch": batch, **launching, "kernels": kernels})
    return {"what": "profile", "context": context(here), "profiles": found}


STAGES = {"probe": _probe, "profile": _profile}


# ---- Table ---------------------------------------------------------------------------------------


def gpu_table(reports: Sequence[Report]) -> str:
    """The steps, how the engine launches, and the profiles."""
    parts = []
    for report in reports:
        rows = [
            [name, "ok" if step["ok"] else "failed", f"{step['seconds']:.0f}", step["note"] or NONE]
            for name, step in report.get("steps", {}).items()
        ]
        parts += [table(["step", "", "s", ""], rows)] if rows else []
        parts.append(caption(report))
        for found in report["profiles"]:
            parts += [_launching(found), _kernels(found["kernels"])]
    return "\n\n".join(parts)


TABLES = {"gpu": gpu_table}


def _launching(found: Report) -> str:
    total = sum(kernel["us"] for kernel in found["kernels"])
    return (
        f"Batch {found['batch']}, {found['precision']}: the engine runs {found['launching']}. "
        f"Kernels take {digits(total / 1e3)} ms in {sum(k['count'] for k in found['kernels'])} "
        "launches."
    )


def _kernels(kernels: Sequence[Report]) -> str:
    rows = [[f"`{k['name'][:80]}`", str(k["count"]), digits(k["us"])] for k in kernels[:KERNELS]]
    return table(["kernel", "count", "total, us"], rows)


def _verdict(outcome: Report) -> str:
    said = f"{'ok' if outcome['ok'] else 'FAILED'} in {outcome['seconds']:.0f} s"
    return "\n".join(filter(None, (f"{said} {outcome['note']}", outcome.get("tail"))))


# ---- Command line --------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--only", nargs="+", metavar="STEP", help="some of the steps, by name")
    parser.add_argument("--commit", help="of this code, where git cannot say")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help=argparse.SUPPRESS)
    a = parser.parse_args(argv)
    if a.stage:
        save(STAGES[a.stage](a.device), a.json)
        return 0
    if a.commit:
        os.environ["DISCO_FAST_COMMIT"] = a.commit
    found = probe()
    if a.device == "cuda" and not found["gpu"]:
        print(f"gpu_check: no CUDA GPU here: {found['why']}", file=sys.stderr)
        return 2
    out = a.out.resolve()
    steps = plan(a.device, out, found)
    if unknown := set(a.only or ()) - {step.name for step in steps}:
        parser.error(f"--only: unknown {', '.join(unknown)}")
    out.mkdir(parents=True, exist_ok=True)
    report: Report = {
        "what": "gpu",
        "context": found["context"],
        "settings": {"device": a.device},
        "steps": {},
        "profiles": [],
    }
    wanted = [step for step in steps if step.name in (a.only or step.name)]
    well = run_all(wanted, out, report)
    print("\n" + gpu_table([report]))
    return int(not well)


if __name__ == "__main__":
    raise SystemExit(main())
