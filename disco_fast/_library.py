"""Finds and loads the native halves, and explains the absence of one.

Importing this module never fails: without a library every op runs on its specification.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

MINIMUM_TORCH = (2, 10)
_MEND_CUDA = (
    "with nvcc on PATH, run `DISCO_FAST_CUDA=on pip install --force-reinstall --no-deps .`"
    " in the source folder"
)
_MEND = "with a compiler, run `pip install --force-reinstall --no-deps .` in the source folder"


@dataclass(frozen=True)
class Half:
    """One half of the native library.

    Attributes:
        name: "cpu" or "cuda".
        active: whether its kernels run.
        why: one sentence: what was loaded, or what is missing and how to mend it.
    """

    name: str
    active: bool
    why: str


def _torch_version() -> tuple[int, int]:
    major, minor = torch.__version__.split(".")[:2]
    return int(major), int(minor)


def _load(library: Path, mend: str) -> str | None:
    """Load a library; what stood in the way and how to mend it, or None."""
    if _torch_version() < MINIMUM_TORCH:
        return f"torch {torch.__version__} is older than 2.10; upgrade torch"
    try:
        torch.ops.load_library(str(library))
    except OSError as error:
        return f"{library.name} does not load ({error}); {mend}"
    return None


def _load_cpu(folder: Path) -> Half:
    found = sorted(folder.glob("libdisco_fast_cpu.*"))
    if not found:
        why = "not built: no C++ compiler at install time, or this is an unbuilt source folder"
        return Half("cpu", False, f"{why} ({folder}); {_MEND}")
    if obstacle := _load(found[0], _MEND):
        return Half("cpu", False, obstacle)
    isa = torch.ops.disco_fast._instruction_set()
    return Half("cpu", True, f"{found[0].name} is loaded, kernels for instruction set {isa}")


def _driver_version() -> int:
    """The CUDA release that the GPU's driver knows, as in 13000; 0 without a driver.

    This one call does not start CUDA.
    """
    version = ctypes.c_int(0)
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    return version.value


def _capability(arch: str) -> str:
    """An architecture as nvcc calls it, "90a", as a compute capability, "9.0a"; a word as it is."""
    return re.sub(r"^(\d+)(\d)", r"\1.\2", arch)


def _load_cuda(folder: Path) -> Half:
    """The CUDA half. Nothing here asks for a GPU: that would start CUDA, and forks would fail."""
    library = folder / "libdisco_fast_cuda.so"
    if not library.exists():
        why = "not built: no nvcc at install time, or it was switched off"
        return Half("cuda", False, f"{why}; on a GPU the specification runs; {_MEND_CUDA}")
    if torch.version.cuda is None:
        return Half("cuda", False, f"built, but torch {torch.__version__} has no CUDA")
    try:
        built = json.loads(library.with_suffix(".json").read_text())
        release, archs = (
            int(built["cuda"].split(".")[0]),
            ", ".join(map(_capability, built["archs"])),
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        why = f"{library.with_suffix('.json').name} does not say what it was built for ({error!r})"
        return Half("cuda", False, f"{why}; {_MEND_CUDA}")
    driver = _driver_version()
    if 0 < driver < release * 1000:
        why = f"built with CUDA {built['cuda']}, but the driver knows only {driver // 1000}"
        mend = "update the driver, or build with an older nvcc"
        return Half("cuda", False, f"{why}.{driver % 1000 // 10}; {mend}")
    if obstacle := _load(library, _MEND_CUDA):
        return Half("cuda", False, obstacle)
    why = f"CUDA {built['cuda']}, compute capability {archs} and later"
    return Half("cuda", True, f"{library.name} is loaded, kernels for {why}")


@cache
def halves() -> tuple[Half, ...]:
    """Load what can be loaded, once, and say how it went.

    The environment variable `DISCO_FAST_NATIVE=off`, read here and only at import, leaves the
    native library out.
    """
    if os.environ.get("DISCO_FAST_NATIVE", "on").lower() == "off":
        why = "switched off by DISCO_FAST_NATIVE=off"
        return Half("cpu", False, why), Half("cuda", False, why)
    folder = Path(__file__).parent
    return _load_cpu(folder), _load_cuda(folder)
