"""Programs that gpu_check.py runs, with a limit on their time, and where it finds them."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from _gpu_report import Report

ROOT = Path(__file__).resolve().parent.parent
TAIL = 4000  # characters of the output of a step that failed

HARD = ("torch", "numpy", "cv2", "safetensors")  # disco_fast cannot be imported without them
PACKAGES = {
    **dict.fromkeys(HARD, "nothing but the build runs"),
    "pytest": "no tests",
    "hypothesis": "the tests of the superpixel ops are left out",
}
PROGRAMS = {
    "cmake": "no build",
    "nvcc": "no build of the kernels",
    "ninja": "make builds instead",
    "compute-sanitizer": "no sanitizers",
    "nvidia-smi": "no clocks in the report",
}


@dataclass(frozen=True)
class Done:
    """A process that ended: its exit status (None if it ran past its limit), time and output."""

    status: int | None
    seconds: float
    output: str

    def step(self, note: str = "") -> Report:
        """What the report says of it."""
        late = "ran past its limit" if self.status is None else ""
        said = "; ".join(filter(None, (note, late)))
        step: Report = {"ok": self.status == 0, "seconds": round(self.seconds, 1), "note": said}
        return step if step["ok"] else step | {"tail": self.output[-TAIL:]}

    def last_words(self) -> str:
        """How it ended, in one line."""
        end = "ran past its limit" if self.status is None else f"ended with {self.status}"
        return f"the process {end}: {(self.output.strip().splitlines() or [''])[-1]}"


class Runner:
    """Runs programs in the checkout and keeps what they print.

    Args:
        log: file that gets all of it.
        checkout: whether they take disco_fast from the checkout, where it is built in place, and
            not from where it is installed.
    """

    def __init__(self, log: Path, checkout: bool):
        self._log, self._checkout = log, checkout
        self._begin = time.monotonic()
        log.write_text("")

    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._begin

    def say(self, text: str) -> None:
        """A line of progress."""
        print(f"[{self.elapsed():4.0f} s] {text}", flush=True)

    def run(
        self,
        command: Sequence[object],
        limit: float,
        variables: Mapping[str, str] | None = None,
        echo: bool = False,
    ) -> Done:
        """Run a command; at `limit` seconds it and its children are stopped."""
        words = [str(word) for word in command]
        begin = time.monotonic()
        try:
            process = subprocess.Popen(
                words,
                cwd=ROOT,
                env=environment(self._checkout) | dict(variables or {}),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            return Done(127, 0.0, f"{words[0]}: {error}")
        lines: list[str] = []
        reader = threading.Thread(target=self._read, args=(process, lines, echo), daemon=True)
        reader.start()
        status = _wait(process, limit)
        reader.join(5)  # a child that it left behind may hold the pipe open
        output = "".join(lines)
        with self._log.open("a") as file:
            file.write(f"$ {shlex.join(words)}\n{output}[status {status}]\n\n")
        return Done(status, time.monotonic() - begin, output)

    def _read(self, process: subprocess.Popen[str], lines: list[str], echo: bool) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if echo:
                self.say(line.rstrip())


def _wait(process: subprocess.Popen[str], limit: float) -> int | None:
    """Its exit status, or None after stopping it and its children."""
    try:
        return process.wait(max(limit, 1))
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def environment(checkout: bool) -> dict[str, str]:
    """This process's; with the checkout, if wanted, in front of any installed disco_fast."""
    found = dict(os.environ)
    found.pop("DISCO_FAST_NATIVE", None)
    found["PYTHONUNBUFFERED"] = "1"
    if checkout:
        found["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), found.get("PYTHONPATH")]))
    nvcc = program("nvcc")
    if nvcc and not shutil.which("nvcc"):
        found.setdefault("CUDACXX", nvcc)
    return found


def program(name: str) -> str | None:
    """Where a program is: on PATH, beside this Python, or in the CUDA toolkit."""
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    folders = [Path(sys.executable).parent]
    folders += [Path(home) / sub for home in homes if home for sub in ("bin", "compute-sanitizer")]
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(map(str, folders)))


def has_package(name: str) -> bool:
    """Whether a Python package is installed; it is not imported."""
    return importlib.util.find_spec(name) is not None


def missing() -> list[str]:
    """A sentence for everything that is not here."""
    packages = [name for name in PACKAGES if not has_package(name)]
    programs = [name for name in PROGRAMS if program(name) is None]
    return [
        *(f"Python package {name} is missing: {PACKAGES[name]}." for name in packages),
        *(f"Program {name} is missing: {PROGRAMS[name]}." for name in programs),
    ]
