"""All there is to check on a GPU, by one command: build, tests, sanitizers, times, bars.

    python benchmarks/gpu_check.py --out DIR
    python benchmarks/gpu_check.py --out DIR --device cpu --quick  # tries the measuring anywhere

It takes 9 minutes at most, downloads nothing, and builds the library in place. DIR gets
gpu-check.json, gpu-check.log, timing-cuda.json and engine-cuda.json; tables are printed last. A
step that fails stops no other that can still run; the exit status is 1 then, and 2 where there is
no GPU. A bar that is not met is a finding, not a failure.

This process imports neither torch nor disco_fast. Each step has processes of its own, so the
library that it loads is the one just built, and a kernel that kills its CUDA context ends one
process only.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import _gpu_records
import _gpu_report
from _gpu_process import HARD, ROOT, TAIL, Done, Runner, environment, has_package, missing, program
from _gpu_report import Report

SCRIPT = Path(__file__).resolve()
PACKAGE = ROOT / "disco_fast"
TOTAL = 530.0  # seconds of everything
# Of each step: the most seconds it may take, and those that earlier steps leave to it.
LIMITS = {
    "build": (150, 60),
    "tests": (150, 30),
    "memcheck": (50, 15),
    "racecheck": (60, 15),
    "measure": (220, 120),
    "end to end": (60, 25),
    "engine": (150, 75),
}
JOBS = ("context", "ceilings", "determinism")  # of the measuring process, before the rows
TESTED = ("sp_ops", "kmeans", "color", "encoder", "graphs", "cuda")
TESTS = tuple(f"tests/test_{what}.py" for what in TESTED)
IMAGES = 10  # of the end-to-end run
ENGINE = "--precisions bf16 --batches 1 8 64 --sizes --rivals published --repeats 10 --budget 3"
RESTARTS = 6  # of the measuring process, after which nothing is captured any more
START_AGAIN = 3  # its exit status when it asks for one
LAST_ROW = 10  # seconds that a row may take longer than planned
SHOWN = 15  # lines of the output of a step that failed
UNKNOWN = "unknown"

Step = Callable[[float], Report]


class Check:
    """The steps, one after the other, and the report that they fill.

    Args:
        out: folder of the results.
        device: "cuda", or "cpu" to try the measuring.
        quick: small sizes.
        found: what `probe` says.
        commit: of this code, where git cannot say.
    """

    def __init__(self, out: Path, device: str, quick: bool, found: Report, commit: str = ""):
        out.mkdir(parents=True, exist_ok=True)
        self._out, self._device, self._quick = out.resolve(), device, quick
        self._found, self._commit = found, commit
        self._runner = Runner(out / "gpu-check.log", checkout=device == "cuda")
        self.report: Report = {
            "what": "gpu",
            "context": {},
            "settings": {"device": device, "quick": quick, "size": 0, "sizes": {}},
            "missing": missing() if device == "cuda" else [],
            "steps": {},
            "ceilings": {},
            "determinism": {},
            "rows": [],
            "bars": [],
        }

    def run(self) -> int:
        """Run what can be run; returns the exit status."""
        steps: dict[str, Step] = {"measure": self._measure}
        if self._device == "cuda":
            steps = {
                "build": self._build,
                "tests": self._tests,
                "memcheck": self._sanitizer("memcheck"),
                "racecheck": self._sanitizer("racecheck"),
                "measure": self._measure,
                "end to end": self._end_to_end,
                "engine": self._engine,
            }
        for name, step in steps.items():
            self._step(name, step)
            self._save()
        print("\n" + _gpu_report.text(self.report), flush=True)
        return int(any(step["ok"] is False for step in self.report["steps"].values()))

    def _step(self, name: str, step: Step) -> None:
        """Run one step, whatever happens in it."""
        limit = self._limit(name)
        self._runner.say(f"{name}: at most {limit:.0f} s")
        begin = time.monotonic()
        try:
            result = step(limit)
        except Exception as error:  # the steps that follow still have something to say
            result = self._failure(str(error), time.monotonic() - begin)
            result["tail"] = traceback.format_exc()[-TAIL:]
        if result:  # measuring reports as several steps
            self.report["steps"][name] = result
        said = _gpu_report.verdict(result["ok"]) if result else "done"
        self._runner.say(f"{name}: {said} {result.get('note', '')}")
        for line in result.get("tail", "").splitlines()[-SHOWN:]:
            print(f"    {line}")

    def _limit(self, name: str) -> float:
        """Seconds for a step: its own limit, less what later steps must have."""
        names = list(LIMITS)
        later = names[names.index(name) + 1 :] if self._device == "cuda" else []
        left = TOTAL - self._runner.elapsed() - sum(LIMITS[step][1] for step in later)
        return max(min(LIMITS[name][0], left), 1)

    def _save(self) -> None:
        """Write the report as far as it is known."""
        report = self.report
        report["rows"] = [_gpu_report.derive(row, report["ceilings"]) for row in report["rows"]]
        report["bars"] = _gpu_report.bars(report) if report["settings"]["sizes"] else []
        write(report, self._out / "gpu-check.json")

    def _sign(self, context: Report) -> None:
        """Name the commit where git could not."""
        if self._commit and context.get("commit", UNKNOWN) == UNKNOWN:
            context["commit"] = self._commit

    @staticmethod
    def _failure(note: str, seconds: float = 0.0) -> Report:
        return {"ok": False, "seconds": round(seconds, 1), "note": note}

    def _refusal(self, *packages: str) -> Report | None:
        """The outcome of a step that cannot run; None if it can."""
        lacking = [name for name in packages if not has_package(name)]
        if lacking:
            return self._failure(f"not run: {', '.join(lacking)} missing")
        built = self.report["steps"].get("build", {"ok": True})["ok"]
        return None if built else self._failure("not run: the build failed")

    # -- Build --

    def _build(self, limit: float) -> Report:
        cmake = program("cmake")
        if cmake is None:
            return self._failure("cmake is missing")
        for stale in PACKAGE.glob("libdisco_fast_cuda.*"):
            stale.unlink()  # it must not be taken for what is built now
        with tempfile.TemporaryDirectory() as folder:
            configured = self._runner.run(self._configuration(cmake, folder), limit)
            if configured.status != 0:
                return configured.step("configuring failed")
            command = [cmake, "--build", folder, "--parallel", os.cpu_count() or 1]
            built = self._runner.run(command, limit - configured.seconds)
        return Done(built.status, configured.seconds + built.seconds, built.output).step()

    def _configuration(self, cmake: str, folder: str) -> list[object]:
        ninja = program("ninja")
        return [
            cmake,
            *(["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"] if ninja else []),
            *("-S", ROOT, "-B", folder),
            f"-DDISCO_FAST_TORCH_DIR={self._found['torch_folder']}",
            "-DDISCO_FAST_CUDA=on",
            f"-DDISCO_FAST_CUDA_ARCHS={self._found['arch']}",
        ]

    # -- Tests and sanitizers --

    def _tests(self, limit: float) -> Report:
        refused = self._refusal("pytest", *HARD)
        if refused:
            return refused
        property_tests = has_package("hypothesis")
        files = TESTS if property_tests else TESTS[1:]
        command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider"]
        done = self._runner.run([*command, "-k", "cuda", *files], limit, {"FAIL_WITHOUT_CUDA": "1"})
        counts = counts_of_tests(done.output)
        said = [f"{count} {word}" for word, count in counts.items()]
        said += [] if counts.get("passed") else ["no test passed on the GPU"]
        said += [] if property_tests else [f"without {TESTS[0]}: hypothesis missing"]
        step = done.step(", ".join(said)) | {"counts": counts}
        return step if counts.get("passed") else step | {"ok": False}

    def _sanitizer(self, tool: str) -> Step:
        def step(limit: float) -> Report:
            sanitizer = program("compute-sanitizer")
            if sanitizer is None:
                return self._failure("compute-sanitizer is missing") | {"ok": None}
            refused = self._refusal(*HARD)
            if refused:
                return refused
            # torch asks its driver for functions that it may not have, which would count as errors.
            command = [sanitizer, "--tool", tool, "--error-exitcode", "1"]
            command += ["--target-processes", "all", "--report-api-errors", "no"]
            command += [sys.executable, str(SCRIPT), "--stage", "exercise"]
            # Every tensor an allocation of its own, so that reading past one is noticed.
            done = self._runner.run(command, limit, {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"})
            return sanitized(done)

        return step

    # -- Measuring --

    def _measure(self, limit: float) -> Report:
        """Ceilings, determinism and kernels."""
        with tempfile.TemporaryDirectory() as folder:
            records = Path(folder) / "records.jsonl"
            last = self._run_jobs(records, limit)
            self._take(_gpu_records.read(records), last)
        return {}

    def _run_jobs(self, records: Path, limit: float) -> Done:
        """Run the measuring process, again after each death, until its jobs are done."""
        end = time.time() + limit
        for start in range(2 * RESTARTS):
            known = _gpu_records.read(records)
            command = [sys.executable, str(SCRIPT), "--stage", "measure", "--device", self._device]
            command += ["--records", str(records), "--until", str(end - LAST_ROW)]
            command += ["--quick"] if self._quick else []
            for name in ["all"] if start >= RESTARTS else _gpu_records.uncapturable(known):
                command += ["--wall-only", name]
            done = self._runner.run(command, end - time.time(), echo=True)
            if done.status == 0 or time.time() > end - 2 * LAST_ROW:
                break
            buried = _gpu_records.bury(records, done.last_words())
            if not buried and done.status != START_AGAIN:
                break  # it did not even begin
        return done

    def _take(self, records: list[Report], last: Done) -> None:
        """Put the records into the report, and into its steps."""
        report, steps = self.report, self.report["steps"]
        finished = _gpu_records.finished(records)
        plan = _gpu_records.planned(records)
        report["settings"] |= {"sizes": plan["sizes"], "size": plan["sizes"].get("side", 0)}
        jobs = {record["job"]: record for record in finished if record["job"] in JOBS}
        for name in JOBS:
            job = jobs.get(name, _gpu_records.outcome(name, 0.0, {"error": last.last_words()}))
            report[name] = job["result"]
            steps[name] = {"ok": "error" not in job["result"], "seconds": job["seconds"]}
            steps[name]["note"] = job["result"].get("error", "")
        report["context"]["command"] = said_command()
        self._sign(report["context"])
        found = {key: report["determinism"].get(key) for key in ("two_runs", "alone")}
        if not all(found.values()):
            steps["determinism"] |= {"ok": False, "note": f"the same bits: {found}"}
        rows = [record for record in finished if record["job"] not in JOBS]
        report["rows"] = [record["result"] for record in rows]
        seconds = round(sum(record["seconds"] for record in rows), 1)
        steps["kernels"] = kernels_step(report["rows"], plan["plan"] - len(JOBS), seconds, last)

    # -- The whole network --

    def _end_to_end(self, limit: float) -> Report:
        step, timing = self._benchmark("timing", ["--images", IMAGES], limit)
        if timing:
            published = timing["published"]
            self.report["end_to_end"] = {
                "published": published["total"],
                "disco_fast": timing["disco_fast"]["total"],
                "precision": timing["settings"]["precision"],
                "published_flop": 2 * sum(published["multiply_accumulates"].values()),
            }
        return step

    def _engine(self, limit: float) -> Report:
        step, costs = self._benchmark("engine", ENGINE.split(), limit)
        if costs:
            self.report["engine"] = costs["points"]
        return step

    def _benchmark(self, name: str, options: Sequence[object], limit: float) -> tuple[Report, Any]:
        """Run another benchmark; its outcome and what it wrote, None if it failed."""
        refused = self._refusal(*HARD)
        if refused:
            return refused, None
        file = self._out / f"{name}-cuda.json"
        file.unlink(missing_ok=True)
        command = [sys.executable, ROOT / "benchmarks" / f"{name}.py", "--device", "cuda"]
        done = self._runner.run([*command, *options, "--json", file], limit)
        if done.status != 0:
            return done.step(), None
        written = json.loads(file.read_text())
        self._sign(written["context"])
        write(written, file)
        return done.step(), written


def counts_of_tests(output: str) -> dict[str, int]:
    """How many tests passed, failed and so on, out of the last line of pytest."""
    last = (output.strip().splitlines() or [""])[-1]
    found = re.findall(r"(\d+) (passed|failed|errors?|skipped|deselected)\b", last)
    return {word: int(count) for count, word in found}


def sanitized(done: Done) -> Report:
    """The outcome of a sanitizer."""
    if "Device not supported" in done.output:
        note = "compute-sanitizer does not support this device"
        return {"ok": None, "seconds": round(done.seconds, 1), "note": note}
    summary = re.findall(r"\w+ SUMMARY: .*", done.output)[-1:]
    exercised = re.findall(r"^\d+ calls of ops$", done.output, re.MULTILINE)
    step = done.step(", ".join([*exercised, *summary]))
    return step if exercised else step | {"ok": False, "tail": done.output[-TAIL:]}


def kernels_step(rows: Sequence[Report], planned: int, seconds: float, last: Done) -> Report:
    """The outcome of all rows."""
    good = sum(map(_gpu_report.measured, rows))
    wrong = sum("wrong" in row for row in rows)
    note = f"{good} of {max(planned, 0)} rows measured, {wrong} wrong"
    ok = 0 < planned == good
    tail = {} if ok else {"tail": last.output[-TAIL:]}
    return {"ok": ok, "seconds": seconds, "note": note} | tail


def write(report: Report, file: Path) -> None:
    """Write a report as JSON."""
    file.write_text(json.dumps(report, indent=1) + "\n")


def said_command() -> str:
    """The command line, folders of this machine left out."""
    shown = [Path(a).name if Path(a).is_absolute() else a for a in sys.argv[1:]]
    return shlex.join(["python", f"benchmarks/{SCRIPT.name}", *shown])


# ---- Stages --------------------------------------------------------------------------------------


def probe() -> Report:
    """What the steps need to know of torch and the GPU, asked in a process of its own."""
    command = [sys.executable, str(SCRIPT), "--stage", "probe"]
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment(True), capture_output=True, text=True, timeout=120
        )
        return json.loads(done.stdout.strip().splitlines()[-1])
    except (subprocess.SubprocessError, json.JSONDecodeError, IndexError, OSError) as error:
        return {"gpu": False, "why": f"torch cannot be asked ({error})"}


def _probe_stage() -> int:
    found: Report = {"gpu": False}
    try:
        import torch

        found |= {"gpu": torch.cuda.is_available(), "torch_folder": torch.__path__[0]}
        found["why"] = f"torch {torch.__version__} sees none"
        if found["gpu"]:
            found["arch"] = "{}{}".format(*torch.cuda.get_device_capability())
    except (ImportError, RuntimeError) as error:
        found |= {"gpu": False, "why": str(error)}
    print(json.dumps(found))
    return 0


def _exercise_stage(device: str) -> int:
    import _gpu_exercise

    print(f"{_gpu_exercise.run(device)} calls of ops")
    return 0


def _measure_stage(a: argparse.Namespace) -> int:
    import _gpu_stages

    finished = _gpu_stages.measure(a.records, a.until, a.device, a.quick, a.wall_only)
    return 0 if finished else START_AGAIN


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the results")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="small sizes, to try the measuring")
    parser.add_argument("--commit", default="", help="of this code, where git cannot say")
    hidden = argparse.SUPPRESS
    parser.add_argument("--stage", choices=("probe", "exercise", "measure"), help=hidden)
    parser.add_argument("--records", type=Path, help=hidden)
    parser.add_argument("--until", type=float, help=hidden)
    parser.add_argument("--wall-only", action="append", default=[], help=hidden)
    chosen = parser.parse_args(argv)
    if chosen.stage is None and chosen.out is None:
        parser.error("--out DIR is needed")
    return chosen


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    a = _arguments(argv)
    if a.stage == "probe":
        return _probe_stage()
    if a.stage == "exercise":
        return _exercise_stage(a.device)
    if a.stage == "measure":
        return _measure_stage(a)
    found = probe() if a.device == "cuda" else {}
    if a.device == "cuda" and not found["gpu"]:
        advice = "--device cpu --quick tries the measuring"
        print(f"gpu_check: no CUDA GPU here: {found['why']}; {advice}", file=sys.stderr)
        return 2
    return Check(a.out, a.device, a.quick, found, a.commit).run()


if __name__ == "__main__":
    raise SystemExit(main())
